//! The statements of BulkCreate.

use std::collections::BTreeMap;

use rusqlite::types::Value;
use rusqlite::{ffi, params, Connection, OptionalExtension};
use tonic::Status;

use crate::proto::{BulkCommit, BulkResult, CreateInvoiceRequest, CurrencyTotal, InvoiceStatus};
use crate::store::{extended_code, last_sequence, overflow, totals, Result, INSERT_INVOICE};
use crate::totals::Totals;

/// Creates the invoices of an upload, in the transaction or savepoint that is open.
pub fn create(
    connection: &Connection,
    invoices: &[CreateInvoiceRequest],
    commit: Option<&BulkCommit>,
) -> Result<BulkResult> {
    let batch_id = commit.map(|commit| commit.batch_id.as_str()).unwrap_or_default();
    if let Some(result) = applied(connection, batch_id, invoices.len())? {
        return Ok(result);
    }
    let mut insert = connection.prepare_cached(INSERT_INVOICE)?;
    let mut totals = BTreeMap::new();
    let kept = Totals::of(connection)?;
    let first = last_sequence(connection)? + 1;
    for invoice in invoices {
        insert_invoice(&mut insert, invoice)?;
        let more = [1, invoice.total_amount_cents, 0];
        if !kept.add(connection, &invoice.customer_id, &invoice.currency, more)? {
            return Err(overflow().into());
        }
        let (count, cents): &mut (i64, i64) = totals.entry(invoice.currency.as_str()).or_default();
        *count += 1;
        *cents = cents.checked_add(invoice.total_amount_cents).ok_or_else(overflow)?;
    }
    let count = invoices.len() as i64;
    let (first_sequence, last_sequence) =
        if count == 0 { (0, 0) } else { (first, first + count - 1) };
    if kept == Totals::AtCommit && count > 0 {
        connection
            .prepare_cached("UPDATE ledger SET last_sequence = ?1 WHERE id = 1")?
            .execute([last_sequence])?;
    }
    if !batch_id.is_empty() {
        connection
            .prepare_cached("INSERT INTO bulk_commits VALUES (?1, ?2, ?3, ?4, NULL)")?
            .execute(params![batch_id, count, first_sequence, last_sequence])?;
    }
    let totals = totals.into_iter().map(|(currency, (invoice_count, total_cents))| CurrencyTotal {
        currency: currency.to_owned(),
        invoice_count,
        total_cents,
        paid_cents: 0,
        outstanding_cents: total_cents,
        ..Default::default()
    });
    Ok(result(batch_id, (first_sequence, last_sequence), totals.collect(), false))
}

fn insert_invoice(
    insert: &mut rusqlite::CachedStatement<'_>,
    invoice: &CreateInvoiceRequest,
) -> Result<()> {
    let assigned;
    let invoice_id = if invoice.invoice_id.is_empty() {
        assigned = uuid::Uuid::now_v7().to_string();
        &assigned
    } else {
        &invoice.invoice_id
    };
    let status = match invoice.total_amount_cents {
        0 => InvoiceStatus::Paid,
        _ => InvoiceStatus::Open,
    };
    let issued_at = invoice.issued_at.unwrap_or_default();
    let done = insert.execute(params![
        invoice_id,
        invoice.customer_id,
        invoice.total_amount_cents,
        invoice.currency,
        status as i32,
        issued_at.seconds,
        issued_at.nanos,
        invoice.memo,
    ]);
    match done.as_ref().err().and_then(extended_code) {
        // A trigger looks for a taken id before the index does.
        Some(ffi::SQLITE_CONSTRAINT_UNIQUE | ffi::SQLITE_CONSTRAINT_TRIGGER) => {
            Err(Status::already_exists(format!("invoice_id {invoice_id} is taken")).into())
        }
        Some(ffi::SQLITE_CONSTRAINT_DATATYPE) => Err(overflow().into()),
        _ => Ok(done.map(drop)?),
    }
}

/// The result of an earlier upload of this name.
fn applied(connection: &Connection, batch_id: &str, rows: usize) -> Result<Option<BulkResult>> {
    if batch_id.is_empty() {
        return Ok(None);
    }
    let sql = "SELECT count, first_sequence, last_sequence FROM bulk_commits WHERE batch_id = ?1";
    let mut statement = connection.prepare_cached(sql)?;
    let found = statement
        .query_row([batch_id], |row| Ok((row.get::<_, i64>(0)?, row.get(1)?, row.get(2)?)))
        .optional()?;
    let Some((count, first, last)) = found else { return Ok(None) };
    if count != rows as i64 {
        let message = format!("batch_id {batch_id} was applied with {count} invoices");
        return Err(Status::aborted(message).into());
    }
    // Nothing was paid when the first result was sent.
    let sql = "SELECT currency, count(*), sum(total_amount_cents), 0 FROM invoices \
               WHERE sequence BETWEEN ?1 AND ?2 GROUP BY currency ORDER BY currency";
    let totals = totals(connection, sql, vec![Value::Integer(first), Value::Integer(last)])?;
    Ok(Some(result(batch_id, (first, last), totals, true)))
}

fn result(
    batch_id: &str,
    (first_sequence, last_sequence): (i64, i64),
    totals: Vec<CurrencyTotal>,
    already_applied: bool,
) -> BulkResult {
    BulkResult {
        created_count: totals.iter().map(|total| total.invoice_count).sum(),
        total_cents: if let [total] = &totals[..] { Some(total.total_cents) } else { None },
        totals,
        first_sequence,
        last_sequence,
        batch_id: batch_id.to_owned(),
        already_applied,
        ..Default::default()
    }
}
