//! Rows as Apache Parquet: whole numbers for amounts and times, so that no reader rounds.
//!
//! A column is written after the other, so the rows of a group wait in memory. A file without its end, which is
//! written last, is none to any reader.

use std::mem;
use std::sync::Arc;

use bytes::Bytes;
use parquet::basic::{Compression, LogicalType, Repetition, TimeUnit, Type as Physical};
use parquet::data_type::{ByteArray, ByteArrayType, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedColumnWriter, SerializedFileWriter};
use parquet::schema::types::{Type, TypePtr};

use super::super::failure::{Failure, Result};
use super::super::output::{Cell, Columns};
use super::super::stderr::say;
use super::target::Output;
use super::Rows;

/// Of a group of rows, which readers take at a time: 128 Ki rows, and of long texts fewer.
const GROUP_ROWS: usize = 128 << 10;
const GROUP_BYTES: usize = 32 << 20;

pub struct ParquetWriter {
    name: String,
    file: SerializedFileWriter<Output>,
    /// For each column, which cell of the row goes there.
    cells: Vec<usize>,
    group: Vec<Values>,
    rows: usize,
    bytes: usize,
    /// Times that had more digits than a microsecond has.
    cut_times: u64,
}

/// The values of a column in the group at hand.
enum Values {
    Numbers(Vec<i64>),
    /// One behind the other, and where each ends.
    Texts(Vec<u8>, Vec<usize>),
}

impl ParquetWriter {
    /// A writer of rows like `example` to `out`, which messages call `name`.
    pub fn new(
        name: &str,
        columns: Columns,
        example: &[Cell],
        out: Output,
    ) -> Result<ParquetWriter> {
        let Columns { cells, headers } = columns;
        let failed = |error| failure(name, error);
        let fields = headers.iter().zip(&cells).map(|(name, &cell)| field(name, example[cell]));
        let fields = fields.collect::<std::result::Result<_, _>>().map_err(failed)?;
        let schema =
            Type::group_type_builder("rows").with_fields(fields).build().map_err(failed)?;
        let properties = WriterProperties::builder()
            .set_compression(Compression::SNAPPY)
            .set_created_by(concat!("billstream version ", env!("CARGO_PKG_VERSION")).to_owned())
            .build();
        let file = SerializedFileWriter::new(out, Arc::new(schema), Arc::new(properties));
        Ok(ParquetWriter {
            name: name.to_owned(),
            file: file.map_err(failed)?,
            group: cells.iter().map(|&cell| Values::like(example[cell])).collect(),
            cells,
            rows: 0,
            bytes: 0,
            cut_times: 0,
        })
    }

    fn write_group(&mut self) -> std::result::Result<(), ParquetError> {
        let mut group = self.file.next_row_group()?;
        for values in &mut self.group {
            let mut column = group.next_column()?.expect("as many columns as the schema has");
            values.write_to(&mut column)?;
            column.close()?;
        }
        group.close()?;
        (self.rows, self.bytes) = (0, 0);
        Ok(())
    }
}

impl Rows for ParquetWriter {
    fn row(&mut self, cells: &[Cell]) -> Result<()> {
        for (&cell, values) in self.cells.iter().zip(&mut self.group) {
            self.bytes += values.push(cells[cell]);
            self.cut_times +=
                u64::from(matches!(cells[cell], Cell::Time(time) if time.nanos % 1000 != 0));
        }
        self.rows += 1;
        if self.rows < GROUP_ROWS && self.bytes < GROUP_BYTES {
            return Ok(());
        }
        self.write_group().map_err(|error| failure(&self.name, error))
    }

    /// Nothing can be read before the end.
    fn end_page(&mut self) -> Result<()> {
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        Ok(())
    }

