use std::error::Error as StdError;
use std::time::Duration;
use std::{env, fs, process, thread};

use billstream::client::{Client, Error};
use billstream::proto::report::{
    BulkResult, CreateInvoiceRequest, ExportEventsRequest, ExportRequest, GetInvoiceRequest,
    ReconcileAck, ReconcileEvent, ReconcileOutcome, SummaryRequest,
};
use billstream::protobuf::well_known_types::timestamp::Timestamp;
use billstream::stop::{Reason, Stop};
use billstream::{Config, Server};

fn connect() -> Client {
    let addr = env::var("BILLSTREAM_ADDR").unwrap_or_else(|_| "127.0.0.1:50051".to_owned());
    Client::connect(&addr)
        .with_timeout(Duration::from_secs(10))
        .with_retries(Duration::from_secs(20))
        .on_retry(|error, delay| {
            eprintln!("{}: again in {} s", error.code, delay.as_secs_f64());
        })
}

fn tell(error: &Error) {
    for violation in &error.violations {
        println!("{}: {}: {}", error.code, violation.field, violation.description);
    }
}

fn upload(
    client: &Client,
    batch_id: &str,
    invoices: &[CreateInvoiceRequest],
) -> Result<BulkResult, Error> {
    let attempt = || {
        let mut upload = client.upload()?;
        invoices.iter().try_for_each(|invoice| upload.send(invoice))?;
        upload.commit(batch_id)
    };
    let mut retry = client.retry();
    loop {
        match attempt() {
            // Waits as the error asks for; gives it back when there is no sense in another try.
            Err(error) => retry.wait(error)?,
            done => return done,
        }
    }
}

fn invoice(i: i64, currency: &str) -> CreateInvoiceRequest {
    CreateInvoiceRequest {
        invoice_id: format!("rust-{i}"),
        customer_id: "ada".to_owned(),
        total_amount_cents: 250,
        currency: currency.to_owned(),
        issued_at: Some(Timestamp { seconds: 1_700_000_000 + i, ..Default::default() }).into(),
        ..Default::default()
    }
}

fn uploads(client: &Client) -> Result<(), Error> {
    let invoices: Vec<_> = (0..20_000).map(|i| invoice(i, "EUR")).collect();
    for _ in 0..2 {
        let result = upload(client, "rust-1", &invoices)?;
        println!("created {} already applied: {}", result.created_count, result.already_applied);
    }
    let refused = upload(client, "rust-2", &[invoice(20_000, "EUR"), invoice(20_001, "EURO")]);
    refused.err().iter().for_each(tell);
    Ok(())
}

fn summary(client: &Client) -> Result<(), Error> {
    let of_ada = SummaryRequest { customer_id: "ada".to_owned(), ..Default::default() };
    for total in client.summary(&of_ada)?.totals {
        let (count, cents) = (total.invoice_count, total.outstanding_cents);
        println!("{count} invoices, {cents} cents {} outstanding", total.currency);
    }
    Ok(())
}

fn exports(client: &Client) -> Result<(), Error> {
    let (mut count, mut last, mut in_order) = (0, 0, true);
    let of_ada = ExportRequest { customer_id: "ada".to_owned(), ..Default::default() };
    for invoices in client.export(&of_ada) {
        for invoice in invoices?.iter() {
            in_order &= invoice.sequence > last;
            (count, last) = (count + 1, invoice.sequence);
        }
    }
    println!("exported {count} in order: {in_order}");

    let mut export = client.export(&ExportRequest::default());
    let some = export.next().transpose()?.map_or(0, |invoices| invoices.len());
    let after_sequence = export.cursor();
    drop(export);
    let rest = client.export(&ExportRequest { after_sequence, ..Default::default() }).rows();
    println!("in two parts: {}", some + rest.collect::<Result<Vec<_>, _>>()?.len());
    Ok(())
}

fn pay(client: &Client, payments: Vec<ReconcileEvent>) -> Result<Vec<ReconcileAck>, Error> {
    let (events, acks) = client.reconcile().split();
    thread::scope(|scope| {
        // What it fails with the acknowledgements fail with too.
        scope.spawn(move || payments.into_iter().try_for_each(|payment| events.send(payment)));
        acks.collect::<Result<Vec<_>, _>>().map(|acks| acks.concat())
    })
}

fn payment(i: i64) -> ReconcileEvent {
    ReconcileEvent {
        event_id: format!("pay-{i}"),
        invoice_id: format!("rust-{i}"),
        amount_cents: 250,
        currency: "EUR".to_owned(),
        received_at: Some(Timestamp { seconds: 1_700_100_000, ..Default::default() }).into(),
        ..Default::default()
    }
}

fn payments(client: &Client) -> Result<(), Error> {
    let acks = pay(client, (0..5_000).map(payment).collect())?;
    let settled = ReconcileOutcome::RECONCILE_OUTCOME_SETTLED.into();
    let count = acks.iter().filter(|ack| ack.outcome == settled).count();
    println!("acknowledged {} settled {count}", acks.len());
    Ok(())
}

fn ledger(client: &Client) -> Result<(), Error> {
    let (mut count, mut cents) = (0, 0);
    for events in client.export_events(&ExportEventsRequest::default()) {
        for event in events? {
            (count, cents) = (count + 1, cents + event.paid_change_cents);
        }
    }
    println!("{count} events changed what is paid by {cents} cents");

    let invoice_id = "rust-7".to_owned();
    let found = client.invoice(&GetInvoiceRequest { invoice_id, ..Default::default() })?;
    let ids: Vec<_> = found.events.iter().map(|event| &event.event_id[..]).collect();
    println!("{} cents of rust-7 are paid, by {}", found.invoice.paid_cents, ids.join(", "));
    Ok(())
}

fn ends(client: &Client) {
    let stop = Stop::default();
    let mut export = client.clone().with_stop(&stop).export(&ExportRequest::default());
    let first = export.next();
    stop.stop(Reason::ClientGone);
    let end = first.into_iter().chain(export).find_map(Result::err);
    println!("{}", end.map_or("it came to its end", |error| error.code.name()));

    let hasty = client.clone().with_timeout(Duration::from_nanos(1));
    let late = hasty.summary(&SummaryRequest::default()).err();
    println!("{}", late.map_or("it was quicker", |error| error.code.name()));
}

fn without_a_network() -> Result<(), Box<dyn StdError>> {
    let dir = env::temp_dir().join(format!("client-{}", process::id()));
    fs::create_dir(&dir)?;
    let config = Config { db: dir.join("bills.db"), ..Config::default() };
    let server = Server::builder(config).without_listeners().start()?;
    upload(&server.local(), "rust-1", &[invoice(1, "EUR"), invoice(2, "EUR")])?;
    server.shutdown()?;

    let client = Client::open(dir.join("bills.db"))?;
    println!("{} invoices in the file", client.summary(&SummaryRequest::default())?.invoice_count);
    drop(client);
    fs::remove_dir_all(dir)?;
    Ok(())
}

fn main() -> Result<(), Box<dyn StdError>> {
    let client = connect();
    uploads(&client)?;
    summary(&client)?;
    exports(&client)?;
    payments(&client)?;
    ledger(&client)?;
    ends(&client);
    without_a_network()
}
