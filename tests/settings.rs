//! Every value of every setting works, or is refused with its range.

#[path = "common/mod.rs"]
mod common;

use billstream::config::{Range, Setting, GROUPS, SETTINGS};
use billstream::proto::report::{ExportRequest, ListInvoicesRequest, SummaryRequest};
use billstream::{Config, Error, Server};
use common::*;
use futures::executor::block_on;
use futures::{SinkExt, StreamExt};
use grpcio::{CallOption, RpcStatusCode, WriteFlags};

/// The defaults with one setting of another value.
fn with(name: &str, value: u64) -> Config {
    let mut table = toml::Table::try_from(Config::default()).unwrap();
    // OK because the ranges end far below 2^63.
    table.insert(name.to_owned(), toml::Value::Integer(i64::try_from(value).unwrap()));
    table.try_into().unwrap()
}

/// A call may succeed, or end as a limit of its smallest value says.
fn assert_answered<T: std::fmt::Debug>(name: &str, result: Result<T, grpcio::Error>) {
    let limits = [RpcStatusCode::RESOURCE_EXHAUSTED, RpcStatusCode::DEADLINE_EXCEEDED];
    if let Err(grpcio::Error::RpcFailure(status) | grpcio::Error::RpcFinished(Some(status))) =
        &result
    {
        let is_a_limit = name.starts_with("max_") || name.ends_with("_ms");
        assert!(is_a_limit && limits.contains(&status.code()), "{name}: {status:?}");
    } else {
        assert!(result.is_ok(), "{name}: {result:?}");
    }
}

/// A call of each rpc.
fn make_calls(name: &str, server: &TestServer) {
    let client = server.client();
    let options = || CallOption::default().timeout(DEADLINE);
    assert_answered(name, upload(&client, (0..20).map(|i| invoice(&format!("i{i}"), 1))));
    assert_answered(name, client.get_summary(&SummaryRequest::new(), options()));
    assert_answered(name, client.list_invoices(&ListInvoicesRequest::new(), options()));
    let request = ExportRequest::new();
    let (_, error) = collect(client.export_invoices(&request, options()).unwrap());
    assert_answered(name, error.map_or(Ok(()), Err));
    let (_, error) = collect(client.export_invoice_batches(&request, options()).unwrap());
    assert_answered(name, error.map_or(Ok(()), Err));
    let (mut events, mut acks) = client.reconcile(options()).unwrap();
    let ack = block_on(async {
        // A refusal shows in the answer.
        let _ = events.send((event("e1", "i1", 1), WriteFlags::default())).await;
        let _ = events.close().await;
        acks.next().await.unwrap()
    });
    assert_answered(name, ack);
}

#[test]
fn the_least_and_the_most_of_every_setting_work() {
    for setting in SETTINGS {
        let Range::Numbers(min, max) = setting.range else { continue };
        for value in [min, max] {
            let mut server = TestServer::start(with(setting.name, value));
            make_calls(setting.name, &server);
            server.stop();
        }
    }
}

#[test]
fn past_its_range_a_setting_is_refused_with_it() {
    for setting in SETTINGS {
        let Range::Numbers(min, max) = setting.range else { continue };
        for value in
            [min.checked_sub(1), Some(max + 1), Some(i64::MAX as u64)].into_iter().flatten()
        {
            let error = Server::start(with(setting.name, value)).err().unwrap();
            assert!(matches!(error, Error::Invalid(_)), "{error:?}");
            let expected = format!("{}: {value} is not in {}", setting.name, setting.range);
            assert_eq!(error.to_string(), expected);
        }
    }
}

#[test]
fn a_spool_dir_that_takes_no_files_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    for spool_dir in [dir.path().join("none"), "/proc".into(), "/dev/null".into()] {
        let config = Config { db: dir.path().join("bills.db"), spool_dir, ..Config::default() };
        let error = Server::start(config.clone()).err().unwrap().to_string();
        assert!(error.starts_with("spool_dir: no file can be made in /"), "{error}");
    }
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "a failed start leaves no files");
}

