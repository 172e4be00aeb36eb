//! Files of rows for the next program: which columns, in which notation and format, and where to.
//!
//! [`columns`] says what of a row is written, [`target`] where to, [`parquet`] is the format that is no text.

mod columns;
#[cfg(feature = "parquet")]
mod parquet;
mod target;

use std::io::{self, IsTerminal};
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::failure::{Failure, Result};
use super::notation::Notation;
use super::output::{Cell, Columns, Format, RowWriter, Style};
use super::reading::{delimiter, pair, LayoutArgs, Pair};
use super::values::quoted;
pub use columns::RowKind;
use target::{Output, Target};

/// How a file of rows is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FileFormat {
    /// For people: aligned columns
    Table,
    /// RFC 4180 with a header, lines end in LF
    Csv,
    /// One JSON object a line
    Ndjson,
    /// Apache Parquet, with Snappy: for DuckDB, pandas, Spark
    Parquet,
}

impl FileFormat {
    fn of_text(self) -> Option<Format> {
        match self {
            FileFormat::Table => Some(Format::Table),
            FileFormat::Csv => Some(Format::Csv),
            FileFormat::Ndjson => Some(Format::Ndjson),
            FileFormat::Parquet => None,
        }
    }
}

/// How rows are written, and where to.
#[derive(Args)]
#[command(next_help_heading = "How the rows are written")]
pub struct WritingArgs {
    /// The columns to write, as a list with commas, or `all` [default: in a csv of invoices the six that import
    /// reads, so that export gives back what import took; else all]
    #[arg(long, value_name = "NAMES")]
    columns: Option<String>,
    /// What the file calls a column, such as invoice_id=InvoiceNo, as import takes it; may be repeated, or a list
    /// with commas
    #[arg(long, value_name = "COLUMN=NAME", value_delimiter = ',', value_parser = pair)]
    map: Vec<Pair>,
    /// A mapping file of import: the rows are written so that import reads them with it (docs/files.md)
    #[arg(long, value_name = "FILE")]
    mapping: Option<PathBuf>,
    /// How to write [default: table for list, csv for export]
    #[arg(long, value_enum, value_name = "FORMAT")]
    format: Option<FileFormat>,
    /// What is between the columns of a csv, such as ; or tab [default: ,]
    #[arg(long, value_name = "CHAR", value_parser = delimiter)]
    delimiter: Option<u8>,
    #[command(flatten)]
    notation: Notation,
    /// Let no text of a csv be a formula in a spreadsheet: texts are in quotes, and one that begins with = + - @,
    /// a tab or a line end has a ' before it, which is then part of it
    #[arg(long)]
    safe_cells: bool,
    /// The file to write, which has its name when it is whole [default: stdout]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

impl WritingArgs {
    /// Whether the rows go to a file that this program makes.
    pub fn is_to_a_file(&self) -> bool {
        self.output.is_some()
    }

    /// As import has it, with what the mapping file says.
    fn layout(&self) -> Result<LayoutArgs> {
        let layout = LayoutArgs {
            map: self.map.clone(),
            mapping: self.mapping.clone(),
            delimiter: self.delimiter,
            notation: self.notation.clone(),
            ..LayoutArgs::default()
        };
        let layout = layout.with_mapping()?;
        match layout.encoding {
            Some(_) => Err(usage("the mapping says an encoding; export writes UTF-8")),
            None => Ok(layout),
        }
    }

    /// What is said of cells that are not to be written as they are.
    fn style(&self, notation: &Notation) -> Result<Option<Style>> {
        let amounts = notation.amounts()?;
        let is_of_times = notation.time_format.is_some() || notation.timezone.is_some();
        let times = is_of_times.then(|| notation.times_out()).transpose()?;
        let is_plain = amounts.is_minor() && !is_of_times && !self.safe_cells;
        Ok((!is_plain).then_some(Style { amounts, times, safe_cells: self.safe_cells }))
    }

