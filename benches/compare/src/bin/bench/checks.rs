//! That the servers do the same work is a fact to be shown before anything is measured: each gets
//! the same requests over a copy of the same database, and every answer must be the same.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::SocketAddr;

use bytes::{Bytes, BytesMut};
use compare::client::{append, framed, Connection, Failure, Guard};
use compare::load;
use compare::proto::{
    BulkCommit, BulkResult, CreateInvoiceRequest, ExportRequest, Invoice, InvoiceBatch,
    ListInvoicesRequest, ListInvoicesResponse, ReconcileAck, ReconcileEvent, Summary,
    SummaryRequest,
};
use prost::Message;
use prost_types::Timestamp;

/// What was asked, and what came back.
pub type Answers = Vec<(String, String)>;

/// Invoices of the database to pay: id, currency, total.
pub type Targets = Vec<(String, String, i64)>;

pub fn run(address: SocketAddr, targets: &Targets) -> Result<Answers, String> {
    let mut answers = Answers::new();
    load::run(async {
        let connection = Connection::open(address, Guard::Raised).await?;
        reads(&connection, "before", &mut answers).await?;
        creates(&connection, targets, &mut answers).await?;
        payments(&connection, targets, &mut answers).await?;
        reads(&connection, "after", &mut answers).await
    })
    .map_err(|failure: Failure| failure.message)?;
    Ok(answers)
}

/// The messages of a call and its status.
async fn ask<T: Message + Default>(
    connection: &Connection,
    method: &str,
    requests: Bytes,
) -> Result<(Vec<T>, Option<i32>), Failure> {
    let mut call = connection.call(method).await?;
    call.requests.send(requests, true).await?;
    let mut bytes = BytesMut::new();
    let status = loop {
        match call.responses.frame().await {
            Ok(Some(frame)) => bytes.extend_from_slice(&frame),
            Ok(None) => break Some(0),
            Err(Failure { code: Some(code), .. }) => break Some(code),
            Err(failure) => return Err(failure),
        }
    };
    let mut messages = Vec::new();
    while bytes.len() >= 5 {
        let length = u32::from_be_bytes([bytes[1], bytes[2], bytes[3], bytes[4]]) as usize;
        let message = bytes.split_to(5 + length).freeze().slice(5..);
        let decoded = T::decode(message);
        messages.push(decoded.map_err(|e| Failure { code: None, message: e.to_string() })?);
    }
    Ok((messages, status))
}

fn digest(invoices: &[Invoice]) -> String {
    let mut hasher = DefaultHasher::new();
    for invoice in invoices {
        invoice.encode_to_vec().hash(&mut hasher);
    }
    format!("{} invoices, {:016x}", invoices.len(), hasher.finish())
}

async fn reads(connection: &Connection, when: &str, answers: &mut Answers) -> Result<(), Failure> {
    let all = exports(connection, when, answers).await?;
    let mut listed = Vec::new();
    let mut request = ListInvoicesRequest { page_size: 777, ..Default::default() };
    loop {
        let (pages, _) =
            ask::<ListInvoicesResponse>(connection, "ListInvoices", framed(&request)).await?;
        for page in pages {
            listed.extend(page.invoices);
            request.page_token = page.next_page_token;
        }
        if request.page_token.is_empty() {
            break;
        }
    }
    answers.push((format!("{when}: all pages"), digest(&listed)));
    answers.push((format!("{when}: pages are the export"), (listed == all).to_string()));
    request.page_token = "1-forged".to_owned();
    let forged = ask::<ListInvoicesResponse>(connection, "ListInvoices", framed(&request)).await?;
    answers.push((format!("{when}: a forged token"), format!("status {:?}", forged.1)));

    let (from, until) = some_dates(&all);
    let customer_id = all.get(7).map(|invoice| invoice.customer_id.clone()).unwrap_or_default();
    for (customer_id, issued_from, issued_until) in [
        (String::new(), None, None),
        (customer_id.clone(), None, None),
        (String::new(), from, until),
        (customer_id, from, None),
        ("x".repeat(200), None, None),
    ] {
        let request = SummaryRequest { customer_id, issued_from, issued_until };
        let mut answer = ask::<Summary>(connection, "GetSummary", framed(&request)).await?;
        // The peers have no ledger.
        answer.0.iter_mut().for_each(|summary| summary.last_event_sequence = 0);
        answers.push((format!("{when}: {request:?}"), format!("{answer:?}")));
    }
    Ok(())
}

/// A range that some of the invoices are in.
fn some_dates(invoices: &[Invoice]) -> (Option<Timestamp>, Option<Timestamp>) {
    let mut times: Vec<_> = invoices.iter().filter_map(|invoice| invoice.issued_at).collect();
    times.sort_by_key(|time| (time.seconds, time.nanos));
    (times.get(times.len() / 4).copied(), times.get(times.len() / 2).copied())
}

