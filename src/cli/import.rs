//! `billstream import`: creates the invoices of a file, all of them or none.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::Read;

use clap::Args;

use billstream::client::{self, Client, Code, Retry};
use billstream::proto::report::{BulkResult, CreateInvoiceRequest};

use super::connection::Connection;
use super::failure::{describe, Failure, Result};
use super::interrupt;
use super::output::{Cell, Format, FormatArgs};
use super::progress::Progress;
use super::reading::{
    Column, ExpectArgs, Expected, Input, Layout, LayoutArgs, Need, Next, Rows, Tally,
};
use super::stderr::say;
use super::totals::print_totals;
use super::values::{MAX_ID_BYTES, MAX_MEMO_BYTES};

/// Creates the invoices of a csv or ndjson file, all of them or none
///
/// The csv has the header invoice_id,customer_id,total_amount_cents,currency,issued_at,memo, in any
/// order; invoice_id and memo may be left out. The ndjson has an object with these members a line.
/// status, paid_cents and sequence of an export are ignored, with a note. What begins with `{` is
/// ndjson. Options say what is otherwise in a file; docs/files.md has examples. Rows without any value, as
/// spreadsheets write them, are skipped and counted.
///
/// Every row is checked before the upload is committed: the first 20 errors are named by line and column,
/// nothing is created, and the exit code is 2. After a lost connection the upload is repeated with the same
/// batch id, which never creates anything twice. Ctrl-C says how to do so by hand.
///
/// A database file that --db names and that does not exist is created.
///
/// With --dry-run all is done but the booking: the rows are checked against the books as they are, taken ids among
/// them, the output and the exit code are those that the import would have now, and nothing is created or remembered.
#[derive(Args)]
pub struct Import {
    /// The file, or - for stdin
    file: String,
    /// Names the upload: repeating it with the same id creates nothing twice [default: a new one,
    /// printed on stderr]
    #[arg(long, value_name = "ID", value_parser = batch_id)]
    batch_id: Option<String>,
    /// Say what would be created, or what is wrong, and create nothing
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
    Column::new("invoice_id", Need::Optional),
    Column::new("customer_id", Need::Required),
    Column::new("total_amount_cents", Need::Required),
    Column::new("currency", Need::Required),
    Column::new("issued_at", Need::Required),
    Column::new("memo", Need::Optional),
    Column::new("status", Need::Ignored),
    Column::new("paid_cents", Need::Ignored),
    Column::new("sequence", Need::Ignored),
];

fn batch_id(text: &str) -> std::result::Result<String, String> {
    match text.len() {
        1..=MAX_ID_BYTES if !text.contains('\0') => Ok(text.to_owned()),
        _ => Err(format!("expected 1 to {MAX_ID_BYTES} bytes")),
    }
}

pub fn run(args: &Import) -> Result<()> {
    let layout = args.layout.layout(COLUMNS)?;
    let expected = args.expect.expected(&layout)?;
    let input = Input::open(&args.file)?;
    let progress = Progress::bytes(input.len);
    let is_dry_run = args.dry_run;
    // The directory goes after the client.
    let (_directory, client) = match is_dry_run {
        true => {
            args.connection.client_or_empty_file(&progress).map(|(client, dir)| (dir, client))?
        }
        false => (None, args.connection.client_or_new_file(&progress)?),
    };
    let new_batch_id = || if is_dry_run { String::new() } else { new_batch_id() };
    let batch_id = args.batch_id.clone().unwrap_or_else(new_batch_id);
    let (retry, noted) = (client.retry(), RefCell::default());
    let mut upload =
        Upload { client, input, layout, expected, batch_id, is_dry_run, progress, retry, noted };
    let result = upload.run().map_err(|failure| match failure {
        Failure::Rpc(error) => upload.explain(error),
        other => other.or_go_on(|| upload.go_on()),
    });
    let batch_id = upload.batch_id.clone();
    // The bar goes before the result comes.
    drop(upload);
    let (result, format) = (result?, args.format.or(Format::Table));
    if is_dry_run {
        say(dry_run_note(&result));
        return print(format, &result, &batch_id);
    }
    print(format, &result, &batch_id).inspect_err(|_| {
        say(format!("the upload {batch_id} is done; its result could not be printed"));
    })
}

