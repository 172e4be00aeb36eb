//! The page in a real browser, while the server is busy.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use billstream::client::Stub;
use billstream::proto::report::ExportRequest;
use billstream::Config;
use futures::executor::block_on;
use futures::{SinkExt, StreamExt};
use grpcio::{CallOption, WriteFlags};
use serde_json::Value;

use crate::browser::Browser;
use crate::common::{database, event, eventually, invoice, summary, upload, TestServer};
use crate::support::{admin, get, operated, samples, with_admin};

/// What a client does until it is over.
type Work = fn(&Stub, &AtomicBool);

const STALLED: usize = 5;
const READ: usize = 15;

/// What is on the page by its id, and the metrics of which it is the sum.
const SHOWN: &[(&str, &str)] = &[
    ("calls_ended", "rpc_server_call_duration_seconds_count{"),
    ("rows_exported", "billstream_rows_exported_total"),
    ("rows_created", "billstream_invoices_created_total"),
    ("rows_events", "billstream_events_acknowledged_total"),
    ("commits", "billstream_commits_total"),
    ("jobs", "billstream_jobs_committed_total"),
];

fn total(metrics: &BTreeMap<String, f64>, prefix: &str) -> f64 {
    metrics.iter().filter(|(name, _)| name.starts_with(prefix)).map(|(_, value)| value).sum()
}

fn scrape(server: &TestServer) -> BTreeMap<String, f64> {
    samples(&get(server, "/metrics").body)
}

fn number(browser: &mut Browser, id: &str) -> f64 {
    let text = browser.value(&format!("document.getElementById('{id}').textContent"));
    let text = text.as_str().unwrap_or_else(|| panic!("{id}: {text}")).replace(',', "");
    text.parse().unwrap_or_else(|_| panic!("{id}: {text:?}"))
}

/// How many answers the page has shown.
fn shown(browser: &mut Browser) -> u64 {
    let text = browser.value("document.body?.dataset.shown || '0'");
    text.as_str().unwrap().parse().unwrap()
}

/// Waits until the page shows an answer that was asked for after this was called.
fn refreshed(browser: &mut Browser) {
    let before = shown(browser);
    // One may be under way.
    eventually("the page goes on", || shown(browser) >= before + 2);
}

/// An export, and the next one where the machine is fast enough to end it.
fn read_export(client: &Stub, is_over: &AtomicBool) {
    let open = || client.export_invoices(&ExportRequest::new(), CallOption::default()).unwrap();
    let mut export = open();
    while !is_over.load(Ordering::Relaxed) {
        match block_on(export.next()) {
            Some(invoice) => drop(invoice.unwrap()),
            None => export = open(),
        }
    }
}

fn reconcile(client: &Stub, is_over: &AtomicBool) {
    let (mut events, mut acks) = client.reconcile(CallOption::default()).unwrap();
    for i in 0.. {
        if is_over.load(Ordering::Relaxed) {
            return;
        }
        let event = event(&format!("{:p}-{i}", &events), "inv-00000001", 1);
        block_on(events.send((event, WriteFlags::default()))).unwrap();
        block_on(acks.next()).unwrap().unwrap();
    }
}

fn upload_and_look(client: &Stub, is_over: &AtomicBool) {
    while !is_over.load(Ordering::Relaxed) {
        upload(client, (0..500).map(|_| invoice("", 1))).unwrap();
        summary(client);
    }
}

/// What the page says of the streams of `peer`.
fn states(browser: &mut Browser, peer: &str) -> Vec<String> {
    let rows = browser.value(&format!(
        "[...document.querySelectorAll('#streams tr')].map(row => [...row.cells].map(cell => cell.textContent))\
         .filter(cells => cells[1] === {peer:?}).map(cells => cells[4])"
    ));
    rows.as_array().unwrap().iter().map(|state| state.as_str().unwrap().to_owned()).collect()
}

