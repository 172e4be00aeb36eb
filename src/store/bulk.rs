//! BulkCreate: one job creates all invoices of an upload, or none.

use rusqlite::{named_params, Connection, OptionalExtension};

use crate::error::{Error, Result};
use crate::model::{Created, NewInvoice, Status};
use crate::store::error::{is_overflow, is_taken};
use crate::store::read::{last_sequence, totals};
use crate::store::sql;
use crate::store::staged::Staged;
use crate::store::write::IsUnwanted;

/// Rows between two looks at whether the upload is still wanted.
const ROWS_A_LOOK: usize = 256;

/// Creates the invoices of `staged`. With a `batch_id` (not empty) that was applied before, gives
/// its first result instead.
pub fn create(
    conn: &Connection,
    is_unwanted: IsUnwanted<'_>,
    batch_id: &str,
    staged: &mut Staged,
) -> Result<Created> {
    if !batch_id.is_empty() {
        if let Some(created) = find_applied(conn, batch_id, staged.rows())? {
            return Ok(created);
        }
    }
    let before = last_sequence(conn)?;
    insert_all(conn, is_unwanted, before, staged)?;
    let count = staged.rows() as i64;
    let created = Created {
        count,
        first_sequence: if count == 0 { 0 } else { before + 1 },
        last_sequence: if count == 0 { 0 } else { before + count },
        ..Created::default()
    };
    if !batch_id.is_empty() {
        conn.prepare_cached(sql::INSERT_BULK_COMMIT)?.execute(named_params! {
            ":batch_id": batch_id,
            ":count": count,
            ":first_sequence": created.first_sequence,
            ":last_sequence": created.last_sequence,
        })?;
    }
    with_totals(conn, created)
}

fn find_applied(conn: &Connection, batch_id: &str, rows: usize) -> Result<Option<Created>> {
    let applied = conn
        .prepare_cached(sql::FIND_BULK_COMMIT)?
        .query_row(named_params! { ":batch_id": batch_id }, |row| {
            Ok(Created {
                count: row.get(0)?,
                first_sequence: row.get(1)?,
                last_sequence: row.get(2)?,
                already_applied: true,
                ..Created::default()
            })
        })
        .optional()?;
    match applied {
        None => Ok(None),
        Some(created) if created.count == rows as i64 => with_totals(conn, created).map(Some),
        Some(created) => Err(Error::Aborted(format!(
            "batch_id {batch_id:?} was applied with {} invoices, and this upload has {rows}",
            created.count
        ))),
    }
}

fn with_totals(conn: &Connection, mut created: Created) -> Result<Created> {
    created.totals = totals(
        conn,
        sql::CREATED_TOTALS,
        named_params! {
            ":first_sequence": created.first_sequence,
            ":last_sequence": created.last_sequence,
        },
    )?;
    Ok(created)
}

fn insert_all(
    conn: &Connection,
    is_unwanted: IsUnwanted<'_>,
    before: i64,
    staged: &mut Staged,
) -> Result<()> {
    let mut insert = conn.prepare_cached(sql::INSERT_INVOICE)?;
    staged.for_each(|i, invoice| {
        if i % ROWS_A_LOOK == 0 && is_unwanted() {
            return Err(Error::Cancelled);
        }
        let assigned;
        let invoice_id = if invoice.invoice_id.is_empty() {
            assigned = uuid::Uuid::now_v7().to_string();
            &assigned
        } else {
            invoice.invoice_id
        };
        insert
            .execute(named_params! {
                ":sequence": before + 1 + i as i64,
                ":invoice_id": invoice_id,
                ":customer_id": invoice.customer_id,
                ":total_amount_cents": invoice.total_amount_cents,
                ":currency": invoice.currency,
                ":status": Status::of(invoice.total_amount_cents, 0) as i32,
                ":issued_at": invoice.issued_at.seconds,
                ":issued_at_nanos": invoice.issued_at.nanos,
                ":memo": invoice.memo,
            })
            .map(|_| ())
            .map_err(|error| explain(error, i, invoice_id, &invoice))
    })
}

fn explain(error: rusqlite::Error, i: usize, invoice_id: &str, invoice: &NewInvoice<'_>) -> Error {
    if is_taken(&error) {
        return Error::AlreadyExists(format!("requests[{i}].invoice_id: {invoice_id:?} is taken"));
    }
    if is_overflow(&error) {
        return Error::invalid(
            format!("requests[{i}].total_amount_cents"),
            format!(
                "{} is too much: the {} total would leave 64 bits",
                invoice.total_amount_cents, invoice.currency
            ),
        );
    }
    error.into()
}
