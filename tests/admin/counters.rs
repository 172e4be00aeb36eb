//! Each counter moves when its event happens, and no label has a value that a client made up.

use std::collections::BTreeSet;
use std::time::Duration;

use billstream::client::Stub;
use billstream::proto::report::{
    BulkResult, CreateInvoiceBatch, CreateInvoiceRequest, ExportRequest, ListInvoicesRequest,
    SummaryRequest,
};
use billstream::Config;
use futures::executor::block_on;
use futures::{SinkExt, StreamExt};
use grpcio::{CallOption, WriteFlags};
use protobuf::Message;

use crate::common::http2::{Frame, Http2};
use crate::common::{
    collect, commit, database, event, eventually, half_close, invoice, raw, summary, time, upload,
    TestServer,
};
use crate::documented::assert_bounded;
use crate::support::{get, metrics, samples, with_admin};

/// What happens, and the counters that move by it. It is done again until they have.
struct Case {
    counters: &'static [&'static str],
    config: Config,
    happens: fn(&TestServer),
}

fn case(counters: &'static [&'static str], happens: fn(&TestServer)) -> Case {
    Case { counters, config: Config::default(), happens }
}

impl Case {
    fn with(self, config: Config) -> Case {
        Case { config, ..self }
    }
}

fn options() -> CallOption {
    CallOption::default()
}

fn flags() -> WriteFlags {
    WriteFlags::default()
}

/// The name of a method as a label has it.
macro_rules! of {
    ($metric:literal, $method:literal $(, $code:literal)?) => {
        concat!(
            $metric, "{rpc_method=\"billing.v1.ReportService/", $method, "\""
            $(, ",rpc_response_status_code=\"", $code, "\"")?, "}"
        )
    };
}

macro_rules! reached {
    ($limit:literal) => {
        concat!("billstream_limit_reached_total{limit=\"", $limit, "\"}")
    };
}

fn cases() -> Vec<Case> {
    [reads(), writes(), admissions(), sizes(), times()].into_iter().flatten().collect()
}

fn reads() -> Vec<Case> {
    vec![
        case(
            &[
                of!("rpc_server_call_duration_seconds_count", "GetSummary", "OK"),
                of!("billstream_received_messages_total", "GetSummary"),
                of!("billstream_sent_messages_total", "GetSummary"),
                "process_cpu_seconds_total",
            ],
            |server| drop(summary(&server.client())),
        ),
        case(
            &[
                of!("rpc_server_call_duration_seconds_count", "ListInvoices", "INVALID_ARGUMENT"),
                of!("billstream_received_bytes_total", "ListInvoices"),
            ],
            |server| {
                let page_token = "x".to_owned();
                let request = ListInvoicesRequest { page_token, ..Default::default() };
                server.client().list_invoices(&request, options()).unwrap_err();
            },
        ),
        case(
            &[
                of!("billstream_sent_messages_total", "ExportInvoiceBatches"),
                of!("billstream_sent_bytes_total", "ExportInvoiceBatches"),
                "billstream_rows_scanned_total",
                "billstream_rows_exported_total",
            ],
            |server| {
                let client = server.client();
                let stream = client.export_invoice_batches(&ExportRequest::new(), options());
                assert!(collect(stream.unwrap()).1.is_none());
            },
        ),
        case(&["billstream_scans_parked_total"], |server| {
            let parked = &server.get().metrics().scans_parked;
            hold_export(server, || eventually("it is parked", || parked.get() > 0));
        }),
        case(
            &[
                "billstream_sql_interrupted_total{reason=\"deadline\"}",
                of!("rpc_server_call_duration_seconds_count", "GetSummary", "DEADLINE_EXCEEDED"),
            ],
            |server| {
                let late = options().timeout(Duration::from_millis(5));
                let _ = server.client().get_summary(&dated(), late);
            },
        ),
    ]
}

fn writes() -> Vec<Case> {
    vec![
        case(
            &[
                "billstream_commits_total",
                "billstream_jobs_committed_total",
                "billstream_commit_jobs_count",
                "billstream_commit_duration_seconds_count",
                "billstream_invoices_created_total",
                of!("billstream_received_messages_total", "BulkCreate"),
                of!("billstream_sent_bytes_total", "BulkCreate"),
                "billstream_wal_bytes",
            ],
            |server| drop(upload(&server.client(), [invoice("", 1), commit("", 1)]).unwrap()),
        ),
        case(
            &[
                "billstream_events_acknowledged_total",
                of!("billstream_sent_messages_total", "Reconcile"),
            ],
            |server| {
                let client = server.client();
                let (mut sink, acks) = client.reconcile(options()).unwrap();
                block_on(sink.send((event("e", "inv-00000001", 1), flags()))).unwrap();
                block_on(half_close(&mut sink));
                assert!(collect(acks).1.is_none());
            },
        ),
        case(&["billstream_commits_failed_total"], |server| {
            let other = server.sql();
            other.execute_batch("BEGIN IMMEDIATE").unwrap();
            upload(&server.client(), [invoice("", 1)]).unwrap_err();
        })
        .with(Config { busy_timeout_ms: 0, ..Config::default() }),
        case(&["billstream_wal_truncations_total"], |server| {
            upload(&server.client(), (0..500).map(|_| invoice("", 1))).unwrap();
        })
        .with(Config {
            checkpoint_bytes: 1 << 30,
            wal_limit_bytes: 65_536,
            ..Config::default()
        }),
        case(&["billstream_file_faults"], |server| {
            // Done once, it stays so.
            let _ = std::fs::rename(&server.config.db, server.dir.path().join("moved.db"));
        }),
    ]
}

