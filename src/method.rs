//! The methods of `billing.v1.ReportService` by name: what calls are counted and told of by.

use std::fmt;

/// One method.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Method {
    GetSummary,
    ListInvoices,
    ExportInvoices,
    ExportInvoiceBatches,
    BulkCreate,
    BulkCreateBatches,
    Reconcile,
    ReconcileBatches,
}

impl Method {
    /// Its name, without that of the service.
    pub fn name(self) -> &'static str {
        match self {
            Method::GetSummary => "GetSummary",
            Method::ListInvoices => "ListInvoices",
            Method::ExportInvoices => "ExportInvoices",
            Method::ExportInvoiceBatches => "ExportInvoiceBatches",
            Method::BulkCreate => "BulkCreate",
            Method::BulkCreateBatches => "BulkCreateBatches",
            Method::Reconcile => "Reconcile",
            Method::ReconcileBatches => "ReconcileBatches",
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
