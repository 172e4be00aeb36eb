//! Every invoice that matches, across lost connections.

use super::{grpc, local, Client, Invoices, Result, Retry, Transport};
use crate::proto::report::{ExportRequest, Invoice, SummaryRequest};
use crate::stop::Stop;

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
pub struct Export {
    client: Client,
    /// What is still to come: after each batch the cursor is set to its end.
    request: ExportRequest,
    /// The end of the set. A later call would have newer invoices too, so the set is cut here.
    until: Option<i64>,
    /// How many were asked for and did not come yet.
    left: Option<i64>,
    call: Option<Batches>,
    retry: Retry,
    /// Whether a call was made.
    is_asked: bool,
    is_over: bool,
}

/// The call that is open.
pub(super) enum Batches {
    Grpc(grpc::Batches),
    Local(Box<local::Batches>),
}

impl Batches {
    /// The next batch; `None` at the end of the stream.
    fn next(&mut self, stop: &Stop) -> Result<Option<Invoices>> {
        match self {
            Batches::Grpc(batches) => batches.next(stop),
            Batches::Local(batches) => batches.next(stop),
        }
    }
}

impl Export {
    pub(super) fn new(client: &Client, request: &ExportRequest) -> Export {
        Export {
            left: (request.max_rows > 0).then_some(request.max_rows),
            request: request.clone(),
            until: None,
            call: None,
            retry: client.retry(),
            client: client.clone(),
            is_asked: false,
            is_over: false,
        }
    }

    /// The `sequence` of the last invoice that came, or the `after_sequence` of the request: what another export
    /// goes on after.
    pub fn cursor(&self) -> i64 {
        self.request.after_sequence
    }

    /// The invoices one by one, as messages of their own: for those who need not be quick.
    pub fn rows(self) -> impl Iterator<Item = Result<Invoice>> {
        self.flat_map(|invoices| match invoices {
            Ok(invoices) => invoices.iter().map(|row| Ok(row.to_message())).collect(),
            Err(error) => vec![Err(error)],
        })
    }

    fn batch(&mut self) -> Result<Option<Invoices>> {
        let until = self.until()?;
        if self.call.is_none() {
            // The first call is made for whatever was asked: the server says what is wrong with it.
            let is_all = self.request.after_sequence >= until || self.left == Some(0);
            if self.is_asked && is_all {
                return Ok(None);
            }
            if let Some(left) = self.left {
                self.request.max_rows = left;
            }
            self.call = Some(self.open()?);
            self.is_asked = true;
        }
        let next = self.call.as_mut().map_or(Ok(None), |call| call.next(&self.client.stop))?;
        let Some(mut invoices) = next else { return Ok(None) };
        if invoices.last_sequence() > until {
            // What is still under way is newer too.
            self.call = None;
            invoices.cut(until);
            self.request.after_sequence = self.request.after_sequence.max(until);
        }
        self.request.after_sequence = self.request.after_sequence.max(invoices.last_sequence());
        self.left = self.left.map(|left| left.saturating_sub(invoices.len() as i64).max(0));
        Ok(Some(invoices))
    }

    fn until(&mut self) -> Result<i64> {
        if self.until.is_none() {
            self.until = Some(self.client.summary_once(&SummaryRequest::default())?.last_sequence);
        }
        Ok(self.until.unwrap_or_default())
    }

    fn open(&self) -> Result<Batches> {
        match &self.client.transport {
            Transport::Grpc(connection) => connection.export(&self.request).map(Batches::Grpc),
            Transport::Local(local) => {
                local.export(&self.request).map(|batches| Batches::Local(Box::new(batches)))
            }
        }
    }
}

impl Iterator for Export {
    type Item = Result<Invoices>;

    fn next(&mut self) -> Option<Result<Invoices>> {
        while !self.is_over {
            match self.batch() {
                Ok(Some(invoices)) => {
                    self.retry.progressed();
                    if !invoices.is_empty() {
                        return Some(Ok(invoices));
                    }
                }
                Ok(None) => self.is_over = true,
                // All came, and only the end of the stream did not.
                Err(_) if self.left == Some(0) => self.is_over = true,
                Err(error) => {
                    self.call = None;
                    if let Err(error) = self.retry.wait(error) {
                        self.is_over = true;
                        return Some(Err(error));
                    }
                }
            }
        }
        self.call = None;
        None
    }
}