fn admissions() -> Vec<Case> {
    let config = Config::default;
    vec![
        case(&[reached!("max_exports")], |server| {
            hold_export(server, || hold_export(server, || ()));
        })
        .with(Config { max_exports: 1, ..config() }),
        case(&[reached!("max_uploads")], |server| {
            two_streams(server.client(), |client| client.bulk_create(options()).unwrap());
        })
        .with(Config { max_uploads: 1, ..config() }),
        case(&[reached!("max_streams_per_connection")], |server| {
            two_streams(server.client(), |client| client.bulk_create(options()).unwrap());
        })
        .with(Config { max_streams_per_connection: 1, ..config() }),
        case(&[reached!("max_backups")], |server| {
            let client = billstream::Client::connect(&server.addr());
            let client = client.with_retries(Duration::ZERO);
            // What is not read stays open.
            let _first = client.backup().unwrap();
            client.backup().err().unwrap();
        })
        .with(Config { max_backups: 1, ..config() }),
        case(&[reached!("max_reconciles")], |server| {
            let client = server.client();
            let mut first = client.reconcile(options()).unwrap();
            block_on(first.0.send((event("a", "inv-1", 1), flags()))).unwrap();
            block_on(first.1.next()).unwrap().unwrap();
            let mut second = client.reconcile(options()).unwrap();
            let _ = block_on(second.0.send((event("b", "inv-1", 1), flags())));
            block_on(second.1.next()).unwrap().unwrap_err();
        })
        .with(Config { max_reconciles: 1, ..config() }),
        case(&[reached!("max_queued_unary")], |server| {
            let addr = server.addr();
            std::thread::scope(|scope| {
                for _ in 0..16 {
                    scope.spawn(|| Stub::new(&addr).get_summary(&dated(), options()));
                }
            });
        })
        .with(Config { max_queued_unary: 1, unary_workers: 1, ..config() }),
        case(&[reached!("max_answer_bytes")], two_large_pages)
            .with(Config { max_answer_bytes: 65_536, ..config() }),
    ]
}

fn sizes() -> Vec<Case> {
    let config = Config::default;
    vec![
        case(&[reached!("max_request_bytes")], |server| {
            let request = SummaryRequest { customer_id: "x".repeat(5000), ..Default::default() };
            server.client().get_summary(&request, options()).unwrap_err();
        })
        .with(Config { max_request_bytes: 4096, ..config() }),
        case(&[reached!("max_batch_rows")], |server| {
            let client = server.client();
            let (mut sink, result) = client.bulk_create_batches(options()).unwrap();
            let requests = vec![invoice("", 1), invoice("", 2)];
            let batch = CreateInvoiceBatch { requests, ..Default::default() };
            let _ = block_on(sink.send((batch, flags())));
            block_on(result).unwrap_err();
        })
        .with(Config { max_batch_rows: 1, ..config() }),
        case(&[reached!("max_upload_rows")], |server| {
            upload(&server.client(), [invoice("", 1), invoice("", 2)]).unwrap_err();
        })
        .with(Config { max_upload_rows: 1, ..config() }),
        case(&[reached!("max_upload_bytes")], |server| {
            upload(&server.client(), [invoice("", 1)]).unwrap_err();
        })
        .with(Config { max_upload_bytes: 1, ..config() }),
    ]
}

fn times() -> Vec<Case> {
    let config = Config::default;
    vec![
        case(
            &[reached!("first_message_timeout_ms"), "billstream_calls_without_message_total"],
            |server| {
                let client = server.client();
                let (_sink, result) = client.bulk_create(options()).unwrap();
                block_on(result).unwrap_err();
            },
        )
        .with(Config { first_message_timeout_ms: 10, ..config() }),
        case(&[reached!("idle_timeout_ms")], wait_in_an_upload)
            .with(Config { idle_timeout_ms: 500, ..config() }),
        case(&[reached!("max_stream_age_ms")], wait_in_an_upload)
            .with(Config { max_stream_age_ms: 100, ..config() }),
        case(&[reached!("stall_timeout_ms")], |server| {
            let failed = &server.get().metrics().calls_failed;
            hold_export(server, || eventually("it is given up", || failed.get() > 0));
        })
        .with(Config { stall_timeout_ms: 100, ..config() }),
        case(&[reached!("unary_timeout_ms")], |server| {
            server.client().get_summary(&dated(), options()).unwrap_err();
        })
        .with(Config { unary_timeout_ms: 0, ..config() }),
    ]
}

