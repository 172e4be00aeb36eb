//! An upload before its commit: valid invoices outside the database, in memory and then in a
//! temporary file without a name, which the system removes with the process.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, Write};
use std::path::Path;

use sha2::{Digest as _, Sha256};

use crate::error::{Error, Result};
use crate::model::{NewInvoice, Timestamp};

/// Bytes of a record before its strings.
const HEADER: usize = 8 + 8 + 4 + 2 + 2 + 2 + 2;

/// The invoices of an upload, in their order.
#[derive(Debug, Default)]
pub struct Staged {
    /// The earlier records.
    file: Option<File>,
    /// The later ones.
    memory: Vec<u8>,
    rows: usize,
    /// Of the records in the file.
    hash: Sha256,
}

/// SHA-256 of the records of an upload.
pub type Digest = [u8; 32];

impl Staged {
    /// Appends an invoice, in memory.
    pub fn push(&mut self, invoice: &NewInvoice<'_>) {
        let strings = [invoice.invoice_id, invoice.customer_id, invoice.currency, invoice.memo];
        self.memory.extend_from_slice(&invoice.total_amount_cents.to_le_bytes());
        self.memory.extend_from_slice(&invoice.issued_at.seconds.to_le_bytes());
        self.memory.extend_from_slice(&invoice.issued_at.nanos.to_le_bytes());
        for string in strings {
            // OK because validation bounds every string far below 64 KiB.
            let length = u16::try_from(string.len()).expect("a valid string is short");
            self.memory.extend_from_slice(&length.to_le_bytes());
        }
        strings.iter().for_each(|string| self.memory.extend_from_slice(string.as_bytes()));
        self.rows += 1;
    }

    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Bytes that are held in memory.
    pub fn memory_bytes(&self) -> usize {
        self.memory.len()
    }

    /// Tells one content from another, wherever it waits: invoices as the client sent them (without an
    /// `invoice_id` where it sent none), in their order.
    pub fn digest(&self) -> Digest {
        self.hash.clone().chain_update(&self.memory).finalize().into()
    }

    /// Moves what is in memory to the file, which is made in `dir` at the first time. Blocks.
    pub fn spill(&mut self, dir: &Path) -> Result<()> {
        let mut write = || -> io::Result<()> {
            let file = match &mut self.file {
                Some(file) => file,
                None => self.file.insert(tempfile::tempfile_in(dir)?),
            };
            file.write_all(&self.memory)
        };
        write().map_err(|e| {
            let full =
                matches!(e.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
            let why = if full { "the disk is full".to_owned() } else { e.to_string() };
            Error::Unavailable(format!("cannot keep the upload: {why}"))
        })?;
        self.hash.update(&self.memory);
        self.memory.clear();
        Ok(())
    }

    /// Gives each invoice to `each`, in order, from the first. Blocks.
    pub fn for_each(
        &mut self,
        mut each: impl FnMut(usize, NewInvoice<'_>) -> Result<()>,
    ) -> Result<()> {
        let mut input: Box<dyn Read> = match &mut self.file {
            Some(file) => {
                file.rewind().map_err(unreadable)?;
                Box::new(BufReader::with_capacity(64 << 10, file).chain(&self.memory[..]))
            }
            None => Box::new(&self.memory[..]),
        };
        let mut strings = Vec::new();
        for row in 0..self.rows {
            let mut header = [0; HEADER];
            input.read_exact(&mut header).map_err(unreadable)?;
            let invoice = read_record(&header, &mut input, &mut strings)?;
            each(row, invoice)?;
        }
        Ok(())
    }
}

fn read_record<'a>(
    header: &[u8; HEADER],
    input: &mut dyn Read,
    strings: &'a mut Vec<u8>,
) -> Result<NewInvoice<'a>> {
    let (numbers, lengths) = header.split_at(20);
    // OK because each slice has the length that its type needs.
    let i64_at = |at| i64::from_le_bytes(numbers[at..at + 8].try_into().expect("8 bytes"));
    let nanos = i32::from_le_bytes(numbers[16..].try_into().expect("4 bytes"));
    let length = |i: usize| usize::from(u16::from_le_bytes([lengths[2 * i], lengths[2 * i + 1]]));
    strings.resize((0..4).map(length).sum(), 0);
    input.read_exact(strings).map_err(unreadable)?;
    let text = std::str::from_utf8(strings)
        .map_err(|e| Error::Internal(format!("a staged upload has changed: {e}")))?;
    let (invoice_id, text) = text.split_at(length(0));
    let (customer_id, text) = text.split_at(length(1));
    let (currency, memo) = text.split_at(length(2));
    let issued_at = Timestamp { seconds: i64_at(8), nanos };
    let total_amount_cents = i64_at(0);
    Ok(NewInvoice { invoice_id, customer_id, total_amount_cents, currency, issued_at, memo })
}

fn unreadable(error: io::Error) -> Error {
    Error::Unavailable(format!("cannot read the upload that was kept: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Fields = (String, String, i64, String, (i64, i32), String);

    fn invoice(fields: &Fields) -> NewInvoice<'_> {
        let (invoice_id, customer_id, total_amount_cents, currency, (seconds, nanos), memo) =
            fields;
        NewInvoice {
            invoice_id,
            customer_id,
            total_amount_cents: *total_amount_cents,
            currency,
            issued_at: Timestamp { seconds: *seconds, nanos: *nanos },
            memo,
        }
    }

    proptest! {
        #[test]
        fn what_goes_in_comes_out_twice_wherever_it_waits(
            rows in prop::collection::vec(
                (".{0,40}", ".{1,40}", any::<i64>(), "[A-Z]{3}", any::<(i64, i32)>(), ".{0,200}"), 0..20),
            spill_after in prop::collection::vec(any::<bool>(), 20),
        ) {
            let dir = tempfile::tempdir().unwrap();
            let mut staged = Staged::default();
            for (fields, spill) in rows.iter().zip(spill_after) {
                staged.push(&invoice(fields));
                if spill {
                    staged.spill(dir.path()).unwrap();
                }
            }
            for _ in 0..2 {
                let mut seen = 0;
                staged.for_each(|i, read| {
                    assert_eq!((i, read), (seen, invoice(&rows[i])));
                    seen += 1;
                    Ok(())
                }).unwrap();
                prop_assert_eq!(seen, rows.len());
            }
            let mut kept = Staged::default();
            rows.iter().for_each(|fields| kept.push(&invoice(fields)));
            prop_assert_eq!(staged.digest(), kept.digest());
            kept.push(&invoice(&rows.first().cloned().unwrap_or_default()));
            prop_assert_ne!(staged.digest(), kept.digest());
        }
    }

    #[test]
    fn a_missing_directory_is_unavailable() {
        let mut staged = Staged::default();
        let error = staged.spill(Path::new("/nonexistent")).unwrap_err();
        assert!(matches!(error, Error::Unavailable(_)), "{error:?}");
    }
}