/// Not to wait is not to fail: the server starts, and answers as soon as the lock is gone.
#[test]
fn a_busy_timeout_of_nothing_does_not_wait() {
    let server = TestServer::start(Config { busy_timeout_ms: 0, ..Config::default() });
    let client = server.client();
    let other = server.sql();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    assert!(upload(&client, [invoice("a", 1)]).is_err());
    other.execute_batch("ROLLBACK").unwrap();
    assert_eq!(upload(&client, [invoice("a", 1)]).unwrap().created_count, 1);
}

#[test]
fn listen_is_a_text_or_a_list() {
    let read = |text: &str| toml::from_str::<Config>(text).map(|config| config.listen);
    let two = ["127.0.0.1:0".to_owned(), "unix:/run/a.sock".to_owned()];
    assert_eq!(read("listen = '127.0.0.1:0'").unwrap(), two[..1]);
    assert_eq!(read("listen = '127.0.0.1:0, unix:/run/a.sock'").unwrap(), two);
    assert_eq!(read("listen = ['127.0.0.1:0', 'unix:/run/a.sock']").unwrap(), two);
    assert_eq!(read("listen = ['unix:/run/a,b.sock']").unwrap(), ["unix:/run/a,b.sock"]);
    assert_eq!(read("listen = []").unwrap(), [""; 0]);
    let error = read("listen = 50051").unwrap_err();
    assert!(
        error.message().contains("expected a text, with commas between several, or a list"),
        "{error}"
    );
    for listen in [vec![], vec!["unix:/run/a,b.sock".to_owned()], two.to_vec()] {
        let config = Config { listen, ..Config::default() };
        assert_eq!(toml::from_str::<Config>(&toml::to_string(&config).unwrap()).unwrap(), config);
    }
}

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/configuration.md");

/// A number of a setting, with the unit that its name has.
fn amount(name: &str, number: u64) -> String {
    let units = [(1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    let unit = units.iter().find(|(bytes, _)| number >= *bytes && number.is_multiple_of(*bytes));
    match unit.filter(|_| name.ends_with("_bytes")) {
        Some((bytes, unit)) => format!("{} {unit}", number / bytes),
        None => number.to_string(),
    }
}

fn row(setting: &Setting, defaults: &toml::Table) -> String {
    let name = setting.name;
    let default = match &defaults[name] {
        // It is another one on each machine.
        _ if name == "cq_threads" => "half the cores".to_owned(),
        toml::Value::Integer(number) => amount(name, *number as u64),
        toml::Value::String(text) if text.is_empty() => "none".to_owned(),
        other => format!("`{other}`"),
    };
    let range = match setting.range {
        Range::Numbers(min, max) => format!("{} to {}", amount(name, min), amount(name, max)),
        Range::Text(kind) => kind.to_owned(),
        Range::List(kind) => format!("a list of {kind}"),
    };
    let doc: Vec<_> = setting.doc.lines().map(str::trim).collect();
    format!("| `{name}` | {default} | {range} | {} |\n", doc.join(" ").replace('|', "\\|"))
}

/// What the code says of its settings, as the page has it. (`BILLSTREAM_TEST_REWRITE=1` writes it there.)
#[test]
fn the_table_in_the_docs_is_that_of_the_code() {
    let defaults = toml::Table::try_from(Config::default()).unwrap();
    let tables = GROUPS.iter().map(|group| {
        let settings = SETTINGS.iter().filter(|setting| setting.group == group.name);
        let rows: String = settings.map(|setting| row(setting, &defaults)).collect();
        let head = "| setting | default | range | what it is |\n|---|---|---|---|\n";
        format!("\n### {}: `[{}]`\n\n{head}{rows}", group.title, group.name)
    });
    let tables: String = tables.collect();
    let page = std::fs::read_to_string(PAGE).unwrap();
    let end_of_prose = page.find(" -->\n").unwrap() + " -->\n".len();
    let expected = format!("{}{tables}", &page[..end_of_prose]);
    if std::env::var_os("BILLSTREAM_TEST_REWRITE").is_some() {
        std::fs::write(PAGE, &expected).unwrap();
    } else {
        assert!(page == expected, "docs/configuration.md is old: see the comment above its table");
    }
}
