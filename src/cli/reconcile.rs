//! `billstream reconcile`: payments, refunds and voids in, acknowledgements out, both at once.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::thread;

use clap::Args;

use billstream::client::Events;
use billstream::proto::report::{EventKind, ReconcileEvent};

use super::acks::Acks;
use super::connection::Connection;
use super::failure::{Failure, Result};
use super::output::{Format, FormatArgs};
use super::progress::Progress;
use super::reading::{
    self, Column, ExpectArgs, Expected, Layout, LayoutArgs, Need, Next, Rows, Tally,
};
use super::values;

/// Applies the payments, refunds and voids of a csv or ndjson input, and prints an acknowledgement for each
///
/// The csv has the header event_id,invoice_id,amount_cents,currency,received_at,reference,kind, in any order;
/// reference and kind may be left out. The kind is PAYMENT, REFUND or VOID, in upper or lower case; where there is
/// none it is a payment. Amounts are over 0, whatever the kind; that of a VOID is the amount of its invoice, or 0 or
/// empty, which does not compare it. The ndjson has an object with these members a line. What begins with
/// `{` is ndjson. Options say what is otherwise in a file; docs/files.md has examples. Rows without any value, as
/// spreadsheets write them, are skipped and counted.
///
/// A file is checked as a whole before anything of it is sent: the first 20 errors are named by line and column,
/// nothing is applied, and the exit code is 2. A pipe cannot be read twice: a line of it that cannot be read ends the
/// command, what was before it is applied, and the exit code is 2.
///
/// Acknowledgements come in the order of the events, while the input is still open. Each is
/// printed after its event is on disk. An event that cannot be applied does not end the command:
/// its outcome says why (the exit code is 0). Nor does a stdout that is closed or full: all payments are
/// applied, the rest of the acknowledgements is lost, and the exit code is 1. After a lost connection the
/// events without an acknowledgement are sent again, and none is applied twice.
///
/// With --dry-run the whole input is read (and kept in memory), and the acknowledgements are those that its events
/// would get now, one after another, against the books as they are; nothing is applied or remembered. Events of one
/// invoice, or with one event_id, are judged together: where those are more than a message takes (4,096 or 1 MiB),
/// and would change the books, the dry run says that it cannot tell, and the exit code is 1.
#[derive(Args)]
pub struct Reconcile {
    /// The file, or - for stdin
    file: String,
    /// Say what would become of each event, and apply none
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    format: FormatArgs,
    #[command(flatten)]
    connection: Connection,
    // Last, since they have headings of their own.
    #[command(flatten)]
    layout: LayoutArgs,
    #[command(flatten)]
    expect: ExpectArgs,
}

const COLUMNS: &[Column] = &[
    Column::new("event_id", Need::Required),
    Column::new("invoice_id", Need::Required),
    Column::new("amount_cents", Need::Required),
    Column::new("currency", Need::Required),
    Column::new("received_at", Need::Required),
    Column::new("reference", Need::Optional),
    Column::new("kind", Need::Optional),
];

pub fn run(args: &Reconcile) -> Result<()> {
    let layout = args.layout.layout(COLUMNS)?;
    let events = Source::open(&args.file)?;
    if args.dry_run {
        return dry_run(args, &events, &layout);
    }
    let checked = check(args, &events, &layout)?;
    let progress = Progress::rows();
    let client = args.connection.client(&progress)?;
    let notes = progress.notes();
    let mut acks = Acks::new(args.format.or(Format::Csv), progress)?;
    let (sender, received) = client.reconcile().split();
    // Reading may wait for ever, and acknowledgements must not.
    let reader = thread::spawn(move || send(&events, &layout, checked.as_ref(), &sender));
    let result = acks.print_all(received).and_then(|()| {
        let panicked = |_| Failure::Failed(format!("{}: the reader panicked", args.file));
        let said = reader.join().map_err(panicked)??;
        said.iter().for_each(|note| notes(note));
        Ok(())
    });
    // A line that cannot be read goes before acknowledgements that cannot be printed.
    let printed = acks.finish();
    result.map_err(|failure| failure.or_go_on(|| acks.go_on())).and(printed)
}

/// Reads all events and prints what would become of them.
fn dry_run(args: &Reconcile, source: &Source, layout: &Layout) -> Result<()> {
    let (expected, mut events) = (args.expect.expected(layout)?, Vec::new());
    let (notes, _) = read(source, layout, &expected, |event| events.push(event))?;
    let progress = Progress::rows();
    let client = args.connection.client(&progress)?;
    notes.iter().for_each(|note| progress.note(note));
    let of_nothing = |failure: Failure| failure.or_go_on(|| "nothing was booked".to_owned());
    let judged = client.validate_events(&events).map_err(|error| of_nothing(error.into()))?;
    progress.note("dry run: nothing was booked; what follows is what would become of the events");
    let mut acks = Acks::new(args.format.or(Format::Csv), progress)?;
    acks.print_all([Ok(judged)])?;
    acks.finish()
}

/// Where events come from.
struct Source {
    name: String,
    /// A file that can be read twice; `None`: stdin.
    file: Option<File>,
    is_regular: bool,
    /// Of a regular file, when it was opened: what is added to it later is not read. (Those of /proc have 0.)
    bytes: u64,
}

