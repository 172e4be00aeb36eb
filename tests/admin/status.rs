//! `/status.json`: it says what the metrics say, and what each stream does.

use billstream::proto::report::ExportRequest;
use billstream::Config;
use futures::executor::block_on;
use futures::{SinkExt, StreamExt};
use grpcio::{CallOption, WriteFlags};
use serde_json::Value;

use crate::common::{database, event, eventually, invoice, upload, TestServer};
use crate::support::{get, samples, with_admin};

fn status(server: &TestServer) -> Value {
    serde_json::from_str(&get(server, "/status.json").body).unwrap()
}

/// The stream of this method, if it is shown.
fn stream(status: &Value, method: &str) -> Option<Value> {
    let shown = status["streams"]["shown"].as_array().unwrap();
    shown.iter().find(|stream| stream["method"] == method).cloned()
}

#[test]
fn each_stream_says_what_it_waits_for() {
    let server = TestServer::with_copy(&database(100_000), with_admin(Config::default()));
    let client = server.slow_client();
    let mut export = client.export_invoices(&ExportRequest::new(), CallOption::default()).unwrap();
    block_on(export.next()).unwrap().unwrap();
    let (mut rows, result) = client.bulk_create(CallOption::default()).unwrap();
    block_on(rows.send((invoice("new", 1), WriteFlags::default()))).unwrap();
    let (mut events, mut acks) = client.reconcile(CallOption::default()).unwrap();
    block_on(events.send((event("e1", "inv-00000001", 1), WriteFlags::default()))).unwrap();
    block_on(acks.next()).unwrap().unwrap();

    let waits_for = |method: &str, state: &str| {
        stream(&status(&server), method).is_some_and(|stream| stream["state"] == state)
    };
    eventually("the export is parked", || waits_for("ExportInvoices", "parked"));
    eventually("the upload waits", || waits_for("BulkCreate", "waiting_for_client"));
    eventually("the reconcile waits", || waits_for("Reconcile", "waiting_for_client"));

    let status = status(&server);
    assert_eq!(status["streams"]["total"], 3);
    assert_eq!(status["streams"]["by_state"]["parked"], 1);
    let export_now = stream(&status, "ExportInvoices").unwrap();
    assert_eq!(
        (&export_now["window_used"], &export_now["window_max"], &export_now["window_unit"]),
        (&1.into(), &server.config.export_queue_chunks.into(), &"chunks".into())
    );
    assert!(export_now["peer"].as_str().unwrap().contains("127.0.0.1"), "{export_now}");
    assert!(export_now["rows"].as_u64() > Some(0) && export_now["messages"].as_u64() > Some(0));
    let upload_now = stream(&status, "BulkCreate").unwrap();
    assert_eq!((&upload_now["rows"], &upload_now["messages"]), (&1.into(), &1.into()));
    assert_eq!(upload_now["window_used"], upload_now["bytes"]);
    let reconcile_now = stream(&status, "Reconcile").unwrap();
    assert_eq!((&reconcile_now["rows"], &reconcile_now["window_used"]), (&1.into(), &0.into()));

    let metrics = samples(&get(&server, "/metrics").body);
    let parked = "billstream_streams{rpc_method=\"billing.v1.ReportService/ExportInvoices\",state=\"parked\"}";
    assert_eq!(metrics[parked], 1.0);
    drop((export, rows, result, events, acks));
    eventually("all are gone", || {
        let status = self::status(&server);
        status["streams"]["total"] == 0 && status["calls_open"] == 0
    });
}

#[test]
fn a_stream_whose_rows_are_with_the_writer_says_so() {
    let server = TestServer::with_copy(&database(1000), with_admin(Config::default()));
    let other = server.sql();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let client = server.client();
    let (mut events, mut acks) = client.reconcile(CallOption::default()).unwrap();
    block_on(events.send((event("e1", "inv-00000001", 1), WriteFlags::default()))).unwrap();
    let state = || stream(&status(&server), "Reconcile").map(|stream| stream["state"].clone());
    eventually("it waits for the writer", || state() == Some("waiting_for_writer".into()));
    other.execute_batch("ROLLBACK").unwrap();
    block_on(acks.next()).unwrap().unwrap();
    eventually("it waits for its client", || state() == Some("waiting_for_client".into()));
}

#[test]
fn it_agrees_with_the_metrics() {
    let server = TestServer::with_copy(&database(10_000), with_admin(Config::default()));
    let client = server.client();
    upload(&client, [invoice("new", 1), invoice("newer", 2)]).unwrap();
    let export = client.export_invoices(&ExportRequest::new(), CallOption::default()).unwrap();
    assert_eq!(block_on(export.count()), 10_002);
    let of_export = "rpc_method=\"billing.v1.ReportService/ExportInvoices\"";
    eventually("the export is counted", || {
        let key = format!(
            "rpc_server_call_duration_seconds_count{{{of_export},rpc_response_status_code=\"OK\"}}"
        );
        samples(&get(&server, "/metrics").body)[&key] == 1.0
    });
    let (status, metrics) = (status(&server), samples(&get(&server, "/metrics").body));
    let calls = status["calls"].as_array().unwrap();
    let export = calls.iter().find(|calls| calls["method"] == "ExportInvoices").unwrap();
    assert_eq!(export["codes"]["OK"], 1);
    assert_eq!(export["duration_seconds"]["count"], 1);
    let bounds = export["duration_seconds"]["bounds"].as_array().unwrap().len();
    assert_eq!(export["duration_seconds"]["up_to"].as_array().unwrap().len(), bounds);
    let sent = |what: &str| metrics[&format!("billstream_sent_{what}_total{{{of_export}}}")];
    assert_eq!(export["sent"]["messages"].as_f64(), Some(sent("messages")));
    assert_eq!(export["sent"]["bytes"].as_f64(), Some(sent("bytes")));
    assert_eq!(sent("messages"), 10_002.0);
    for (ours, theirs) in [
        (&status["rows"]["exported"], "billstream_rows_exported_total"),
        (&status["rows"]["scanned"], "billstream_rows_scanned_total"),
        (&status["rows"]["created"], "billstream_invoices_created_total"),
        (&status["commits"]["count"], "billstream_commits_total"),
        (&status["wal"]["max"], "billstream_wal_limit_bytes"),
        (&status["memory"]["grpc_bound_bytes"], "billstream_memory_bound_bytes{part=\"grpc\"}"),
    ] {
        assert_eq!(ours.as_f64(), Some(metrics[theirs]), "{theirs}");
    }
    assert_eq!(status["listen"][0], server.addr());
    assert!(status["memory"]["resident_bytes"].as_u64() > Some(1 << 20));
}

/// However many there are, the answer has a bound.
#[test]
fn a_thousand_streams_are_told_of_one_by_one() {
    const OPEN: usize = 1010;
    let config =
        Config { max_uploads: 4096, max_streams_per_connection: 4096, ..Config::default() };
    let config =
        Config { host_share_percent: 100, connection_share_percent: 100, ..with_admin(config) };
    let server = TestServer::start(config);
    let client = server.client();
    let open = |_| {
        let (mut sink, result) = client.bulk_create(CallOption::default()).unwrap();
        block_on(sink.send((invoice("", 1), WriteFlags::default()))).unwrap();
        (sink, result)
    };
    let _uploads: Vec<_> = (0..OPEN).map(open).collect();
    eventually("all are open", || status(&server)["streams"]["total"] == OPEN);
    assert_eq!(status(&server)["streams"]["shown"].as_array().unwrap().len(), 1000);
}