/// A summary that reads every invoice.
fn dated() -> SummaryRequest {
    SummaryRequest { issued_from: time(1), ..Default::default() }
}

/// Has an export open whose client takes nothing.
fn hold_export(server: &TestServer, meanwhile: impl FnOnce()) {
    let client = server.slow_client();
    let mut stream = client.export_invoices(&ExportRequest::new(), options()).unwrap();
    let _ = block_on(stream.next()).unwrap();
    meanwhile();
}

type Uploading =
    (grpcio::ClientCStreamSender<CreateInvoiceRequest>, grpcio::ClientCStreamReceiver<BulkResult>);

/// Opens two streams at once, and ends them.
fn two_streams(client: Stub, open: fn(&Stub) -> Uploading) {
    let mut streams = [open(&client), open(&client)];
    for (sink, _) in &mut streams {
        // One of the two is refused.
        let _ = block_on(sink.send((invoice("", 1), flags())));
    }
    for (mut sink, result) in streams {
        block_on(half_close(&mut sink));
        let _ = block_on(result);
    }
}

/// An upload whose client sends one row and nothing more.
fn wait_in_an_upload(server: &TestServer) {
    let client = server.client();
    let (mut sink, result) = client.bulk_create(options()).unwrap();
    block_on(sink.send((invoice("", 1), flags()))).unwrap();
    block_on(result).unwrap_err();
}

/// The first is kept, since its client takes nothing.
fn two_large_pages(server: &TestServer) {
    let mut peer = Http2::connect_with_window(&server.addr(), 0);
    let page = ListInvoicesRequest { page_size: 1000, ..Default::default() };
    for stream in [1, 3] {
        peer.open(stream, "/billing.v1.ReportService/ListInvoices").unwrap();
        let mut message = vec![0];
        message.extend((page.compute_size() as u32).to_be_bytes());
        page.write_to_vec(&mut message).unwrap();
        // DATA, with the end of the stream.
        peer.send(&Frame::new(0, 1, stream, message)).unwrap();
    }
    let refused = || server.get().metrics().refused("max_answer_bytes");
    eventually("the second is refused", || refused() > 0);
}

/// Counters that other tests move, with their field and the text of the test.
const ELSEWHERE: [(&str, &str, &str); 3] = [
    ("billstream_clients_refused_total", "clients_refused", include_str!("../security/refused.rs")),
    (
        "billstream_calls_unauthenticated_total",
        "calls_unauthenticated",
        include_str!("../tokens/calls.rs"),
    ),
    ("billstream_calls_denied_total", "calls_denied", include_str!("../tokens/calls.rs")),
];

#[test]
fn every_counter_moves_when_its_event_happens() {
    let (mut moved, mut there) = (BTreeSet::new(), BTreeSet::new());
    for Case { counters, config, happens } in cases() {
        let server = TestServer::with_copy(&database(100_000), with_admin(config));
        let text = || get(&server, "/metrics").body;
        let value = |text: &str, counter: &str| samples(text).get(counter).copied().unwrap_or(0.0);
        let before = text();
        eventually(counters[0], || {
            happens(&server);
            let now = text();
            counters.iter().all(|counter| value(&now, counter) > value(&before, counter))
        });
        assert_bounded(&text());
        moved.extend(counters.iter().map(|counter| counter.split('{').next().unwrap()));
        moved.extend(counters.iter().filter(|it| it.contains("limit=")));
        let limits = samples(&before).into_keys().filter(|it| it.contains("_reached_total"));
        there.extend(limits.chain(metrics(&before).into_iter().filter_map(|it| {
            match &it.kind[..] {
                "counter" => Some(it.name),
                "histogram" => Some(it.name + "_count"),
                _ => None,
            }
        })));
    }
    for (counter, field, test) in ELSEWHERE {
        assert!(
            test.contains(&format!("metrics.{field}.get()"))
                || test.contains(&format!("metrics().{field}.get()"))
        );
        moved.insert(counter);
    }
    let still: Vec<_> = there.iter().filter(|name| !moved.contains(&name[..])).collect();
    assert!(still.is_empty(), "nothing moves {still:#?}");
}

/// A method that there is not, names with quotes in them, and a call that is none: nothing of it is a label.
#[test]
fn what_clients_make_up_is_no_label() {
    let server = TestServer::with_copy(&database(1000), with_admin(Config::default()));
    let client = server.client();
    for name in ["/billing.v1.ReportService/Nope", "/evil\"}{/Get", "/x"] {
        let method = grpcio::Method { name, ..raw(&billstream::grpc::methods::GET_SUMMARY) };
        let channel = grpcio::ChannelBuilder::new(std::sync::Arc::new(grpcio::Environment::new(1)));
        let raw_client = grpcio::Client::new(channel.connect(&server.addr()));
        raw_client.unary_call(&method, &vec![], options()).unwrap_err();
    }
    let request = SummaryRequest { customer_id: "\"}\n".to_owned(), ..Default::default() };
    let _ = client.get_summary(&request, options());
    assert_bounded(&get(&server, "/metrics").body);
}
