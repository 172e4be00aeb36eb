//! The methods of `billing.v1` by name: what calls are counted and told of by.

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
    GetInvoice,
    ExportEvents,
    Backup,
}

impl Method {
    /// All of them; the place of each is its number.
    pub const ALL: [Method; 11] = [
        Method::GetSummary,
        Method::ListInvoices,
        Method::ExportInvoices,
        Method::ExportInvoiceBatches,
        Method::BulkCreate,
        Method::BulkCreateBatches,
        Method::Reconcile,
        Method::ReconcileBatches,
        Method::GetInvoice,
        Method::ExportEvents,
        Method::Backup,
    ];

    /// Whether it is one that streams rows: the others have one message and one answer.
    pub fn is_stream(self) -> bool {
        !matches!(self, Method::GetSummary | Method::ListInvoices | Method::GetInvoice)
    }

    /// The service that it is of.
    pub fn service(self) -> &'static str {
        match self {
            Method::Backup => "billing.v1.AdminService",
            _ => "billing.v1.ReportService",
        }
    }

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
            Method::GetInvoice => "GetInvoice",
            Method::ExportEvents => "ExportEvents",
            Method::Backup => "Backup",
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_are_in_the_order_of_their_numbers() {
        for (number, method) in Method::ALL.into_iter().enumerate() {
            assert_eq!(method as usize, number, "{method}");
        }
    }
}
