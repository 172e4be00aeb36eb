//! BulkCreate: one job creates all invoices of an upload, or none.

use rusqlite::{named_params, params, Connection, OptionalExtension};

use crate::error::{Error, Result};
use crate::model::{Created, CurrencyTotal, NewInvoice, Status, Sums};
use crate::store::sqlite::error::is_taken;
use crate::store::sqlite::sql;
use crate::store::sqlite::summary::sums;
use crate::store::sqlite::totals::Totals;
use crate::store::staged::{Digest, Staged};

/// Rows between two looks at whether the upload is still wanted.
const ROWS_A_LOOK: usize = 256;

/// See [`Transaction::create`](crate::store::write::Transaction::create).
pub fn create(
    conn: &Connection,
    totals: &mut Totals,
    batch_id: &str,
    staged: &mut Staged,
    is_unwanted: &dyn Fn() -> bool,
) -> Result<Created> {
    let digest = if batch_id.is_empty() { None } else { Some(staged.digest()) };
    if let Some(digest) = &digest {
        if let Some(created) = find_applied(conn, batch_id, staged.rows(), digest)? {
            return Ok(created);
        }
    }
    let count = staged.rows() as i64;
    let before = totals.give_sequences(conn, count)?;
    let created = Created {
        count,
        totals: insert_all((conn, totals), before, staged, is_unwanted)?,
        first_sequence: if count == 0 { 0 } else { before + 1 },
        last_sequence: if count == 0 { 0 } else { before + count },
        ..Created::default()
    };
    if let Some(digest) = &digest {
        conn.prepare_cached(sql::INSERT_BULK_COMMIT)?.execute(named_params! {
            ":batch_id": batch_id,
            ":count": count,
            ":first_sequence": created.first_sequence,
            ":last_sequence": created.last_sequence,
            ":digest": digest,
        })?;
    }
    Ok(created)
}

fn find_applied(
    conn: &Connection,
    batch_id: &str,
    rows: usize,
    digest: &Digest,
) -> Result<Option<Created>> {
    let applied = conn
        .prepare_cached(sql::FIND_BULK_COMMIT)?
        .query_row(named_params! { ":batch_id": batch_id }, |row| {
            let created = Created {
                count: row.get(0)?,
                first_sequence: row.get(1)?,
                last_sequence: row.get(2)?,
                already_applied: true,
                ..Created::default()
            };
            Ok((created, row.get::<_, Option<Digest>>(3)?))
        })
        .optional()?;
    let Some((created, kept)) = applied else { return Ok(None) };
    // Uploads of the first schema have no digest.
    if created.count == rows as i64 && kept.is_none_or(|kept| kept == *digest) {
        return with_totals(conn, created).map(Some);
    }
    Err(Error::Aborted(format!(
        "batch_id {batch_id:?} was used for other content, {} invoices: this upload has {rows}, and created \
         nothing",
        created.count
    )))
}

fn with_totals(conn: &Connection, mut created: Created) -> Result<Created> {
    created.totals = sums(
        conn,
        sql::CREATED_TOTALS,
        named_params! {
            ":first_sequence": created.first_sequence,
            ":last_sequence": created.last_sequence,
        },
    )?;
    Ok(created)
}

/// Returns the totals of what it created.
fn insert_all(
    (conn, totals): (&Connection, &mut Totals),
    before: i64,
    staged: &mut Staged,
    is_unwanted: &dyn Fn() -> bool,
) -> Result<Vec<CurrencyTotal>> {
    let mut insert = conn.prepare_cached(sql::INSERT_INVOICE)?;
    let mut created: Vec<CurrencyTotal> = Vec::new();
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
        let NewInvoice { customer_id, total_amount_cents, currency, issued_at, memo, .. } = invoice;
        // By position, so that no name is looked up for each row.
        let inserted = insert.execute(params![
            before + 1 + i as i64,
            invoice_id,
            customer_id,
            total_amount_cents,
            currency,
            Status::of(total_amount_cents, 0) as i32,
            issued_at.seconds,
            issued_at.nanos,
            memo,
        ]);
        inserted.map_err(|error| {
            if is_taken(&error) {
                let field = format!("requests[{i}].invoice_id");
                return Error::AlreadyExists(format!("{field}: {invoice_id:?} is taken"));
            }
            error.into()
        })?;
        let sums = Sums::of(total_amount_cents, 0, false);
        if !totals.add(conn, customer_id, currency, sums)? {
            return Err(Error::invalid(
                format!("requests[{i}].total_amount_cents"),
                format!(
                    "{total_amount_cents} is too much: the {currency} total would leave 64 bits"
                ),
            ));
        }
        count(&mut created, currency, sums)
    })?;
    created.sort_by(|a, b| a.currency.cmp(&b.currency));
    Ok(created)
}

/// Counts an invoice in the totals of its upload, which are few.
fn count(created: &mut Vec<CurrencyTotal>, currency: &str, sums: Sums) -> Result<()> {
    let known = created.iter_mut().find(|total| total.currency == currency);
    let Some(total) = known else {
        created.push(CurrencyTotal { currency: currency.to_owned(), sums });
        return Ok(());
    };
    let overflow = || Error::Internal(format!("a sum of {currency} leaves 64 bits"));
    total.sums = total.sums.plus(sums).ok_or_else(overflow)?;
    Ok(())
}