/// Looks at it in two sizes and both schemes; the pictures are in cargo's directory for tests.
fn look_around(browser: &mut Browser) {
    let mut backs = Vec::new();
    for (width, height) in [(1280, 1000), (380, 700)] {
        for scheme in ["light", "dark"] {
            browser.look(width, height, scheme);
            let file = format!("page-{width}-{scheme}.png");
            let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(file);
            browser.picture(&file);
            let png = std::fs::read(&file).unwrap();
            assert_eq!(png[16..24], [width.to_be_bytes(), height.to_be_bytes()].concat());
            let wide = browser.value("document.documentElement.scrollWidth").as_u64();
            assert_eq!(wide, Some(width.into()), "it has to be moved sideways");
            let back = browser.value("getComputedStyle(document.body).backgroundColor");
            backs.push(back.as_str().unwrap().to_owned());
        }
    }
    assert!(backs[0] == backs[2] && backs[1] == backs[3] && backs[0] != backs[1], "{backs:?}");
}

#[test]
fn it_shows_a_busy_server_as_the_metrics_do() {
    let Some(mut browser) = Browser::start() else { return };
    let server = TestServer::with_copy(&database(1_000_000), with_admin(Config::default()));
    let slow = server.slow_client();
    let stall = |_| {
        let request = ExportRequest::new();
        let mut export = slow.export_invoices(&request, CallOption::default()).unwrap();
        block_on(export.next()).unwrap().unwrap();
        export
    };
    let stalled: Vec<_> = (0..STALLED).map(stall).collect();
    let parked = "billstream_streams{rpc_method=\"billing.v1.ReportService/ExportInvoices\",state=\"parked\"}";
    eventually("all are parked", || scrape(&server)[parked] == STALLED as f64);
    let status: Value = serde_json::from_str(&get(&server, "/status.json").body).unwrap();
    let peer = status["streams"]["shown"][0]["peer"].as_str().unwrap().to_owned();
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let client = server.client();
        let work: [(usize, Work); 3] = [(READ, read_export), (3, reconcile), (2, upload_and_look)];
        for (threads, work) in work {
            for _ in 0..threads {
                let (client, is_over) = (client.clone(), &is_over);
                scope.spawn(move || work(&client, is_over));
            }
        }
        // A failure ends the others too.
        let looked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            busy(&mut browser, &server, &peer);
        }));
        is_over.store(true, Ordering::Relaxed);
        looked.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
    at_rest(&mut browser, &server);
    drop(stalled);
    assert_eq!(browser.complaints, [] as [String; 0]);
}

fn busy(browser: &mut Browser, server: &TestServer, peer: &str) {
    browser.look(1280, 1000, "light");
    browser.go(&format!("http://{}/", admin(server)));
    eventually("it is drawn", || shown(browser) >= 8);
    let before = scrape(server);
    refreshed(browser);
    let page: Vec<f64> = SHOWN.iter().map(|(id, _)| number(browser, id)).collect();
    let after = scrape(server);
    for ((id, metric), value) in SHOWN.iter().zip(page) {
        let (least, most) = (total(&before, metric), total(&after, metric));
        println!("{id}: {least} <= {value} <= {most}");
        assert!(least <= value && value <= most && least < most, "{id}: {least} {value} {most}");
    }
    let parked = states(browser, peer);
    assert!(
        parked.len() == STALLED && parked.iter().all(|it| it.starts_with("parked for ")),
        "{parked:?}"
    );
    assert!(number(browser, "streams_parked") >= STALLED as f64);
    let open = format!("max_exports {} of 4,096", STALLED + READ);
    eventually("all exports are open", || {
        let limits = browser.value("document.getElementById('bounded').textContent");
        limits.as_str().unwrap().contains(&open)
    });
    let lines = browser.value("document.querySelector('#cards path').getAttribute('d')");
    assert!(lines.as_str().unwrap().matches('L').count() >= 7, "{lines}");
    look_around(browser);
}