impl Source {
    fn open(path: &str) -> Result<Source> {
        let file = if path == "-" { None } else { Some(reading::open(path)?) };
        let metadata = file.as_ref().map(|file| file.metadata()).transpose();
        let metadata = metadata.map_err(|error| Failure::io(path, error))?;
        let is_regular = metadata.as_ref().is_some_and(|metadata| metadata.is_file());
        let bytes = metadata.filter(|_| is_regular).map_or(0, |metadata| metadata.len());
        Ok(Source { name: reading::display_name(path), file, is_regular, bytes })
    }

    /// Reads from the start where that can be.
    fn rows<'a>(&'a self, layout: &'a Layout) -> Result<Rows<'a, Box<dyn Read + 'a>>> {
        let Some(mut file) = self.file.as_ref() else {
            return Rows::new(&self.name, layout, Box::new(io::stdin()));
        };
        if self.is_regular {
            file.rewind().map_err(|error| Failure::io(&self.name, error))?;
        }
        if self.bytes > 0 {
            return Rows::new(&self.name, layout, Box::new(file.take(self.bytes)));
        }
        Rows::new(&self.name, layout, Box::new(file))
    }
}

/// Reads a file to its end before anything of it is sent, for all that is wrong with it. Gives what it has; `None` of
/// what can be read only once.
fn check(args: &Reconcile, source: &Source, layout: &Layout) -> Result<Option<Tally>> {
    let expected = args.expect.expected(layout)?;
    if !source.is_regular {
        return match expected.is_any() {
            true => Err(Failure::Usage(format!(
                "{}: --expect-rows and --expect-total are of files: what comes through a pipe is applied before \
                 its end is known",
                source.name
            ))),
            false => Ok(None),
        };
    }
    read(source, layout, &expected, drop).map(|(_, tally)| Some(tally))
}

/// Gives all events to `take`, what is to be said of the input, and what it has; fails for all that is wrong with it.
fn read(
    source: &Source,
    layout: &Layout,
    expected: &Expected,
    mut take: impl FnMut(ReconcileEvent),
) -> Result<(Vec<String>, Tally)> {
    let (mut rows, mut tally) = (source.rows(layout)?, Tally::default());
    loop {
        match rows.next(event)? {
            Next::Row(event) => {
                tally.add(&event.currency, event.amount_cents);
                take(event);
            }
            Next::Bad => {}
            Next::End => break,
        }
    }
    rows.finish()?;
    expected.check(&source.name, &tally, layout)?;
    Ok((rows.notes(), tally))
}

/// Sends the events up to the first that is wrong. Gives what is to be said of the input. Fails where it is not what
/// was `checked`.
fn send(
    source: &Source,
    layout: &Layout,
    checked: Option<&Tally>,
    events: &Events,
) -> Result<Vec<String>> {
    let (mut rows, mut sent) = (source.rows(layout)?, Tally::default());
    // A failed send only says that the stream is over; why is said with the acknowledgements.
    while let Next::Row(event) = rows.next(event)? {
        sent.add(&event.currency, event.amount_cents);
        if events.send(event).is_err() {
            return Ok(rows.notes());
        }
    }
    rows.finish().map_err(|failure| match failure {
        Failure::Usage(message) => Failure::Usage(format!("{message}\n  {APPLIED}")),
        other => other,
    })?;
    match checked {
        Some(checked) if *checked != sent => Err(Failure::Failed(format!(
            "{}: it changed after it was checked, when it had {} rows: the {} that it had then are applied",
            source.name,
            checked.rows(),
            sent.rows()
        ))),
        _ => Ok(rows.notes()),
    }
}

/// Of what can be read only once; or of a file that is not what it was when it was checked.
const APPLIED: &str = "what is before it is applied: only a file can be checked as a whole first";

/// The event of the row at hand. What it says is for the server to judge, so that one bad payment
/// is REJECTED and the others go on.
fn event(rows: &Rows<impl Read>) -> Option<ReconcileEvent> {
    let currency = rows.any_currency("currency");
    let kind = kind(rows);
    let amount_cents = match (kind, rows.text("amount_cents")) {
        (Some(EventKind::EVENT_KIND_VOID), Some("")) => Some(0),
        _ => rows.cents("amount_cents", currency.as_deref()),
    };
    let received_at = rows.time("received_at");
    let [event_id, invoice_id, reference] =
        ["event_id", "invoice_id", "reference"].map(|column| rows.text(column));
    Some(ReconcileEvent {
        event_id: event_id?.to_owned(),
        invoice_id: invoice_id?.to_owned(),
        amount_cents: amount_cents?,
        currency: currency?.into_owned(),
        received_at: Some(received_at?).into(),
        reference: reference?.to_owned(),
        kind: kind?.into(),
        ..ReconcileEvent::default()
    })
}

fn kind(rows: &Rows<impl Read>) -> Option<EventKind> {
    let text = rows.text("kind")?;
    values::kind(text).map_or_else(|expected| rows.refuse("kind", text, expected), Some)
}