    /// Refuses what means nothing in `format`.
    fn check(
        &self,
        format: FileFormat,
        delimiter: Option<u8>,
        style: Option<&Style>,
    ) -> Result<()> {
        let is_csv = format == FileFormat::Csv;
        let path = self.output.as_deref().unwrap_or("".as_ref());
        let is_named_parquet = path.extension().is_some_and(|extension| extension == "parquet");
        let wrong = match format {
            _ if self.safe_cells && !is_csv => "--safe-cells is about a csv",
            _ if delimiter.is_some() && !is_csv => "--delimiter is about a csv",
            FileFormat::Parquet if style.is_some() => {
                "a parquet has amounts and times as numbers, in minor units and in microseconds of UTC: \
                 --decimal, --time-format and --timezone are about text"
            }
            FileFormat::Parquet if self.output.is_none() && io::stdout().is_terminal() => {
                "a parquet is not for a terminal: name a file with --output"
            }
            FileFormat::Parquet => return Ok(()),
            _ if is_named_parquet => "a file named .parquet: --format parquet writes one",
            _ => return Ok(()),
        };
        Err(usage(wrong))
    }
}

fn usage(message: &str) -> Failure {
    Failure::Usage(message.to_owned())
}

/// A writer of rows that all have the same cells.
trait Rows {
    fn row(&mut self, cells: &[Cell]) -> Result<()>;
    /// Brings out what can be read by now.
    fn end_page(&mut self) -> Result<()>;
    /// Brings out what was written, of rows that are not all there are.
    fn flush(&mut self) -> Result<()>;
    /// Brings out the end of all rows.
    fn finish(&mut self) -> Result<()>;
}

impl Rows for RowWriter<Output> {
    fn row(&mut self, cells: &[Cell]) -> Result<()> {
        RowWriter::row(self, cells)
    }

    fn end_page(&mut self) -> Result<()> {
        RowWriter::end_page(self)
    }

    fn flush(&mut self) -> Result<()> {
        RowWriter::flush(self)
    }

    fn finish(&mut self) -> Result<()> {
        RowWriter::flush(self)
    }
}

/// The rows that a command writes.
pub struct RowFile {
    rows: Box<dyn Rows>,
    target: Target,
    format: FileFormat,
    /// What cells are to be that a file does not have, as it is said elsewhere.
    fixed: Vec<(usize, String)>,
}

impl RowFile {
    /// Where `args` say, in the format `default` unless they say another one.
    pub fn create(args: &WritingArgs, default: FileFormat, kind: &RowKind) -> Result<RowFile> {
        let format = args.format.unwrap_or(default);
        let layout = args.layout()?;
        let style = args.style(&layout.notation)?;
        args.check(format, layout.delimiter, style.as_ref())?;
        let columns = kind.select(args.columns.as_deref(), &layout, format == FileFormat::Csv)?;
        let fixed = kind.fixed(&layout)?;
        let (target, out) = Target::open(args.output.as_deref())?;
        let name = target.name();
        let delimiter = layout.delimiter.unwrap_or(b',');
        let rows = match format.of_text() {
            Some(text) => Box::new(RowWriter::styled(&name, text, columns, style, delimiter, out)?),
            None => parquet_rows(&name, columns, kind, out)?,
        };
        Ok(RowFile { rows, target, format, fixed })
    }

    /// Writes a row of the cells that its kind has.
    pub fn row(&mut self, cells: &[Cell]) -> Result<()> {
        let mut scratch = String::new();
        for (cell, value) in &self.fixed {
            let is = cells[*cell].text(&mut scratch);
            if is != value {
                let first = quoted(cells[0].text(&mut String::new()));
                let (is, value) = (quoted(is), quoted(value));
                let message =
                    format!("row {first}: {is}, where the mapping sets {value} for each row");
                return Err(Failure::Failed(message));
            }
        }
        self.rows.row(cells)
    }

    /// Brings out all rows written, as far as the format lets them be read before its end.
    pub fn end_page(&mut self) -> Result<()> {
        self.rows.end_page()
    }

    /// Whether rows before a failure are of use: whoever reads stdout has them.
    pub fn keeps_what_came(&self) -> bool {
        self.target.is_stdout() && self.format != FileFormat::Parquet
    }

    /// Ends the output. After a failure a file of ours is removed, and stdout has what came before.
    pub fn end(mut self, result: Result<()>) -> Result<()> {
        if result.is_ok() {
            self.rows.finish()?;
            // Whatever it holds back is in the file then.
            drop(self.rows);
            return self.target.keep();
        }
        match self.keeps_what_came() {
            true => self.rows.flush().and(result),
            false => result,
        }
    }
}

#[cfg(feature = "parquet")]
fn parquet_rows(
    name: &str,
    columns: Columns,
    kind: &RowKind,
    out: Output,
) -> Result<Box<dyn Rows>> {
    Ok(Box::new(parquet::ParquetWriter::new(name, columns, kind.example, out)?))
}

#[cfg(not(feature = "parquet"))]
fn parquet_rows(_: &str, _: Columns, _: &RowKind, _: Output) -> Result<Box<dyn Rows>> {
    Err(usage("--format parquet is not in this program: it was built without the feature `parquet` of cargo"))
}
