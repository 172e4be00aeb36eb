//! Prometheus itself: its linter passes the metrics and the rules, and it scrapes them; the dashboard's queries and
//! those of the alerts have an answer.

use std::fs;
use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use billstream::proto::report::{ExportRequest, ListInvoicesRequest};
use billstream::Config;
use futures::executor::block_on;
use futures::{SinkExt, StreamExt};
use grpcio::{CallOption, WriteFlags};

use crate::common::{
    collect, database, event, eventually, half_close, invoice, skip, summary, upload, TestServer,
};
use crate::documented::{panels, rules};
use crate::support::{admin, get, operated, send, with_admin};

/// Where its programs are.
fn prometheus() -> Option<PathBuf> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("build/unpack-prometheus.sh");
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("prometheus");
    // Two tests ask, and one unpacks.
    static ONE: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(|e| e.into_inner());
    let output = Command::new(script).arg(dir).output().unwrap();
    if !output.status.success() {
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        let last = words.lines().last().unwrap_or("no message");
        skip::skip(&format!("prometheus: {last}; the package `prometheus` has it"));
        return None;
    }
    Some(PathBuf::from(String::from_utf8(output.stdout).unwrap().trim()))
}

fn check(promtool: &Path, args: &[&str], input: &str) {
    let mut promtool = Command::new(promtool);
    promtool.current_dir(env!("CARGO_MANIFEST_DIR")).args(args);
    let mut child = promtool
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let words = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        output.status.success(),
        "{args:?}: {}{}",
        words(&output.stdout),
        words(&output.stderr)
    );
    assert_eq!(words(&output.stderr), "", "{args:?}");
}

#[test]
fn its_linter_finds_nothing() {
    let Some(bin) = prometheus() else { return };
    let server = operated(Config::default());
    upload(&server.client(), [invoice("", 1)]).unwrap();
    let promtool = bin.join("promtool");
    check(&promtool, &["check", "metrics"], &get(&server, "/metrics").body);
    check(&promtool, &["check", "rules", "--lint=all", "--lint-fatal", "packaging/alerts.yml"], "");
    check(&promtool, &["test", "rules", "packaging/alerts-test.yml"], "");
}

/// A Prometheus that scrapes one server.
struct Scraper {
    child: Child,
    address: SocketAddr,
    _dir: tempfile::TempDir,
}

impl Drop for Scraper {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Scraper {
    fn start(bin: &Path, target: SocketAddr) -> Scraper {
        let dir = tempfile::tempdir().unwrap();
        let config = format!(
            "global: {{scrape_interval: 500ms}}\nscrape_configs:\n- job_name: billstream\n  \
             static_configs: [{{targets: ['{target}']}}]\n"
        );
        fs::write(dir.path().join("prometheus.yml"), config).unwrap();
        // Free a moment ago.
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let child = Command::new(bin.join("prometheus"))
            .current_dir(dir.path())
            .args(["--config.file=prometheus.yml", "--storage.tsdb.path=data", "--log.level=error"])
            .arg(format!("--web.listen-address={address}"))
            .spawn()
            .unwrap();
        let scraper = Scraper { child, address, _dir: dir };
        eventually("prometheus answers", || std::net::TcpStream::connect(address).is_ok());
        scraper
    }

    /// How many series the answer to a query has.
    fn ask(&self, query: &str) -> usize {
        let encoded: String = query.bytes().map(|byte| format!("%{byte:02x}")).collect();
        // HTTP/1.0: the answer ends with the connection.
        let request = format!("GET /api/v1/query?query={encoded} HTTP/1.0\r\n\r\n");
        let answer = send(self.address, request.as_bytes());
        let answer: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
        assert_eq!(answer["status"], "success", "{query}: {answer}");
        answer["data"]["result"].as_array().map_or(0, Vec::len)
    }
}

/// Some of each: calls, rows, a failure.
fn traffic(server: &TestServer) {
    let client = server.client();
    summary(&client);
    upload(&client, (0..10).map(|_| invoice("", 1))).unwrap();
    let (mut sink, acks) = client.reconcile(CallOption::default()).unwrap();
    block_on(sink.send((event("", "inv-00000001", 1), WriteFlags::default()))).unwrap();
    block_on(half_close(&mut sink));
    collect(acks);
    let export = client.export_invoices(&ExportRequest::new(), CallOption::default()).unwrap();
    assert!(block_on(export.count()) >= 1000);
    let unknown = ListInvoicesRequest { page_token: "x".to_owned(), ..Default::default() };
    client.list_invoices(&unknown, CallOption::default()).unwrap_err();
}

#[test]
fn it_scrapes_and_the_queries_of_the_dashboard_and_the_alerts_have_answers() {
    let Some(bin) = prometheus() else { return };
    let server = TestServer::with_copy(&database(1000), with_admin(Config::default()));
    let scraper = Scraper::start(&bin, admin(&server));
    traffic(&server);
    eventually("it has scraped", || scraper.ask("billstream_rows_exported_total > 0") == 1);
    assert!(panels().len() > 10);
    for (title, query) in panels() {
        let query = query.replace("$__rate_interval", "1m").replace("$job", "billstream");
        eventually(&format!("{title}: {query}"), || {
            traffic(&server);
            scraper.ask(&query) > 0
        });
    }
    // None of a server that is well fires.
    for query in rules("expr:") {
        assert_eq!(scraper.ask(&query), 0, "{query}");
    }
}
