//! The nginx of docs/proxy.md, as it stands there.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use billstream::client::Stub;
use billstream::proto::report::ExportRequest;
use futures::executor::block_on;
use futures::{SinkExt, StreamExt};
use grpcio::{CallOption, WriteFlags};

use crate::common::process::Process;
use crate::common::skip::skip;
use crate::common::*;
use crate::resets;

const ROWS: usize = 100_000;

/// It ends with this value.
struct Nginx {
    child: Child,
    addr: String,
    _dir: tempfile::TempDir,
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // Its workers end with the master only when it is asked.
        let _ = Command::new("kill").arg(self.child.id().to_string()).status();
        let _ = self.child.wait();
    }
}

fn nginx() -> Result<PathBuf, String> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("build/unpack-nginx.sh");
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("nginx");
    let output = Command::new(script).arg(dir).output().map_err(|error| error.to_string())?;
    let words = String::from_utf8_lossy(&output.stderr);
    let last = words.lines().last().unwrap_or("no message");
    output.status.success().then_some(()).ok_or(format!("nginx: {last}"))?;
    let path = String::from_utf8(output.stdout).map_err(|error| error.to_string())?;
    Ok(PathBuf::from(path.trim()))
}

/// The configuration in the document, with other ports, and with directories that can be written.
fn configuration(dir: &Path, listen: &str, server: &str) -> String {
    let doc = include_str!("../../docs/proxy.md");
    let conf = doc.split("```nginx\n").nth(1).unwrap().split("```").next().unwrap();
    let places: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .iter()
        .map(|name| format!("{name}_temp_path {}/{name};\n", dir.display()))
        .collect();
    let conf = conf.replace("http {\n", &format!("http {{\n{places}"));
    let changed = conf
        .replace("127.0.0.1:50051", server)
        .replace("listen 50052", &format!("listen {listen}"));
    assert!(changed.contains(server) && changed.contains(listen));
    changed
}

fn start(nginx: &Path, server: &str) -> Nginx {
    let dir = tempfile::tempdir().unwrap();
    let addr = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let conf = dir.path().join("nginx.conf");
    fs::write(&conf, configuration(dir.path(), &addr, server)).unwrap();
    let globals = format!("daemon off; pid {}/pid;", dir.path().display());
    let child = Command::new(nginx)
        .args(["-e", "stderr", "-g", &globals, "-p"])
        .arg(dir.path())
        .arg("-c")
        .arg(&conf)
        .spawn()
        .unwrap();
    let nginx = Nginx { child, addr, _dir: dir };
    eventually("nginx listens", || std::net::TcpStream::connect(&nginx.addr).is_ok());
    nginx
}

fn rows_of_export(client: &Stub) -> usize {
    let export =
        client.export_invoice_batches(&ExportRequest::new(), CallOption::default()).unwrap();
    let (batches, error) = collect(export);
    assert!(error.is_none(), "{error:?}");
    batches.iter().map(|batch| batch.invoices.len()).sum()
}

/// Each ack comes before the next event is sent.
fn reconcile_step_by_step(client: &Stub) {
    let (mut events, mut acks) = client.reconcile(CallOption::default()).unwrap();
    block_on(async {
        for i in 1..=10 {
            let event = event(&format!("e-{i}"), &format!("inv-{i:08}"), 1);
            events.send((event, WriteFlags::default())).await.unwrap();
            assert_eq!(acks.next().await.unwrap().unwrap().event_id, format!("e-{i}"));
        }
        // The status may be there before it has closed; how the call ended is in the acks.
        let _ = events.close().await;
        assert!(acks.next().await.is_none());
    });
}

#[test]
fn all_rpcs_pass_and_an_attack_stays_outside() {
    let _alone = alone();
    let nginx = match nginx() {
        Ok(nginx) => nginx,
        Err(why) => return skip(&why),
    };
    let server = Process::with_copy(&database(ROWS as u64), &[]);
    let proxy = start(&nginx, &server.addr);
    let client = Stub::new(&proxy.addr);
    assert_eq!(summary(&client).invoice_count, ROWS as i64);
    assert_eq!(rows_of_export(&client), ROWS);
    reconcile_step_by_step(&client);
    let rows = (0..5000).map(|i| invoice(&format!("new-{i}"), 100));
    let created = upload(&client, rows).unwrap();
    assert_eq!(created.created_count, 5000);

    resets::attack_through(&proxy.addr);
    assert_eq!(summary(&client).invoice_count, ROWS as i64 + 5000);
    assert_eq!(summary(&Stub::new(&server.addr)).invoice_count, ROWS as i64 + 5000);
    assert!(server.peak_rss_mib() < 512, "{} MiB", server.peak_rss_mib());
}
