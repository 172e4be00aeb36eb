//! Ten clients that call all rpcs at once.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use billstream::client::Stub;
use billstream::proto::report::{ExportRequest, ListInvoicesRequest, SummaryRequest};
use billstream::Config;
use futures::executor::block_on;
use futures::{SinkExt, StreamExt};
use grpcio::{RpcStatusCode, WriteFlags};

use crate::common::*;
use crate::support::*;

/// Calls that were made, by rpc.
static CALLS: [AtomicU64; 6] = [const { AtomicU64::new(0) }; 6];

/// One client: its name, and a small generator of numbers that differ from client to client.
struct Caller {
    client: Stub,
    name: usize,
    seed: u64,
    calls: u64,
}

impl Caller {
    fn random(&mut self, below: u64) -> u64 {
        // Knuth's MMIX.
        self.seed = self.seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.seed >> 33) % below
    }

    fn run(mut self, until: Instant) {
        while Instant::now() < until {
            let rpc = self.random(6);
            self.calls += 1;
            match rpc {
                0 => self.get_summary(),
                1 => self.list_invoices(),
                2 => self.export_invoices(),
                3 => self.export_invoice_batches(),
                4 => self.bulk_create(),
                _ => self.reconcile(),
            }
            CALLS[rpc as usize].fetch_add(1, Ordering::Relaxed);
        }
    }

    fn customer(&mut self) -> String {
        [String::new(), format!("cust-{:03}", self.random(100))][self.random(2) as usize].clone()
    }

    fn get_summary(&mut self) {
        let customer_id = self.customer();
        let issued_from = if self.random(4) == 0 { time(950_000_000) } else { None.into() };
        let request = SummaryRequest { customer_id, issued_from, ..SummaryRequest::default() };
        let summary = self.client.get_summary(&request, options()).unwrap();
        let counts = summary.totals.iter().map(|total| total.invoice_count);
        assert_eq!(counts.sum::<i64>(), summary.invoice_count);
    }

    fn list_invoices(&mut self) {
        let customer_id = self.customer();
        let page_size = self.random(200) as i32;
        let mut request =
            ListInvoicesRequest { customer_id, page_size, ..ListInvoicesRequest::default() };
        let mut last = 0;
        for _ in 0..3 {
            let page = self.client.list_invoices(&request, options()).unwrap();
            for invoice in &page.invoices {
                assert!(invoice.sequence > last);
                last = invoice.sequence;
            }
            request.page_token = page.next_page_token;
            if request.page_token.is_empty() {
                break;
            }
        }
    }

    fn export_request(&mut self) -> ExportRequest {
        let after_sequence = self.random(20_000) as i64;
        let max_rows = self.random(10_000) as i64;
        let customer_id = self.customer();
        ExportRequest { customer_id, after_sequence, max_rows, ..ExportRequest::default() }
    }

    /// To its end, or abandoned in the middle.
    fn export_invoices(&mut self) {
        let request = self.export_request();
        let rows = self.client.export_invoices(&request, options()).unwrap();
        let wanted = if self.random(3) == 0 { self.random(1000) as usize } else { usize::MAX };
        let (rows, error) = collect(rows.take(wanted));
        assert!(error.is_none(), "{error:?}");
        assert!(rows.windows(2).all(|pair| pair[0].sequence < pair[1].sequence));
        assert!(request.max_rows == 0 || rows.len() as i64 <= request.max_rows);
    }

    fn export_invoice_batches(&mut self) {
        let request = self.export_request();
        let batches = self.client.export_invoice_batches(&request, options()).unwrap();
        let (batches, error) = collect(batches);
        assert!(error.is_none(), "{error:?}");
        let rows: Vec<_> = batches.into_iter().flat_map(|batch| batch.invoices).collect();
        assert!(rows.windows(2).all(|pair| pair[0].sequence < pair[1].sequence));
    }

    /// An upload, and sometimes the same again, which is refused or applied already.
    fn bulk_create(&mut self) {
        let (name, calls) = (self.name, self.calls);
        let has_commit = self.random(2) == 0;
        let rows = self.random(200) as i64 + 1;
        let requests = || {
            let id = |i| format!("soak-{name}-{calls}-{i}");
            let commit = has_commit.then(|| commit(&format!("batch-{name}-{calls}"), rows));
            (0..rows).map(move |i| invoice(&id(i), 1000)).chain(commit)
        };
        let result = upload(&self.client, requests()).unwrap();
        assert_eq!((result.created_count, result.already_applied), (rows, false));
        if self.random(4) > 0 {
            return;
        }
        let again = upload(&self.client, requests());
        if has_commit {
            assert!(again.unwrap().already_applied);
        } else {
            assert_status(again, RpcStatusCode::ALREADY_EXISTS, &format!("soak-{name}-{calls}-0"));
        }
    }

    fn reconcile(&mut self) {
        let (mut sink, mut acks) = self.client.reconcile(options()).unwrap();
        let (name, calls) = (self.name, self.calls);
        let events = self.random(50);
        block_on(async {
            for i in 0..events {
                // Invoices 1, 4, 7, … of the database are in EUR; some of these do not exist.
                let invoice_id = format!("inv-{:08}", self.random(30_000));
                let event = event(&format!("soak-{name}-{calls}-{i}"), &invoice_id, 1);
                sink.send((event, WriteFlags::default())).await.unwrap();
            }
            // The call may be over before this is through, which grpcio makes an error of.
            let _ = sink.close().await;
            for i in 0..events {
                let ack = acks.next().await.unwrap().unwrap();
                assert_eq!(ack.event_id, format!("soak-{name}-{calls}-{i}"));
            }
            assert!(acks.next().await.is_none());
        });
    }
}

