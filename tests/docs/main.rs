//! The pages of docs/clients: their blocks run as they stand, against a server that refuses a first upload and
//! over connections that are lost. Skipped, with the reason printed, where a language cannot be had.

#[path = "../common/mod.rs"]
mod common;

mod lossy;
mod page;
mod rust;

use std::process::Output;
use std::sync::atomic::Ordering;
use std::thread;

use billstream::Config;
use futures::executor::block_on;
use futures::SinkExt;
use grpcio::{CallOption, WriteFlags};

use common::{eventually, invoice, skip, upload, TestServer};
use lossy::Lossy;
use page::{bash, last_words, Page};

/// What RetryInfo asks for in milliseconds: no page would wait so long by itself.
const RETRY_DELAY_MS: u64 = 250;

/// One upload at a time, and so one that can be refused.
fn config() -> Config {
    Config {
        max_uploads: 1,
        host_share_percent: 100,
        connection_share_percent: 100,
        retry_delay_ms: RETRY_DELAY_MS,
        ..Config::default()
    }
}

/// Runs `call` with the one place of uploads taken, until one upload was refused for it.
fn with_a_refused_upload<T>(server: &TestServer, call: impl FnOnce() -> T) -> T {
    let client = server.client();
    let (mut sink, result) = client.bulk_create(CallOption::default()).unwrap();
    block_on(sink.send((invoice("held", 1), WriteFlags::default()))).unwrap();
    eventually("the place is taken", || upload(&client, [invoice("", -1)]).is_err_and(is_refusal));
    let metrics = server.get().metrics();
    let refused = || metrics.refused("max_uploads");
    let before = refused();
    thread::scope(|scope| {
        scope.spawn(move || {
            eventually("an upload is refused", || refused() > before);
            // Dropped, they cancel the upload.
            drop((sink, result));
        });
        call()
    })
}

/// Whether an upload was refused for its place, and not for what it is.
fn is_refusal(error: grpcio::Error) -> bool {
    common::status::<()>(Err(error)).code() == grpcio::RpcStatusCode::RESOURCE_EXHAUSTED
}

/// What a language calls the two codes after which a page tries again.
type Codes = [&'static str; 2];
const CODES: Codes = ["UNAVAILABLE", "RESOURCE_EXHAUSTED"];

/// Runs the program of a page that is installed, and holds what it prints to what the page says.
fn assert_runs(page: &Page, codes: Codes, run: impl FnOnce(String) -> Output) {
    let mut server = TestServer::start(config());
    let lossy = Lossy::start(server.get().addr());
    let output = with_a_refused_upload(&server, || run(lossy.addr.to_string()));
    let stdout = String::from_utf8_lossy(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr);
    println!("{stdout}\n{stderr}");
    assert!(output.status.success(), "{}", output.status);
    assert_eq!(stdout, page.prints);
    assert_eq!(lossy.lost.load(Ordering::SeqCst), 2, "connections lost");
    let [unavailable, exhausted] = codes;
    let lost = stderr.matches(&format!("{unavailable}: again in ")).count();
    assert!(lost >= 2, "the export and the payments go on");
    let refused = stderr.contains(&format!("{exhausted}: again in 0.25 s"));
    assert!(refused, "after the delay of RetryInfo");
    server.stop();
}

/// Installs, runs and checks a page; says so where it cannot be installed.
fn page_runs(name: &str, language: &str, file: &str) {
    let page = Page::read(name, language);
    let dir = page.directory(&format!("docs-{name}"), file);
    let installed = bash(&page.install, &dir, &[]);
    if !installed.status.success() {
        return skip::skip(&format!("docs/clients/{name}.md: {}", last_words(&installed)));
    }
    // Again in the same shell, for what it sets there; this time there is nothing to fetch.
    let script = format!("{{ {}}} >&2\n{}", page.install, page.run);
    assert_runs(&page, CODES, |addr| bash(&script, &dir, &[("BILLSTREAM_ADDR", addr)]));
}

#[test]
fn the_page_of_python_runs_as_it_stands() {
    page_runs("python", "python", "client.py");
}

#[test]
fn the_page_of_node_runs_as_it_stands() {
    page_runs("node", "js", "client.js");
}

/// With the modules of today where they can be had, and else with those of Debian in their place.
#[test]
fn the_page_of_go_runs_as_it_stands() {
    let page = Page::read("go", "go");
    let modules = page.directory("docs-go/modules", "main.go");
    let protoc = "export PATH=$PATH:$(go env GOPATH)/bin";
    let install = format!("rm -f go.mod\n{}{protoc}\nprotoc --version\n", page.install);
    let installed = bash(&install, &modules, &[]);
    let (dir, setup) = match installed.status.success() {
        true => (modules, format!("{protoc}\n")),
        false => {
            println!("Debian's Go, because: {}", last_words(&installed));
            let root = env!("CARGO_MANIFEST_DIR");
            let debian = modules.with_file_name("debian");
            let setup = format!("eval \"$('{root}/build/unpack-go.sh' '{}')\"\n", debian.display());
            (page.directory("docs-go/debian/work/src/example", "main.go"), setup)
        }
    };
    let ready = bash(&format!("{setup}go version"), &dir, &[]);
    if !ready.status.success() {
        return skip::skip(&format!("docs/clients/go.md: {}", last_words(&ready)));
    }
    let script = format!("{setup}{}", page.run);
    let codes = ["Unavailable", "ResourceExhausted"];
    assert_runs(&page, codes, |addr| bash(&script, &dir, &[("BILLSTREAM_ADDR", addr)]));
}
