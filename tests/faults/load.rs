//! What goes on beside uploads that are cancelled.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;

use billstream::client::Stub;
use billstream::proto::report::ExportRequest;
use futures::executor::block_on;
use futures::{SinkExt, StreamExt};
use grpcio::{CallOption, WriteFlags};

use crate::cancels::{Field, LOAD, LOAD_ROWS};
use crate::support::*;

/// Exports, reconciles and uploads that nobody cancels, so that the news of a cancel comes late.
pub struct Load {
    is_over: Arc<AtomicBool>,
    readers: Vec<std::thread::JoinHandle<()>>,
    uploader: std::thread::JoinHandle<Vec<(String, usize)>>,
}

impl Load {
    pub fn start(field: &Field) -> Load {
        let is_over = Arc::new(AtomicBool::new(false));
        let client =
            |over: &Arc<AtomicBool>| (Stub::new(&field.addr.to_string()), Arc::clone(over));
        let mut readers = Vec::new();
        for _ in 0..2 {
            let (client, over) = client(&is_over);
            readers.push(std::thread::spawn(move || export_until(&client, &over)));
        }
        for thread in 0..2 {
            let (client, over) = client(&is_over);
            readers.push(std::thread::spawn(move || reconcile_until(&client, &over, thread)));
        }
        let over = Arc::clone(&is_over);
        // On a connection with uploads that are cancelled.
        let client = field.shared[0].clone();
        let uploader = std::thread::spawn(move || upload_until(&client, &over));
        Load { is_over, readers, uploader }
    }

    /// The uploads that were acknowledged.
    pub fn stop(self) -> Vec<(String, usize)> {
        self.is_over.store(true, Ordering::Relaxed);
        self.readers.into_iter().for_each(|thread| thread.join().unwrap());
        self.uploader.join().unwrap()
    }
}

fn export_until(client: &Stub, over: &AtomicBool) {
    while !over.load(Ordering::Relaxed) {
        let request = ExportRequest { customer_id: LOAD.to_owned(), ..ExportRequest::default() };
        let mut batches = client.export_invoice_batches(&request, options()).unwrap();
        let mut rows = 0;
        while let Some(batch) = block_on(batches.next()) {
            rows += batch.unwrap().invoices.len();
        }
        assert_eq!(rows, LOAD_ROWS);
    }
}

fn reconcile_until(client: &Stub, over: &AtomicBool, thread: usize) {
    let (mut events, mut acks) = client.reconcile(CallOption::default()).unwrap();
    let mut sent = 0;
    while !over.load(Ordering::Relaxed) {
        let event = payment(format!("load-{thread}-{sent}"), LOAD, sent % LOAD_ROWS, 1);
        // Why a send failed is in what comes back.
        let _ = block_on(events.send((event, WriteFlags::default())));
        block_on(acks.next()).expect("an acknowledgement or an error").unwrap();
        sent += 1;
    }
    block_on(events.close()).unwrap();
    assert!(block_on(acks.next()).is_none());
}

fn upload_until(client: &Stub, over: &AtomicBool) -> Vec<(String, usize)> {
    let mut whole = Vec::new();
    while !over.load(Ordering::Relaxed) {
        let customer = format!("whole-{}", whole.len());
        let rows = 1 + whole.len() % 20;
        let batch_id = (whole.len() % 2 == 0).then_some(&customer[..]);
        let result = upload(client, &customer, rows, batch_id).unwrap();
        assert_eq!(result.created_count, rows as i64);
        whole.push((customer, rows));
    }
    whole
}
