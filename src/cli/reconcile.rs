//! `billstream reconcile`: payments in, acknowledgements out, both at once.

use std::io::{self, Read};
use std::thread;

use clap::Args;
use futures::StreamExt;
use grpcio::RpcStatusCode;

use billstream::bridge::{self, Receiver, Sender};
use billstream::proto::report::ReconcileEvent;

use super::acks::Acks;
use super::connection::Connection;
use super::failure::{status, Failure, Result};
use super::feed::{AHEAD, BATCH};
use super::input;
use super::interrupt;
use super::output::{Format, FormatArgs};
use super::reconcile_call::Session;
use super::retry::Retry;
use super::rows::{Column, Need, Rows};

/// Applies the payments of a csv or ndjson input, and prints an acknowledgement for each
///
/// The csv has the header event_id,invoice_id,amount_cents,currency,received_at,reference, in any order;
/// reference may be left out. The ndjson has an object with these members a line. What begins with
/// `{` is ndjson.
///
/// Acknowledgements come in the order of the events, while the input is still open. Each is
/// printed after its event is on disk. A payment that cannot be applied does not end the command:
/// its outcome says why (the exit code is 0). A line that cannot be read does: what was before it
/// is applied, and the exit code is 2. So it is with a stdout that is closed or full: all payments are
/// applied, the rest of the acknowledgements is lost, and the exit code is 1. After a lost connection the
/// events without an acknowledgement are sent again, and none is applied twice.
#[derive(Args)]
pub struct Reconcile {
    /// The file, or - for stdin
    file: String,
    #[command(flatten)]
    format: FormatArgs,
    #[command(flatten)]
    connection: Connection,
}

const COLUMNS: &[Column] = &[
    Column::new("event_id", Need::Required),
    Column::new("invoice_id", Need::Required),
    Column::new("amount_cents", Need::Required),
    Column::new("currency", Need::Required),
    Column::new("received_at", Need::Required),
    Column::new("reference", Need::Optional),
];

pub fn run(args: &Reconcile) -> Result<()> {
    let client = args.connection.client();
    let input = events(args.file.clone()).ready_chunks(BATCH);
    let mut acks = Acks::new(args.format.or(Format::Csv))?;
    interrupt::watch()?;
    let result = calls(Session::new(client, input), &mut acks, args.connection.retry());
    // A line that cannot be read goes before acknowledgements that cannot be printed.
    let printed = acks.finish();
    result.map_err(|failure| failure.or_go_on(|| acks.go_on())).and(printed)
}

/// Makes as many calls as it takes.
fn calls(mut session: Session, acks: &mut Acks, mut retry: Retry) -> Result<()> {
    loop {
        let (to_print, received) = bridge::bounded(AHEAD);
        let (done, ended) = bridge::bounded(1);
        session.client().spawn(async move {
            let result = session.call(to_print).await;
            // Nobody waits for it any more after Ctrl-C.
            let _ = done.send((session, result)).await;
        });
        acks.print_all(&received, || retry.progressed())?;
        let Some((back, result)) = interrupt::recv(&ended)? else {
            let message = "the connection's thread has ended";
            return Err(Failure::Rpc(status(RpcStatusCode::INTERNAL, message)));
        };
        session = back;
        match result {
            Ok(true) => {}
            Ok(false) => return session.input_failure.map_or(Ok(()), Err),
            // Nothing is outstanding: the next call waits for the next event.
            Err(Failure::Rpc(_)) if session.is_acked() => {}
            Err(Failure::Rpc(status)) => retry.wait(status, &acks.progress)?,
            Err(failure) => return Err(failure),
        }
    }
}

pub type Events = Receiver<Result<ReconcileEvent>>;

/// Reads events on a thread of its own: reading may wait for ever, and acknowledgements must not.
fn events(path: String) -> Events {
    let (sender, receiver) = bridge::bounded(AHEAD);
    thread::spawn(move || {
        if let Err(failure) = read(&path, &sender) {
            // Fails when the command is over, and nobody is left to tell.
            let _ = interrupt::send(&sender, Err(failure));
        }
    });
    receiver
}

fn read(path: &str, events: &Sender<Result<ReconcileEvent>>) -> Result<()> {
    let input: Box<dyn Read> = match path {
        "-" => Box::new(io::stdin()),
        path => Box::new(input::open(path)?),
    };
    let mut rows = Rows::new(&input::display_name(path), COLUMNS, input)?;
    while rows.advance()? && interrupt::send(events, Ok(event(&rows)?))? {}
    Ok(())
}

/// The event of the row at hand. What it says is for the server to judge, so that one bad payment
/// is REJECTED and the others go on.
fn event(rows: &Rows<impl Read>) -> Result<ReconcileEvent> {
    Ok(ReconcileEvent {
        event_id: rows.text("event_id")?.to_owned(),
        invoice_id: rows.text("invoice_id")?.to_owned(),
        amount_cents: rows.cents("amount_cents")?,
        currency: rows.text("currency")?.to_owned(),
        received_at: Some(rows.time("received_at")?).into(),
        reference: rows.text("reference")?.to_owned(),
        ..ReconcileEvent::default()
    })
}
