//! Credit notes, refunds and voids: the table of the proto cell by cell, and histories against a model of it.

#[path = "../common/mod.rs"]
mod common;

mod checked;
mod history;
mod model;
mod table;

use billstream::proto::report::{
    CreateInvoiceRequest, EventKind, ReconcileAck, ReconcileEvent, SummaryRequest,
};
use billstream::{Client, Config};
use rusqlite::Connection;

/// A database of its own, and who looks at it from beside the client.
struct Books {
    client: Client,
    config: Config,
    sql: Connection,
    _dir: tempfile::TempDir,
}

impl Books {
    fn new() -> Books {
        let dir = tempfile::tempdir().unwrap();
        let synchronous = billstream::config::Synchronous::Normal;
        let config = Config { db: dir.path().join("bills.db"), synchronous, ..Config::default() };
        let client = Client::open_with(config.clone()).unwrap();
        let sql = Connection::open(&config.db).unwrap();
        Books { client, config, sql, _dir: dir }
    }

    fn create(&self, invoices: &[CreateInvoiceRequest]) {
        let mut upload = self.client.upload().unwrap();
        invoices.iter().for_each(|invoice| upload.send(invoice).unwrap());
        upload.commit("").unwrap();
    }

    fn apply(&self, events: &[ReconcileEvent]) -> Vec<ReconcileAck> {
        let (sender, acks) = self.client.reconcile().split();
        events.iter().for_each(|event| sender.send(event.clone()).unwrap());
        sender.finish();
        acks.flat_map(Result::unwrap).collect()
    }

    fn summary(&self) -> billstream::proto::report::Summary {
        self.client.summary(&SummaryRequest::default()).unwrap()
    }

    fn faults(&self) -> Vec<String> {
        billstream::server::check(&self.config).unwrap().faults
    }
}

fn event_of(kind: EventKind, event_id: &str, invoice_id: &str, cents: i64) -> ReconcileEvent {
    ReconcileEvent { kind: kind.into(), ..common::event(event_id, invoice_id, cents) }
}
