//! The other end of the service.

mod invoices;
mod stub;

pub use invoices::{InvoiceRef, Invoices, Malformed};
pub use stub::Stub;