/// Both exports under each kind of filter; returns all invoices.
async fn exports(
    connection: &Connection,
    when: &str,
    answers: &mut Answers,
) -> Result<Vec<Invoice>, Failure> {
    let everything = ExportRequest::default();
    let (all, _) = ask::<Invoice>(connection, "ExportInvoices", framed(&everything)).await?;
    let (issued_from, issued_until) = some_dates(&all);
    let customer_id = all.get(7).map(|invoice| invoice.customer_id.clone()).unwrap_or_default();
    for request in [
        everything.clone(),
        ExportRequest { customer_id, ..everything.clone() },
        ExportRequest { statuses: vec![2, 3, 4], ..everything.clone() },
        ExportRequest { issued_from, issued_until, ..everything.clone() },
        ExportRequest { after_sequence: 1234, max_rows: 777, ..everything.clone() },
        ExportRequest { max_rows: -1, ..everything.clone() },
        ExportRequest { statuses: vec![9], ..everything.clone() },
    ] {
        let (rows, status) = ask::<Invoice>(connection, "ExportInvoices", framed(&request)).await?;
        let (batches, batch_status) =
            ask::<InvoiceBatch>(connection, "ExportInvoiceBatches", framed(&request)).await?;
        let batched: Vec<_> = batches.into_iter().flat_map(|batch| batch.invoices).collect();
        answers.push((
            format!("{when}: {request:?}"),
            format!(
                "status {status:?}, {}, batches {batch_status:?} the same: {}",
                digest(&rows),
                rows == batched
            ),
        ));
    }
    Ok(all)
}

async fn creates(
    connection: &Connection,
    targets: &Targets,
    answers: &mut Answers,
) -> Result<(), Failure> {
    let good: Vec<_> = (0..500).map(|n| load::invoice("check", n)).collect();
    let commit = |batch_id: &str, count| CreateInvoiceRequest {
        commit: Some(BulkCommit { batch_id: batch_id.to_owned(), count, ..Default::default() }),
        ..Default::default()
    };
    let one = |id: &str| CreateInvoiceRequest { invoice_id: id.to_owned(), ..good[1].clone() };
    let bad = CreateInvoiceRequest { currency: "???".to_owned(), ..one("bad") };
    let closed: Vec<_> = good.iter().cloned().chain([commit("batch", 500)]).collect();
    let single = [one("single-1"), one("single-2")].to_vec();
    for (what, upload) in [
        ("an upload", closed.clone()),
        ("the same again", closed),
        ("the same batch_id with less", [&good[..1], &[commit("batch", 1)]].concat()),
        ("one currency, no commit", single),
        ("nothing", vec![]),
        ("a taken id", vec![one("fresh"), one(&targets[0].0)]),
        ("an id twice", vec![one("twice"), one("twice")]),
        ("an unknown currency", vec![one("fresh"), bad]),
        ("a commit that differs", vec![one("fresh"), commit("other", 2)]),
        ("a message after the commit", vec![commit("late", 0), one("fresh")]),
    ] {
        let mut bytes = BytesMut::new();
        upload.iter().for_each(|message| append(message, &mut bytes));
        let answer = if bytes.is_empty() {
            let mut call = connection.call("BulkCreate").await?;
            call.requests.finish()?;
            while call.responses.frame().await?.is_some() {}
            "ends well".to_owned()
        } else {
            format!("{:?}", ask::<BulkResult>(connection, "BulkCreate", bytes.freeze()).await?)
        };
        answers.push((format!("BulkCreate of {what}"), answer));
    }
    Ok(())
}

async fn payments(
    connection: &Connection,
    targets: &Targets,
    answers: &mut Answers,
) -> Result<(), Failure> {
    let mut bytes = BytesMut::new();
    let mut pay = |event_id: &str, (invoice_id, currency): (&str, &str), amount_cents| {
        let event = ReconcileEvent {
            event_id: event_id.to_owned(),
            invoice_id: invoice_id.to_owned(),
            amount_cents,
            currency: currency.to_owned(),
            received_at: Some(Timestamp { seconds: 1_700_000_000, nanos: 1 }),
            reference: "check".to_owned(),
            ..Default::default()
        };
        append(&event, &mut bytes);
    };
    for (n, (invoice_id, currency, total)) in targets.iter().enumerate() {
        let invoice = (invoice_id.as_str(), currency.as_str());
        pay(&format!("partial-{n}"), invoice, 1);
        pay(&format!("settled-{n}"), invoice, total - 1);
        pay(&format!("overpaid-{n}"), invoice, 7);
        pay(&format!("partial-{n}"), invoice, 1);
        pay(&format!("mismatch-{n}"), (invoice_id, "XAU"), 1);
        pay(&format!("negative-{n}"), invoice, -1);
        pay(&format!("overflow-{n}"), invoice, i64::MAX);
        pay(&format!("unknown-{n}"), ("no such invoice", currency), 1);
        pay("", invoice, 1);
    }
    let (acks, status) = ask::<ReconcileAck>(connection, "Reconcile", bytes.freeze()).await?;
    for (n, mut ack) in acks.into_iter().enumerate() {
        // The words are each server's own; whether there are any is not.
        ack.message = if ack.message.is_empty() { "" } else { "why" }.to_owned();
        answers.push((format!("Reconcile, event {n}"), format!("{ack:?}")));
    }
    answers.push(("Reconcile, status".to_owned(), format!("{status:?}")));
    Ok(())
}
