//! Every decoder of requests, with the checks behind it, fed with bytes: for the tests and the fuzz targets,
//! which see here what a hostile client can make the server do and keep. It is no part of the interface.

use grpcio::RpcStatus;

use crate::calls::rows::{each_row, parse, within};
use crate::calls::wire::{Incoming, OfRows};
use crate::calls::{status::status as status_of, token, validate};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::grpc::status::encoded;
use crate::model::Filter;
use crate::proto::report::{
    CreateInvoiceBatch, CreateInvoiceRequest, ExportEventsRequest, ExportRequest,
    GetInvoiceRequest, ListInvoicesRequest, ReconcileEvent, ReconcileEventBatch, SummaryRequest,
};

/// Takes the bytes of a message as a call does; returns how many bytes of text the server keeps of it.
pub type Decoder = fn(&[u8]) -> Result<usize>;

/// Each decoder under the name of its message.
pub const ALL: &[(&str, Decoder)] = &[
    ("SummaryRequest", summary),
    ("ListInvoicesRequest", list),
    ("ExportRequest", export),
    ("GetInvoiceRequest", get_invoice),
    ("ExportEventsRequest", export_events),
    ("CreateInvoiceRequest", invoice),
    ("CreateInvoiceBatch", invoices),
    ("ReconcileEvent", event),
    ("ReconcileEventBatch", events),
    ("page_token", page_token),
];

pub fn summary(bytes: &[u8]) -> Result<usize> {
    let max_bytes = Config::default().max_request_bytes;
    let request = parsed::<SummaryRequest>("SummaryRequest", bytes, max_bytes)?;
    Ok(validate::summary(request)?.customer_id.capacity())
}

/// With the page token.
pub fn list(bytes: &[u8]) -> Result<usize> {
    let Config { max_request_bytes, max_page_size, .. } = Config::default();
    let request = parsed::<ListInvoicesRequest>("ListInvoicesRequest", bytes, max_request_bytes)?;
    let (filter, _) = validate::list(&request, max_page_size)?;
    token::decode(&filter, &request.page_token)?;
    Ok(filter.customer_id.capacity())
}

pub fn export(bytes: &[u8]) -> Result<usize> {
    let max_bytes = Config::default().max_request_bytes;
    let request = parsed::<ExportRequest>("ExportRequest", bytes, max_bytes)?;
    Ok(validate::export(request)?.0.customer_id.capacity())
}

pub fn get_invoice(bytes: &[u8]) -> Result<usize> {
    let Config { max_request_bytes, max_page_size, .. } = Config::default();
    let request = parsed::<GetInvoiceRequest>("GetInvoiceRequest", bytes, max_request_bytes)?;
    validate::get_invoice(&request, max_page_size)?;
    Ok(request.invoice_id.capacity())
}

pub fn export_events(bytes: &[u8]) -> Result<usize> {
    let max_bytes = Config::default().max_request_bytes;
    let request = parsed::<ExportEventsRequest>("ExportEventsRequest", bytes, max_bytes)?;
    validate::export_events(&request).map(|_| 0)
}

/// A message of an upload: an invoice, or the commit.
pub fn invoice(bytes: &[u8]) -> Result<usize> {
    let max_bytes = Config::default().max_message_bytes;
    let request = parsed::<CreateInvoiceRequest>("requests[0]", bytes, max_bytes)?;
    if request.commit.is_some() {
        return Ok(validate::commit(&request, 0)?.batch_id.capacity());
    }
    let invoice = validate::invoice(&request, 0)?;
    let texts = [invoice.invoice_id, invoice.customer_id, invoice.currency, invoice.memo];
    Ok(texts.iter().map(|text| text.len()).sum())
}

/// A message of an upload in batches. (Its rows are staged one by one, so this is the most that one of them
/// keeps.)
pub fn invoices(bytes: &[u8]) -> Result<usize> {
    each::<CreateInvoiceBatch>(bytes, invoice)
}

/// The same of ReconcileBatches.
pub fn events(bytes: &[u8]) -> Result<usize> {
    each::<ReconcileEventBatch>(bytes, event)
}

fn each<M: OfRows>(bytes: &[u8], row: Decoder) -> Result<usize> {
    let Config { max_message_bytes, max_batch_rows, .. } = Config::default();
    within::<M::Row>(M::NAME, bytes.len(), max_message_bytes)?;
    let mut most = 0;
    each_row::<M>(M::NAME, bytes, max_batch_rows, |bytes| {
        most = row(bytes)?.max(most);
        Ok(())
    })?;
    Ok(most)
}

/// An event that is refused is kept too, until its acknowledgement is sent.
pub fn event(bytes: &[u8]) -> Result<usize> {
    let max_bytes = Config::default().max_message_bytes;
    let event = parsed::<ReconcileEvent>("ReconcileEvent", bytes, max_bytes)?;
    let event = validate::event(event);
    Ok(event.event_id.capacity()
        + match event.entry {
            Ok(entry) => [entry.invoice_id, entry.currency, entry.reference]
                .iter()
                .map(String::capacity)
                .sum(),
            Err(violation) => violation.field.capacity() + violation.description.capacity(),
        })
}

/// The token of a filter, which comes as text.
pub fn page_token(bytes: &[u8]) -> Result<usize> {
    let text = std::str::from_utf8(bytes).map_err(|_| Error::invalid("page_token", "no UTF-8"))?;
    token::decode(&Filter::ALL, text).map(|_| 0)
}

fn parsed<M: Incoming>(what: &str, bytes: &[u8], max_bytes: usize) -> Result<M> {
    within::<M>(what, bytes.len(), max_bytes)?;
    parse(what, bytes)
}

/// The status of an error, as a client gets it.
pub fn status(error: &Error) -> RpcStatus {
    encoded(&status_of(error))
}