/// Once nothing moves but the stalled, it says just what the metrics say.
fn at_rest(browser: &mut Browser, server: &TestServer) {
    eventually("the others are gone", || scrape(server)["billstream_calls_open"] == STALLED as f64);
    refreshed(browser);
    let metrics = scrape(server);
    for (id, metric) in SHOWN {
        assert_eq!(number(browser, id), total(&metrics, metric), "{id}");
    }
    assert_eq!(number(browser, "calls_open"), STALLED as f64);
    assert_eq!(number(browser, "streams_parked"), STALLED as f64);
    let bars = browser.value(
        "[...document.querySelectorAll('#streams .bar i')].map(bar => parseFloat(bar.style.width))",
    );
    assert!(bars.as_array().unwrap().iter().all(|bar| bar.as_f64() > Some(0.0)), "{bars}");
}

#[test]
fn nothing_runs_in_it_but_what_has_the_nonce_of_its_answer() {
    let server = operated(Config::default());
    let nonces = [(); 2].map(|()| {
        let answer = get(&server, "/");
        assert_eq!(answer.code, 200);
        let policy = answer.head.split("script-src 'nonce-").nth(1).unwrap();
        let nonce = policy.split('\'').next().unwrap().to_owned();
        assert_eq!(answer.body.matches(&format!("nonce=\"{nonce}\"")).count(), 2);
        assert!(!answer.head.contains("unsafe"), "{}", answer.head);
        nonce
    });
    assert!(nonces[0] != nonces[1] && nonces[0].len() >= 32, "{nonces:?}");
    assert!(!get(&server, "/metrics").head.contains("script-src"));
}

/// A client chooses its name; the page asks nothing while nobody looks, and says when nobody answers.
#[test]
fn names_are_text_a_hidden_tab_asks_nothing_and_a_server_that_is_gone_is_told_of() {
    let Some(mut browser) = Browser::start() else { return };
    let mut server = operated(Config::default());
    browser.go(&format!("http://{}/", admin(&server)));
    eventually("it is drawn", || shown(&mut browser) >= 1);
    let stream = "{method: 'm', peer: '<b>', identity: '<img src=x>', age_seconds: 1, state: '<i>', state_seconds: 1, \
                  messages: 1, bytes: 1, rows: 1, window_used: 1, window_max: 1, window_unit: '<u>'}";
    let made =
        browser.value(&format!("streamRow({stream}).querySelector('img, b, u, td > i') === null"));
    assert_eq!(made, true);
    // Nor does one that got in as markup run.
    browser.value("document.body.insertAdjacentHTML('beforeend', '<img src=\"data:,\" onerror=\"window.ran = true\">')");
    assert_eq!(
        browser.value("new Promise(done => setTimeout(() => done(window.ran === true), 200))"),
        false
    );
    assert_eq!(std::mem::take(&mut browser.complaints).len(), 1, "the policy tells of the handler");

    let hide = |is| {
        format!("Object.defineProperty(document, 'hidden', {{value: {is}, configurable: true}})")
    };
    browser.value(&format!("{}; 0", hide(true)));
    // One may be under way, and is shown.
    eventually("it asks nothing", || browser.value("asking") == false);
    let before = shown(&mut browser);
    browser.value("poll()");
    assert_eq!(shown(&mut browser), before);
    browser
        .value(&format!("{}; document.dispatchEvent(new Event('visibilitychange'))", hide(false)));
    eventually("it goes on", || shown(&mut browser) > before);

    // A server that asks for a token is given the one that was typed.
    browser.value("window.real = fetch; window.fetch = async (url, options) => \
                   options.headers.authorization === 'Bearer t' ? real(url) : new Response('', {status: 401}); 0");
    eventually("it asks", || browser.value("document.getElementById('asked').hidden") == false);
    browser.value("document.getElementById('token').value = 't'");
    eventually("it asks no more", || {
        browser.value(
            "document.getElementById('asked').hidden && document.getElementById('away').hidden",
        ) == true
    });
    assert_eq!(browser.value("document.getElementById('away').hidden"), true);
    assert_eq!(browser.complaints, [] as [String; 0]);
    server.stop();
    eventually("it tells", || browser.value("document.getElementById('away').hidden") == false);
    let told = browser.value("document.getElementById('away').textContent");
    assert!(told.as_str().unwrap().contains("cannot be reached since"), "{told}");
}
