//! Reads of many rows, of which few or none are sent.

use billstream::client::Stub;
use billstream::proto::report::{ExportRequest, InvoiceStatus, SummaryRequest};
use billstream::Config;

use crate::common::*;
use crate::support::*;

const ROWS: u64 = 1_000_000;

/// Both threads are taken by scans that find nothing to offer, and more of them wait.
#[test]
fn no_export_waits_for_the_end_of_scans_that_find_nothing() {
    const SPARSE: usize = 8;
    let _alone = alone();
    let config = Config { export_turn_ms: 1, ..Config::default() };
    let server = TestServer::with_copy(&database(ROWS), config);
    let statuses = vec![InvoiceStatus::INVOICE_STATUS_VOID.into()];
    let void = ExportRequest { statuses, ..ExportRequest::default() };
    let export = |client: &Stub, request: &ExportRequest| {
        let (rows, error) = collect(client.export_invoices(request, options()).unwrap());
        assert!(error.is_none(), "{error:?}");
        rows.len()
    };
    std::thread::scope(|scope| {
        let (export, void) = (&export, &void);
        let clients = clients(&server.addr(), SPARSE).into_iter();
        let sparse: Vec<_> =
            clients.map(|client| scope.spawn(move || export(&client, void))).collect();
        eventually("all are open", || server.get().streams_open() == SPARSE);
        let one = ExportRequest { max_rows: 1, ..ExportRequest::default() };
        let (client, mut exports) = (server.client(), 0);
        while !sparse.iter().any(|export| export.is_finished()) {
            assert_eq!(export(&client, &one), 1);
            exports += 1;
        }
        println!("{exports} exports before the first of {SPARSE} sparse ones ended");
        assert!(exports > 5, "{exports} exports");
        assert!(sparse.into_iter().all(|export| export.join().unwrap() == 0));
        let read = server.get().metrics().rows_scanned.get();
        assert_eq!(read, SPARSE as u64 * ROWS + exports, "each reads each row once");
    });
}

#[test]
fn a_summary_by_date_takes_the_memory_of_its_answer() {
    let _alone = alone();
    let server = Process::with_copy(&database(ROWS), &[]);
    let client = Stub::new(&server.addr);
    summary(&client);
    let before = server.peak_rss_mib();
    let requests = [
        SummaryRequest { issued_from: time(1), ..SummaryRequest::default() },
        SummaryRequest { issued_until: time(1 << 33), ..SummaryRequest::default() },
    ];
    for request in requests {
        let summary = client.get_summary(&request, options()).unwrap();
        assert_eq!(summary.invoice_count, ROWS as i64);
    }
    // Each of the two threads has a page cache of 8 MiB.
    let more = server.peak_rss_mib() - before;
    println!("{ROWS} invoices summed with {more} MiB more");
    assert!(more < 32, "{more} MiB");
}
