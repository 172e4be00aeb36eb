//! Rows on their way into a message.

use protobuf::Message;

use super::{Code, Error, Result};

/// The most bytes after which a message goes: a quarter of what a server takes by default, so that one more
/// row fits whatever its size.
const FULL_BYTES: usize = 1 << 20;

/// The rows of one message, encoded: every message of rows has them as its field 1.
#[derive(Default)]
pub struct Batch {
    bytes: Vec<u8>,
    rows: usize,
}

/// The tag of field 1 with a message in it.
const ROW: u8 = 1 << 3 | 2;

/// Field 2 of a batch of events, which is true.
const VALIDATE_ONLY: [u8; 2] = [2 << 3, 1];

impl Batch {
    pub fn push(&mut self, row: &impl Message) -> Result<()> {
        self.bytes.push(ROW);
        row.write_length_delimited_to_vec(&mut self.bytes).map_err(|error| {
            Error::new(Code::InvalidArgument, format!("a row cannot be encoded: {error}"))
        })?;
        self.rows += 1;
        Ok(())
    }

    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// Whether it is to be sent before another row comes.
    pub fn is_full(&self, max_rows: usize) -> bool {
        self.rows >= max_rows || self.bytes.len() >= FULL_BYTES
    }

    /// The message, which says that it is a trial; what comes next is in another one.
    pub fn take_validate_only(&mut self) -> Vec<u8> {
        self.bytes.extend(VALIDATE_ONLY);
        self.take()
    }

    /// The message; what comes next is in another one.
    pub fn take(&mut self) -> Vec<u8> {
        self.rows = 0;
        let next = Vec::with_capacity(self.bytes.len());
        std::mem::replace(&mut self.bytes, next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::report::{CreateInvoiceBatch, CreateInvoiceRequest, ReconcileEventBatch};

    #[test]
    fn it_is_what_the_generated_code_writes() {
        let row = |memo: &str| CreateInvoiceRequest { memo: memo.to_owned(), ..Default::default() };
        let requests = vec![row("a"), row(""), row(&"long ".repeat(1000))];
        let mut batch = Batch::default();
        for _ in 0..2 {
            requests.iter().for_each(|row| batch.push(row).unwrap());
            let bytes = batch.take();
            let whole = CreateInvoiceBatch { requests: requests.clone(), ..Default::default() };
            assert_eq!(bytes, whole.write_to_bytes().unwrap());
        }
        assert!(batch.is_empty());
        assert_eq!(batch.take(), ReconcileEventBatch::new().write_to_bytes().unwrap());
        batch.push(&row("a")).unwrap();
        let trial = ReconcileEventBatch::parse_from_bytes(&batch.take_validate_only()).unwrap();
        assert!(trial.validate_only);
        assert_eq!(trial.events.len(), 1);
    }

    #[test]
    fn it_is_full_by_rows_and_by_bytes() {
        let mut batch = Batch::default();
        let small = CreateInvoiceRequest::default();
        batch.push(&small).unwrap();
        assert!(!batch.is_full(2));
        batch.push(&small).unwrap();
        assert!(batch.is_full(2));
        batch.push(&CreateInvoiceRequest { memo: "m".repeat(FULL_BYTES), ..small }).unwrap();
        assert!(batch.is_full(100));
    }
}
