//! The databases: made once from `billstream generate`, kept for the next run, copied for writes.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use compare::store;
use rusqlite::{params, Connection};

const SEED: &str = "1";

pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

#[derive(Clone)]
pub struct Data {
    pub directory: PathBuf,
    pub billstream: PathBuf,
    /// Whether they are upgraded to the schema of our program, which the others do not know.
    pub is_upgraded: bool,
}

impl Data {
    /// The database of the first `rows` generated invoices. Reads share it: one server at a time
    /// has it open, so that all find the same pages in the kernel's cache.
    pub fn base(&self, rows: usize) -> Result<PathBuf> {
        let path = self.directory.join(format!("base-{rows}.db"));
        if self.is_upgraded && !path.exists() {
            let directory = self.directory.parent().ok_or("no directory above")?.to_owned();
            let before = Data { directory, is_upgraded: false, ..self.clone() }.base(rows)?;
            fs::create_dir_all(&self.directory)?;
            fs::copy(before, &path)?;
            let mut upgrade = Command::new(&self.billstream);
            upgrade.args(["summary", "--db"]).arg(&path).env("BILLSTREAM_UPGRADE_COPY", "false");
            crate::doors::run(&mut upgrade)?;
        }
        if !path.exists() {
            eprintln!("making a database of {rows} invoices");
            let unfinished = self.directory.join("unfinished.db");
            remove(&unfinished);
            self.fill(&unfinished, rows)?;
            fs::rename(&unfinished, &path)?;
        }
        Ok(path)
    }

    /// The databases of our own program.
    pub fn upgraded(&self) -> Data {
        Data { directory: self.directory.join("upgraded"), is_upgraded: true, ..self.clone() }
    }

    /// A fresh copy for a run that writes, on disk before the run begins.
    pub fn copy(&self, rows: usize) -> Result<PathBuf> {
        let path = self.directory.join("copy.db");
        remove(&path);
        fs::copy(self.base(rows)?, &path)?;
        File::open(&path)?.sync_all()?;
        Ok(path)
    }

    fn fill(&self, path: &Path, rows: usize) -> Result<()> {
        let mut connection = store::open(path)?;
        store::migrate(&mut connection)?;
        let mut generate = Command::new(&self.billstream)
            .args(["generate", "--seed", SEED, "--rows", &rows.to_string()])
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("{}: {error}", self.billstream.display()))?;
        let output = generate.stdout.take().ok_or("no output")?;
        // Should this be cut off, the file still bears the name of one that is unfinished.
        connection.execute_batch(
            "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size = -1000000;",
        )?;
        let transaction = connection.transaction()?;
        {
            let mut insert = transaction.prepare(store::INSERT_INVOICE)?;
            for record in csv::Reader::from_reader(output).records() {
                let record = record?;
                let cents: i64 = record[2].parse()?;
                let issued_at: jiff::Timestamp = record[4].parse()?;
                let status = if cents == 0 { 3 } else { 1 };
                insert.execute(params![
                    &record[0],
                    &record[1],
                    cents,
                    &record[3],
                    status,
                    issued_at.as_second(),
                    issued_at.subsec_nanosecond(),
                    &record[5],
                ])?;
            }
        }
        transaction.commit()?;
        if !generate.wait()?.success() {
            return Err("generate failed".into());
        }
        connection.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(()))?;
        connection.close().map_err(|(_, error)| error)?;
        Ok(File::open(path)?.sync_all()?)
    }
}

fn remove(path: &Path) {
    for suffix in ["", "-wal", "-shm", "-lock"] {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        // What is not there need not be removed.
        let _ = fs::remove_file(name);
    }
}

/// Invoices of the database, in the order of `sequence`.
pub fn ids(path: &Path, limit: usize) -> Result<Vec<(String, String, i64)>> {
    let connection = Connection::open(path)?;
    let sql = "SELECT invoice_id, currency, total_amount_cents FROM invoices \
               WHERE total_amount_cents > 1 ORDER BY sequence LIMIT ?1";
    let mut statement = connection.prepare(sql)?;
    let rows =
        statement.query_map([limit as i64], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}