#[test]
fn ten_clients_call_everything_at_once() {
    let _alone = alone();
    let seconds = std::env::var("BILLSTREAM_TEST_SOAK_SECS").map_or(6, |n| n.parse().unwrap());
    let server = TestServer::with_copy(&database(10_000), Config::default());
    let until = Instant::now() + Duration::from_secs(seconds);
    let callers: Vec<_> = (0..10)
        .map(|name| {
            let client = server.client();
            let caller = Caller { client, name, seed: name as u64, calls: 0 };
            std::thread::spawn(move || caller.run(until))
        })
        .collect();
    for caller in callers {
        caller.join().unwrap();
    }
    let calls: Vec<_> = CALLS.iter().map(|calls| calls.load(Ordering::Relaxed)).collect();
    println!("{seconds} s: summary, list, rows, batches, uploads, reconciles: {calls:?}");
    assert!(calls.iter().all(|calls| *calls > 0));
    eventually("nothing is open", || {
        server.get().streams_open() == 0 && server.get().connections_in_use() == 0
    });
    assert_summary_is_that_of_the_rows(&server);
}

fn assert_summary_is_that_of_the_rows(server: &TestServer) {
    let sql = server.sql();
    let by_rows = "SELECT currency, count(*), sum(total_amount_cents), sum(paid_cents)
                   FROM invoices GROUP BY currency ORDER BY currency";
    let mut rows = sql.prepare(by_rows).unwrap();
    let rows: Vec<(String, i64, i64, i64)> = rows
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap();
    let summary = summary(&server.client());
    let totals: Vec<_> = summary
        .totals
        .into_iter()
        .map(|t| (t.currency, t.invoice_count, t.total_cents, t.paid_cents))
        .collect();
    assert_eq!(totals, rows);
    // Every payment that was applied is in them.
    let applied = "SELECT sum(amount_cents) FROM reconcile_events WHERE outcome BETWEEN 1 AND 3";
    let applied: i64 = sql.query_row(applied, [], |row| row.get(0)).unwrap();
    assert_eq!(rows.iter().map(|row| row.3).sum::<i64>(), applied);
}
