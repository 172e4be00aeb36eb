//! Every invoice that matches, and every event of the ledger.

use protobuf::Message;

use super::grpc::receiving;
use super::resumed::{Batch, Resumed};
use super::{Client, Code, Error, Invoices, Result};
use crate::grpc::methods::{EXPORT_EVENTS, EXPORT_INVOICE_BATCHES};
use crate::method::Method;
use crate::proto::report::{
    Event, EventBatch, ExportEventsRequest, ExportRequest, Invoice, Summary,
};
use crate::store::encode::Chunk;

/// The invoices of an export, some hundreds at a time, in the order of `sequence`.
///
/// The set is that of the first `next`: an invoice that is created later is not in it. After a lost connection, and
/// where the server ends the stream for one of its limits on time, it goes on where it was, as
/// [`Client::with_retries`] says: no invoice is missing and none comes twice. Flow control is the reader's: who does
/// not ask for more holds the server's scan, which ends when this is dropped. After an error there is nothing more;
/// [`Export::cursor`] says where to go on from.
///
/// ```no_run
/// use billstream::client::{Client, Error};
/// use billstream::proto::report::{ExportRequest, InvoiceStatus};
///
/// let client = Client::connect("127.0.0.1:50051");
/// let open = vec![InvoiceStatus::INVOICE_STATUS_OPEN.into()];
/// let mut cents = 0;
/// for invoices in client.export(&ExportRequest { statuses: open, ..Default::default() }) {
///     // Read in place: no text is copied.
///     cents += invoices?.iter().map(|invoice| invoice.total_amount_cents).sum::<i64>();
/// }
/// # Ok::<(), Error>(())
/// ```
pub struct Export(Resumed<Invoices>);

impl Export {
    pub(super) fn new(client: &Client, request: &ExportRequest) -> Export {
        Export(Resumed::new(client, request))
    }

    /// The `sequence` of the last invoice that came, or the `after_sequence` of the request: what another export
    /// goes on after.
    pub fn cursor(&self) -> i64 {
        self.0.cursor()
    }

    /// The invoices one by one, as messages of their own: for those who need not be quick.
    pub fn rows(self) -> impl Iterator<Item = Result<Invoice>> {
        self.flat_map(|invoices| match invoices {
            Ok(invoices) => invoices.iter().map(|row| Ok(row.to_message())).collect(),
            Err(error) => vec![Err(error)],
        })
    }
}

impl Iterator for Export {
    type Item = Result<Invoices>;

    fn next(&mut self) -> Option<Result<Invoices>> {
        self.0.next()
    }
}

impl Batch for Invoices {
    type Request = ExportRequest;

    const METHOD: Method = Method::ExportInvoiceBatches;
    const RECEIVED: grpcio::Method<ExportRequest, Vec<u8>> = receiving(&EXPORT_INVOICE_BATCHES);

    fn until(summary: &Summary) -> i64 {
        summary.last_sequence
    }

    fn request(request: &mut ExportRequest) -> (&mut i64, &mut i64) {
        (&mut request.after_sequence, &mut request.max_rows)
    }

    fn from_wire(bytes: Vec<u8>) -> Result<Invoices> {
        Invoices::from_batch(bytes).map_err(|error| Error::new(Code::Internal, error.to_string()))
    }

    fn from_chunk(chunk: Chunk) -> Result<Invoices> {
        Ok(Invoices::of(chunk))
    }

    fn len(&self) -> usize {
        Invoices::len(self)
    }

    fn last_sequence(&self) -> i64 {
        Invoices::last_sequence(self)
    }

    fn cut(&mut self, until: i64) {
        Invoices::cut(self, until);
    }
}

/// The events of the ledger, some hundreds at a time, in the order in which they were applied.
///
/// What is said of an [`Export`] holds for it: the set is that of the first `next`, it goes on by itself where the
/// call ends before its time, and it ends its call when it is dropped.
///
/// ```no_run
/// use billstream::client::{Client, Error};
/// use billstream::proto::report::ExportEventsRequest;
/// use std::collections::HashMap;
///
/// let client = Client::connect("127.0.0.1:50051");
/// let mut paid_cents = HashMap::<String, i64>::new();
/// for events in client.export_events(&ExportEventsRequest::default()) {
///     for event in events? {
///         *paid_cents.entry(event.invoice_id).or_default() += event.paid_change_cents;
///     }
/// }
/// # Ok::<(), Error>(())
/// ```
pub struct EventExport(Resumed<Vec<Event>>);

impl EventExport {
    pub(super) fn new(client: &Client, request: &ExportEventsRequest) -> EventExport {
        EventExport(Resumed::new(client, request))
    }

    /// The `event_sequence` of the last event that came, or the `after_event_sequence` of the request: what
    /// another export goes on after.
    pub fn cursor(&self) -> i64 {
        self.0.cursor()
    }
}

impl Iterator for EventExport {
    type Item = Result<Vec<Event>>;

    fn next(&mut self) -> Option<Result<Vec<Event>>> {
        self.0.next()
    }
}

impl Batch for Vec<Event> {
    type Request = ExportEventsRequest;

    const METHOD: Method = Method::ExportEvents;
    const RECEIVED: grpcio::Method<ExportEventsRequest, Vec<u8>> = receiving(&EXPORT_EVENTS);

    fn until(summary: &Summary) -> i64 {
        summary.last_event_sequence
    }

    fn request(request: &mut ExportEventsRequest) -> (&mut i64, &mut i64) {
        (&mut request.after_event_sequence, &mut request.max_events)
    }

    fn from_wire(bytes: Vec<u8>) -> Result<Vec<Event>> {
        events(&bytes)
    }

    fn from_chunk(chunk: Chunk) -> Result<Vec<Event>> {
        events(chunk.batch())
    }

    fn len(&self) -> usize {
        Vec::len(self)
    }

    fn last_sequence(&self) -> i64 {
        self.last().map_or(0, |event| event.event_sequence)
    }

    fn cut(&mut self, until: i64) {
        self.retain(|event| event.event_sequence <= until);
    }
}

fn events(batch: &[u8]) -> Result<Vec<Event>> {
    let malformed = |error| Error::new(Code::Internal, format!("not a valid EventBatch: {error}"));
    EventBatch::parse_from_bytes(batch).map(|batch| batch.events).map_err(malformed)
}