fn new_batch_id() -> String {
    let id = uuid::Uuid::now_v7().to_string();
    say(format!("batch id {id} (after an interruption repeat the import with --batch-id {id})"));
    id
}

fn dry_run_note(result: &BulkResult) -> String {
    match result.already_applied {
        true => "dry run: nothing was booked; the import would create nothing, since its batch id is known".to_owned(),
        false => format!(
            "dry run: nothing was booked; the import would create {} invoices",
            result.created_count
        ),
    }
}

fn print(format: Format, result: &BulkResult, batch_id: &str) -> Result<()> {
    let fields = [
        ("created_count", Cell::Int(result.created_count)),
        ("first_sequence", Cell::Int(result.first_sequence)),
        ("last_sequence", Cell::Int(result.last_sequence)),
        ("batch_id", Cell::Text(batch_id)),
        ("already_applied", Cell::Bool(result.already_applied)),
        ("validate_only", Cell::Bool(true)),
    ];
    // The last is of a dry run alone.
    let count = fields.len() - usize::from(!result.validate_only);
    print_totals(format, &fields[..count], &result.totals)
}

/// One import, in as many attempts as it takes.
struct Upload {
    client: Client,
    input: Input,
    layout: Layout,
    expected: Expected,
    batch_id: String,
    is_dry_run: bool,
    progress: Progress,
    retry: Retry,
    /// The ignored columns that were named.
    noted: RefCell<Vec<&'static str>>,
}

/// What became of an upload, and what is to be said of its file.
struct Created {
    result: BulkResult,
    notes: Vec<String>,
}

impl Upload {
    fn run(&mut self) -> Result<BulkResult> {
        let mut furthest = 0;
        loop {
            let (sent, result) = self.attempt()?;
            let error = match result {
                Ok(Created { result, notes }) => {
                    notes.iter().for_each(|note| self.progress.note(note));
                    return Ok(result);
                }
                Err(error) => error,
            };
            // An attempt that comes no further than those before is no progress, so that an upload which
            // ends its server cannot go on for ever.
            if sent > furthest {
                furthest = sent;
                self.retry.progressed();
            }
            self.retry.wait(error)?;
        }
    }

    /// Sends the whole file. Gives how many rows were sent, and how the upload ended. A failure of the file
    /// cancels it, and so creates nothing.
    fn attempt(&self) -> Result<(u64, client::Result<Created>)> {
        let reader = self.progress.reading(self.input.reader()?);
        let mut rows = Rows::new(&self.input.name, &self.layout, reader)?;
        let (mut upload, mut tally) = (self.client.upload()?, Tally::default());
        loop {
            match rows.next(request)? {
                Next::Row(request) => {
                    self.note_ignored(&rows);
                    if let Err(error) = upload.send(&request) {
                        return Ok((tally.rows(), Err(error)));
                    }
                    tally.add(&request.currency, request.total_amount_cents);
                }
                Next::Bad => break,
                Next::End => {
                    rows.finish()?;
                    self.expected.check(&self.input.name, &tally, &self.layout)?;
                    let result = match self.is_dry_run {
                        true => upload.validate(&self.batch_id),
                        false => upload.commit(&self.batch_id),
                    };
                    return Ok((
                        tally.rows(),
                        result.map(|result| Created { result, notes: rows.notes() }),
                    ));
                }
            }
        }
        drop(upload);
        Err(check_rest(rows)?)
    }

    /// Says once of each column that it is ignored.
    fn note_ignored(&self, rows: &Rows<impl Read>) {
        let mut noted = self.noted.borrow_mut();
        let new: Vec<_> = rows.ignored().filter(|column| !noted.contains(column)).collect();
        if !new.is_empty() {
            let (name, columns) = (&self.input.name, new.join(", "));
            self.progress
                .note(&format!("{name}: ignoring {columns}: all invoices are created anew"));
            noted.extend(new);
        }
    }

    fn go_on(&self) -> String {
        if self.is_dry_run {
            return "nothing was booked".to_owned();
        }
        format!(
            "the file may be created or not; repeat the import with --batch-id {}, which creates nothing twice",
            self.batch_id
        )
    }

    /// Says of a refused upload which lines of the file it is about. What the file itself is to
    /// blame for is a wrong input, like what was found before anything was sent.
    fn explain(&self, error: client::Error) -> Failure {
        let found = match error.code {
            Code::InvalidArgument => self.find_invalid(&error),
            Code::AlreadyExists => self.find_taken(&error),
            _ => Ok(None),
        };
        // A file that cannot be read again leaves the server's own words.
        found.ok().flatten().unwrap_or(Failure::Rpc(error))
    }

