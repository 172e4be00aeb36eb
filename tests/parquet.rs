//! What `export --format parquet` writes, as Python reads it: pyarrow and DuckDB get the sums of `summary`. Skipped,
//! with the reason printed, where they cannot be had.
//!
//! BILLSTREAM_TEST_PARQUET_ROWS is the number of invoices; `=1000000 cargo test --release --test parquet` takes a
//! minute.

#[path = "common/skip.rs"]
#[allow(dead_code)] // It has no need of a patched core.
mod skip;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Prints `CURRENCY invoice_count total_cents paid_cents` of each currency, sorted: what each of the two reads.
const SUMS: &str = r#"
import sys, duckdb, pyarrow.parquet as parquet

file = sys.argv[1]
table = parquet.read_table(file)
sums = table.group_by("currency").aggregate(
    [("sequence", "count"), ("total_amount_cents", "sum"), ("paid_cents", "sum")])
of_arrow = sorted(tuple(row.values()) for row in sums.select(
    ["currency", "sequence_count", "total_amount_cents_sum", "paid_cents_sum"]).to_pylist())
of_duckdb = duckdb.sql(
    "SELECT currency, count(*), sum(total_amount_cents), sum(paid_cents)"
    f" FROM '{file}' GROUP BY currency ORDER BY currency").fetchall()
assert of_arrow == of_duckdb, (of_arrow, of_duckdb)
assert str(table.schema.field("issued_at").type) == "timestamp[us, tz=UTC]", table.schema
assert table.column("sequence").to_pylist() == list(range(1, len(table) + 1))
assert {"OPEN", "PARTIALLY_PAID"} <= set(table.column("status").unique().to_pylist())
for row in of_duckdb:
    print(*row)
"#;

/// An interpreter with both, kept between runs below target/; or why there is none.
fn python() -> Result<PathBuf, String> {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR"));
    fs::create_dir_all(dir).map_err(|e| format!("{}: {e}", dir.display()))?;
    let (venv, lock) = (dir.join("parquet-python"), dir.join("parquet-python.lock"));
    // The lock goes with the file.
    let lock = File::create(lock).map_err(|e| e.to_string())?;
    lock.lock().map_err(|e| e.to_string())?;
    let interpreter = venv.join("bin/python");
    let imports = ["-c", "import duckdb, pyarrow"];
    if succeeds(Command::new(&interpreter).args(imports)).is_err() {
        // What an earlier run may have left half done.
        let _ = fs::remove_dir_all(&venv);
        succeeds(Command::new("python3").args(["-m", "venv"]).arg(&venv))?;
        let pip =
            "-m pip install --quiet --disable-pip-version-check --only-binary=:all: duckdb pyarrow";
        succeeds(Command::new(&interpreter).args(pip.split(' ')))?;
    }
    Ok(interpreter)
}

/// What a command prints, or its last words.
fn succeeds(command: &mut Command) -> Result<String, String> {
    let name = format!("{:?}", command.get_program());
    let output = command.output().map_err(|e| format!("{name}: {e}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match output.status.success() {
        true => Ok(text(&output.stdout)),
        false => {
            Err(format!("{name}: {}", text(&output.stderr).lines().last().unwrap_or("no message")))
        }
    }
}

fn billstream(dir: &Path, args: &str) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_billstream"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("BILLSTREAM_")) {
        command.env_remove(name);
    }
    succeeds(command.current_dir(dir).args(args.split(' ')))
        .unwrap_or_else(|why| panic!("{args}: {why}"))
}

/// The one of docs/files.md.
fn program_of_the_page() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/files.md");
    let page = fs::read_to_string(path).unwrap();
    let (_, program) = page.split_once("\n```python\n").expect("a block of Python");
    program.split_once("\n```").expect("its end").0.to_owned()
}

#[test]
fn python_reads_the_sums_of_summary_in_an_exported_parquet() {
    let rows: u64 = match std::env::var("BILLSTREAM_TEST_PARQUET_ROWS") {
        Ok(rows) => rows.parse().expect("a number of invoices"),
        Err(_) => 50_000,
    };
    let python = match python() {
        Ok(python) => python,
        Err(why) => return skip::skip(&format!("no pyarrow and DuckDB: {why}")),
    };
    let dir = tempfile::tempdir().unwrap();
    fs::write(
        dir.path().join("in.csv"),
        billstream(dir.path(), &format!("generate --rows {rows} --seed 1")),
    )
    .unwrap();
    billstream(dir.path(), "import in.csv --db bills.db");
    let invoices = billstream(dir.path(), "export --db bills.db --columns invoice_id,currency");
    let paid = invoices.lines().skip(1).step_by(7).enumerate();
    let paid = paid.map(|(i, invoice)| format!("e{i},{invoice},1,2024-01-01T00:00:00Z\n"));
    let events = format!(
        "event_id,invoice_id,currency,amount_cents,received_at\n{}",
        paid.collect::<String>()
    );
    fs::write(dir.path().join("events.csv"), events).unwrap();
    billstream(dir.path(), "reconcile events.csv --db bills.db");

    billstream(dir.path(), "export --db bills.db --format parquet -o invoices.parquet");
    let read = |program: &str| {
        let mut read = Command::new(&python);
        succeeds(read.current_dir(dir.path()).args(["-c", program, "invoices.parquet"])).unwrap()
    };
    assert!(read(&program_of_the_page()).contains("GBP"));
    let read = read(SUMS);
    let summary = billstream(dir.path(), "summary --db bills.db --format ndjson");
    let summary: serde_json::Value = serde_json::from_str(&summary).unwrap();
    assert_eq!(summary["invoice_count"], rows);
    let totals = summary["totals"].as_array().unwrap().iter();
    let expected: String = totals
        .map(|total| {
            let currency = total["currency"].as_str().unwrap();
            let [count, cents, paid] =
                ["invoice_count", "total_cents", "paid_cents"].map(|name| &total[name]);
            format!("{currency} {count} {cents} {paid}\n")
        })
        .collect();
    assert_eq!(read, expected);
    print!("{rows} invoices:\n{read}");
}
