//! The flags that say which invoices a command is about.

use clap::Args;
use protobuf::well_known_types::timestamp::Timestamp;
use protobuf::{EnumOrUnknown, MessageField};

use billstream::proto::report::InvoiceStatus;

use super::values;

/// The flags of every command that reads invoices.
#[derive(Args)]
pub struct Scope {
    /// Only the invoices of this customer
    #[arg(long, value_name = "ID", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    customer: Option<String>,
    /// Only invoices issued at or after this time (RFC 3339, or a date: its midnight in UTC)
    #[arg(long, value_name = "TIME", value_parser = values::time_or_date)]
    since: Option<Timestamp>,
    /// Only invoices issued before this time
    #[arg(long, value_name = "TIME", value_parser = values::time_or_date)]
    until: Option<Timestamp>,
}

impl Scope {
    pub fn customer_id(&self) -> String {
        self.customer.clone().unwrap_or_default()
    }

    pub fn issued_from(&self) -> MessageField<Timestamp> {
        self.since.clone().into()
    }

    pub fn issued_until(&self) -> MessageField<Timestamp> {
        self.until.clone().into()
    }
}

/// The flags of the commands that print invoices.
#[derive(Args)]
pub struct Filter {
    #[command(flatten)]
    pub scope: Scope,
    /// Only invoices with this status: OPEN, PARTIALLY_PAID, PAID, OVERPAID or VOID, in any case;
    /// may be repeated, or a list with commas
    #[arg(long, value_delimiter = ',', value_parser = values::status)]
    status: Vec<InvoiceStatus>,
}

impl Filter {
    pub fn statuses(&self) -> Vec<EnumOrUnknown<InvoiceStatus>> {
        self.status.iter().map(|&status| status.into()).collect()
    }

    /// True when every invoice matches.
    pub fn is_all(&self) -> bool {
        let Scope { customer, since, until } = &self.scope;
        customer.is_none() && since.is_none() && until.is_none() && self.status.is_empty()
    }
}