    fn rows(&self) -> Result<Rows<'_, &File>> {
        Rows::new(&self.input.name, &self.layout, self.input.reader()?)
    }

    /// The lines and columns of "requests[INDEX].FIELD".
    fn find_invalid(&self, error: &client::Error) -> Result<Option<Failure>> {
        let mut places = BTreeMap::<u64, Vec<_>>::new();
        for violation in &error.violations {
            let Some((index, field)) = parse_request_path(&violation.field) else { continue };
            let Some(column) = COLUMNS.iter().find(|column| column.name == field) else { continue };
            places.entry(index).or_default().push((column.name, &violation.description));
        }
        let mut rows = self.rows()?;
        for index in 0.. {
            let wrong = places.remove(&index).unwrap_or_default();
            let say = |rows: &Rows<_>| {
                wrong.iter().for_each(|(column, says)| {
                    rows.refused(column, &format!("the server says: {says}"));
                });
                Some(())
            };
            if matches!(rows.next(say)?, Next::End) || places.is_empty() {
                break;
            }
        }
        Ok(rows.finish().err())
    }

    /// The lines with an id that is on another line, or the line of the id that the server's message quotes.
    fn find_taken(&self, error: &client::Error) -> Result<Option<Failure>> {
        let taken = error.message.split('"').nth(1).unwrap_or("");
        let mut taken_line = None;
        let mut lines = HashMap::new();
        let mut rows = self.rows()?;
        let look = |rows: &Rows<_>| {
            let id = rows.text("invoice_id").filter(|id| !id.is_empty())?.to_owned();
            if id == taken {
                taken_line = Some(rows.line());
            }
            if let Some(first) = lines.insert(id.clone(), rows.line()) {
                let expected = format!("an id that is not on line {first} already");
                return rows.refuse("invoice_id", &id, &expected);
            }
            Some(())
        };
        let mut look = look;
        while !matches!(rows.next(&mut look)?, Next::End) {}
        if let Err(twice) = rows.finish() {
            return Ok(Some(twice));
        }
        let message = |line| format!("{}:{line}: {}", self.input.name, describe(error));
        Ok(taken_line.map(|line| Failure::Failed(message(line))))
    }
}

/// Reads to the end of an input of which a row is wrong, for all that is wrong with it.
fn check_rest(mut rows: Rows<impl Read>) -> Result<Failure> {
    while !matches!(rows.next(request)?, Next::End) {
        if interrupt::is_requested() {
            return Ok(Failure::Interrupted("nothing was created".to_owned()));
        }
    }
    // OK to say that it was interrupted otherwise: a row was wrong.
    Ok(rows.finish().err().unwrap_or_else(|| Failure::Interrupted(String::new())))
}

/// The request of the row at hand, checked as the server will check it.
fn request(rows: &Rows<impl Read>) -> Option<CreateInvoiceRequest> {
    // All of them first, so that each is looked at.
    let currency = rows.currency("currency");
    let total = rows.cents("total_amount_cents", currency.as_deref());
    let invoice_id = rows.name("invoice_id", MAX_ID_BYTES);
    let customer_id = rows.required_name("customer_id", MAX_ID_BYTES);
    let issued_at = rows.time("issued_at");
    let memo = rows.name("memo", MAX_MEMO_BYTES);
    Some(CreateInvoiceRequest {
        invoice_id: invoice_id?.to_owned(),
        customer_id: customer_id?.to_owned(),
        total_amount_cents: total?,
        currency: currency?.into_owned(),
        issued_at: Some(issued_at?).into(),
        memo: memo?.to_owned(),
        ..CreateInvoiceRequest::default()
    })
}

/// `(3, "currency")` of `requests[3].currency`.
fn parse_request_path(path: &str) -> Option<(u64, &str)> {
    let (index, field) = path.strip_prefix("requests[")?.split_once("].")?;
    Some((index.parse().ok()?, field))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_violation_names_its_row() {
        assert_eq!(parse_request_path("requests[12].issued_at"), Some((12, "issued_at")));
        assert_eq!(parse_request_path("commit.count"), None);
    }
}
