//! `billstream reconcile`: payments in, acknowledgements out, both at once.

use std::io::{self, Read};
use std::thread;

use clap::Args;

use billstream::client::Events;
use billstream::proto::report::ReconcileEvent;

use super::acks::Acks;
use super::connection::Connection;
use super::failure::{Failure, Result};
use super::input;
use super::output::{Format, FormatArgs};
use super::progress::Progress;
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
    let progress = Progress::rows();
    let client = args.connection.client(&progress)?;
    let mut acks = Acks::new(args.format.or(Format::Csv), progress)?;
    let (events, received) = client.reconcile().split();
    let file = args.file.clone();
    // Reading may wait for ever, and acknowledgements must not.
    let reader = thread::spawn(move || read(&file, &events));
    let result = acks.print_all(received).and_then(|()| {
        let panicked = |_| Failure::Failed(format!("{}: the reader panicked", args.file));
        reader.join().map_err(panicked)?
    });
    // A line that cannot be read goes before acknowledgements that cannot be printed.
    let printed = acks.finish();
    result.map_err(|failure| failure.or_go_on(|| acks.go_on())).and(printed)
}

fn read(path: &str, events: &Events) -> Result<()> {
    let input: Box<dyn Read> = match path {
        "-" => Box::new(io::stdin()),
        path => Box::new(input::open(path)?),
    };
    let mut rows = Rows::new(&input::display_name(path), COLUMNS, input)?;
    // A failed send only says that the stream is over; why is said with the acknowledgements.
    while rows.advance()? && events.send(event(&rows)?).is_ok() {}
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