    fn finish(&mut self) -> Result<()> {
        let written = if self.rows > 0 { self.write_group() } else { Ok(()) };
        let finished = written.and_then(|()| self.file.finish());
        finished.map_err(|error| failure(&self.name, error))?;
        self.file.flush().map_err(|error| Failure::output(&self.name, error))?;
        if self.cut_times > 0 {
            let cut = self.cut_times;
            say(format!(
                "{cut} times are cut to the microsecond, which a parquet has; a csv has them whole"
            ));
        }
        Ok(())
    }
}

/// The column `name` of cells like `example`.
fn field(name: &str, example: Cell) -> std::result::Result<TypePtr, ParquetError> {
    let physical = match example {
        Cell::Int(_) | Cell::Amount(..) | Cell::Time(_) => Physical::INT64,
        Cell::Text(_) | Cell::Bool(_) => Physical::BYTE_ARRAY,
    };
    let logical = match example {
        Cell::Text(_) | Cell::Bool(_) => Some(LogicalType::String),
        // In 64 bits nanoseconds end in 2262, and a time of ours in 9999.
        Cell::Time(_) => Some(LogicalType::timestamp(true, TimeUnit::MICROS)),
        Cell::Int(_) | Cell::Amount(..) => None,
    };
    let field = Type::primitive_type_builder(name, physical).with_repetition(Repetition::REQUIRED);
    field.with_logical_type(logical).build().map(Arc::new)
}

impl Values {
    fn like(example: Cell) -> Values {
        match example {
            Cell::Int(_) | Cell::Amount(..) | Cell::Time(_) => Values::Numbers(Vec::new()),
            Cell::Text(_) | Cell::Bool(_) => Values::Texts(Vec::new(), Vec::new()),
        }
    }

    /// Adds a value, and returns how many bytes it takes.
    fn push(&mut self, cell: Cell) -> usize {
        match (self, cell) {
            (Values::Numbers(numbers), Cell::Int(number) | Cell::Amount(number, _)) => {
                numbers.push(number)
            }
            (Values::Numbers(numbers), Cell::Time(time)) => {
                // Before 1970 too: its nanoseconds count forwards.
                numbers.push(
                    time.seconds
                        .saturating_mul(1_000_000)
                        .saturating_add(i64::from(time.nanos / 1000)),
                );
            }
            (Values::Texts(texts, ends), cell) => {
                let before = texts.len();
                texts.extend_from_slice(cell.text(&mut String::new()).as_bytes());
                ends.push(texts.len());
                return texts.len() - before + size_of::<usize>();
            }
            (Values::Numbers(_), Cell::Text(_) | Cell::Bool(_)) => {
                unreachable!("rows are all of one kind")
            }
        }
        size_of::<i64>()
    }

    /// Writes the values and forgets them.
    fn write_to(
        &mut self,
        column: &mut SerializedColumnWriter,
    ) -> std::result::Result<(), ParquetError> {
        match self {
            Values::Numbers(numbers) => {
                column.typed::<Int64Type>().write_batch(numbers, None, None)?;
                numbers.clear();
            }
            Values::Texts(texts, ends) => {
                let bytes = Bytes::from(mem::take(texts));
                let begins = std::iter::once(0).chain(ends.iter().copied());
                let each = begins
                    .zip(ends.iter())
                    .map(|(begin, &end)| ByteArray::from(bytes.slice(begin..end)));
                let values: Vec<_> = each.collect();
                column.typed::<ByteArrayType>().write_batch(&values, None, None)?;
                ends.clear();
            }
        }
        Ok(())
    }
}

