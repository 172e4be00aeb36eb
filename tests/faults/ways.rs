//! The ways in which the client of an upload goes away.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Command, Stdio};
use std::sync::Arc;

use billstream::client::Stub;
use futures::executor::block_on;

use crate::cancels::{Attempt, Ending, Field, Plan, Stage, Way, MOMENT_US, STAGES};
use crate::proxy::{Cut, Proxy};
use crate::python;
use crate::skip::skip;
use crate::support::*;

/// The connection is cut between a client and the server. The client may get its result first.
pub fn cut(field: &Field, plan: &Plan, how: Cut, rng: &mut Rng) -> Attempt {
    let proxy = Proxy::start(field.addr);
    let client = Stub::with_env(Arc::clone(&field.env), &proxy.addr());
    let mut call = client.bulk_create(plan.options()).unwrap();
    if plan.stage == Stage::Part {
        // In the middle of a send.
        let moment = rng.moment(MOMENT_US);
        std::thread::scope(|scope| {
            scope.spawn(|| block_on(plan.send(&mut call)));
            std::thread::sleep(moment);
            proxy.cut(how);
        });
    } else {
        // OK to fail: nothing has cut the connection, but a loaded machine may refuse one.
        let _ = block_on(plan.send(&mut call));
        std::thread::sleep(rng.moment(MOMENT_US));
        proxy.cut(how);
    }
    let (requests, result) = call;
    let is_acknowledged = plan.stage == Stage::Close && block_on(result).is_ok();
    drop(requests);
    plan.attempt(is_acknowledged)
}

/// A client in a process of its own is killed: this test binary, see [`uploader`].
pub fn kill_client(field: &Field, plan: &Plan, rng: &mut Rng) -> Attempt {
    let stage = STAGES.iter().position(|stage| *stage == plan.stage).unwrap();
    let job = format!(
        "{} {} {:?} {stage} {} {}",
        field.addr, plan.customer, plan.ending, plan.rows, plan.sent
    );
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "ways::uploader", "--ignored", "--nocapture"])
        .env(JOB, job)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut child = Guarded(child);
    let mut lines = BufReader::new(child.0.stdout.take().unwrap()).lines().map_while(Result::ok);
    // Half of them are killed on their way, the others where their stage ends.
    let mark = rng.pick(&[STARTED, SENT]);
    assert!(lines.any(|line| line == mark), "the uploader ended without {mark:?}");
    std::thread::sleep(rng.moment(MOMENT_US));
    child.kill();
    plan.attempt(false)
}

/// What [`kill_client`] hands to its child.
const JOB: &str = "BILLSTREAM_TEST_UPLOADER";
const STARTED: &str = "@started";
const SENT: &str = "@sent";

/// Not a test: the client that [`kill_client`] starts and kills.
#[test]
#[ignore = "the child of another test"]
fn uploader() {
    let Ok(job) = std::env::var(JOB) else { return };
    let job: Vec<&str> = job.split(' ').collect();
    let plan = Plan {
        customer: job[1].to_owned(),
        way: Way::KillClient,
        ending: match job[2] {
            "Plain" => Ending::Plain,
            "Commit" => Ending::Commit,
            _ => Ending::Required,
        },
        stage: STAGES[job[3].parse::<usize>().unwrap()],
        rows: job[4].parse().unwrap(),
        sent: job[5].parse().unwrap(),
    };
    let client = Stub::new(job[0]);
    let mut call = client.bulk_create(plan.options()).unwrap();
    // On a line of its own, whatever the test harness has printed.
    println!("\n{STARTED}");
    block_on(plan.send(&mut call)).unwrap();
    println!("\n{SENT}");
    // Until it is killed, or its parent is.
    let _ = std::io::stdin().read(&mut [0]);
    std::process::abort();
}

/// `billstream import` is killed. Half of them are held by the proxy before the commit, the others
/// may get through.
pub fn kill_import(field: &Field, plan: &Plan, rng: &mut Rng) -> Attempt {
    let rows = 50 * plan.rows;
    let file = csv(&plan.customer, rows);
    let proxy = Proxy::start(field.addr);
    let is_held = rng.range(0, 1) == 0;
    if is_held {
        // A row has over 30 bytes on the wire, so this ends before the last one.
        proxy.forward_at_most(rng.range(1, 30 * rows as u64));
    }
    let child = billstream()
        .args([
            "import",
            "--retry-for-secs",
            "0",
            "--batch-id",
            &plan.customer,
            "--addr",
            &proxy.addr(),
        ])
        .arg(file.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut child = Guarded(child);
    if is_held {
        wait_for("the import is held", || proxy.is_holding());
        std::thread::sleep(rng.moment(MOMENT_US));
    } else {
        wait_for("the import has begun", || proxy.answered() > 0);
        std::thread::sleep(rng.moment(5 * MOMENT_US));
    }
    child.kill();
    Attempt {
        customer: plan.customer.clone(),
        way: Way::KillImport,
        ending: Ending::Required,
        rows,
        commit_sent: !is_held,
        half_closed: !is_held,
        is_acknowledged: false,
    }
}

/// A file for `import`.
pub fn csv(customer: &str, rows: usize) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    let mut text = "invoice_id,customer_id,total_amount_cents,currency,issued_at,memo\n".to_owned();
    for i in 0..rows {
        let invoice = invoice(customer, i);
        text += &format!(
            "{},{customer},{},{},2024-01-02T03:04:05Z,{}\n",
            invoice.invoice_id, invoice.total_amount_cents, invoice.currency, invoice.memo
        );
    }
    file.write_all(text.as_bytes()).unwrap();
    file
}

/// Python's own client cancels uploads; it says of each what it did.
pub fn from_python(field: &Field, seed: u64, count: u64) {
    let python = match python::ready() {
        Ok(python) => python,
        Err(why) => return skip(&why),
    };
    let output = python
        .script("cancel.py")
        .args([field.addr.to_string(), seed.to_string(), count.to_string()])
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    assert!(output.status.success(), "cancel.py ended with {}", output.status);
    let lines = String::from_utf8(output.stdout).unwrap();
    let attempts: Vec<Attempt> = lines.lines().map(python_attempt).collect();
    assert_eq!(attempts.len() as u64, count);
    field.attempts.lock().unwrap().extend(attempts);
}

/// `CUSTOMER ENDING ROWS COMMIT_SENT HALF_CLOSED ACKNOWLEDGED`
pub fn python_attempt(line: &str) -> Attempt {
    let words: Vec<&str> = line.split(' ').collect();
    Attempt {
        customer: words[0].to_owned(),
        way: Way::Python,
        ending: match words[1] {
            "plain" => Ending::Plain,
            "commit" => Ending::Commit,
            _ => Ending::Required,
        },
        rows: words[2].parse().unwrap(),
        commit_sent: words[3] == "1",
        half_closed: words[4] == "1",
        is_acknowledged: words[5] == "1",
    }
}