/// Of the output `name`, or of what is to be written there.
fn failure(name: &str, error: ParquetError) -> Failure {
    match error {
        ParquetError::External(error) => match error.downcast() {
            Ok(error) => Failure::output(name, *error),
            Err(error) => Failure::Failed(format!("{name}: {error}")),
        },
        error => Failure::Failed(format!("{name}: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use billstream::model::Timestamp;
    use parquet::file::reader::{FileReader, SerializedFileReader};
    use parquet::record::Field;

    use super::*;

    /// The groups and the rows that a reader finds in what `write` writes in the columns `cells` of `row(..)`.
    fn read(cells: Vec<usize>, write: impl FnOnce(&mut ParquetWriter)) -> (usize, Vec<Vec<Field>>) {
        let file = tempfile::tempfile().unwrap();
        let out: Box<dyn std::io::Write + Send> = Box::new(file.try_clone().unwrap());
        let headers = cells.iter().map(|cell| format!("column {cell}")).collect();
        let columns = Columns { cells, headers };
        let mut writer =
            ParquetWriter::new("out", columns, &row("", 0, 0), Output::new(out)).unwrap();
        write(&mut writer);
        writer.finish().unwrap();
        (groups(&file).unwrap(), rows(file))
    }

    fn groups(file: &File) -> Option<usize> {
        let reader = SerializedFileReader::new(file.try_clone().unwrap()).ok()?;
        Some(reader.metadata().num_row_groups())
    }

    fn rows(file: File) -> Vec<Vec<Field>> {
        let reader = SerializedFileReader::new(file).unwrap();
        let rows = reader.get_row_iter(None).unwrap();
        rows.map(|row| row.unwrap().into_columns().into_iter().map(|it| it.1).collect()).collect()
    }

    fn row(text: &str, cents: i64, seconds: i64) -> [Cell<'_>; 4] {
        let time = Timestamp { seconds, nanos: 999_999_999 };
        [Cell::Text(text), Cell::Amount(cents, "EUR"), Cell::Time(time), Cell::Int(cents)]
    }

    #[test]
    fn a_reader_finds_what_was_written_in_the_columns_that_were_asked_for() {
        let (groups, rows) = read(vec![2, 0, 1], |writer| {
            writer.row(&row("Zürich, \"1\"", -5, -62_135_596_800)).unwrap();
            writer.row(&row("", i64::MAX, 253_402_300_799)).unwrap();
        });
        let expected = [
            vec![
                Field::TimestampMicros(-62_135_596_799_000_001),
                Field::Str("Zürich, \"1\"".to_owned()),
                Field::Long(-5),
            ],
            vec![
                Field::TimestampMicros(253_402_300_799_999_999),
                Field::Str(String::new()),
                Field::Long(i64::MAX),
            ],
        ];
        assert_eq!((groups, rows), (1, expected.to_vec()));
    }

    #[test]
    fn no_rows_are_a_file_too() {
        assert_eq!(read(vec![0, 1], |_| {}), (0, vec![]));
    }

    #[test]
    fn groups_are_bounded_by_their_rows_and_by_their_bytes() {
        let count = GROUP_ROWS as i64 + 1;
        let (groups, rows) =
            read(vec![3], |writer| (0..count).for_each(|i| writer.row(&row("", i, 0)).unwrap()));
        assert_eq!(groups, 2);
        assert!(rows.iter().zip(0..).all(|(row, i)| row[..] == [Field::Long(i)]));
        assert_eq!(rows.len(), count as usize);

        let long = "x".repeat(GROUP_BYTES / 4);
        let (groups, rows) =
            read(vec![0], |writer| (0..9).for_each(|i| writer.row(&row(&long, i, 0)).unwrap()));
        assert_eq!((groups, rows.len()), (3, 9));
    }

    #[test]
    fn what_has_no_end_is_no_file() {
        let file = tempfile::tempfile().unwrap();
        let out: Box<dyn std::io::Write + Send> = Box::new(file.try_clone().unwrap());
        let columns = Columns { cells: vec![3], headers: vec!["n".to_owned()] };
        let mut writer =
            ParquetWriter::new("out", columns, &row("", 0, 0), Output::new(out)).unwrap();
        (0..GROUP_ROWS as i64).for_each(|i| writer.row(&row("", i, 0)).unwrap());
        writer.flush().unwrap();
        drop(writer);
        assert!(file.metadata().unwrap().len() > 1000, "a group is written");
        assert_eq!(groups(&file), None);
    }
}
