//! How a file is written: the options that say so, and for each column where its value is.

use std::path::PathBuf;

use clap::Args;

use super::super::failure::{Failure, Result};
use super::super::nearest::nearest;
use super::super::notation::{AmountNotation, Notation, TimeNotation};
use super::encoding::Charset;
use super::{mapping, Column, Need};

/// How the file is written. Nothing of it is guessed.
#[derive(Args, Default)]
#[command(next_help_heading = "How the file is written")]
pub struct LayoutArgs {
    /// Which column of the file one is, such as invoice_id=InvoiceNo; may be repeated, or a list with commas
    #[arg(long, value_name = "COLUMN=NAME", value_delimiter = ',', value_parser = pair)]
    pub map: Vec<Pair>,
    /// A column that the file lacks, such as currency=GBP: the value is that of every row; may be repeated
    #[arg(long, value_name = "COLUMN=VALUE", value_parser = pair)]
    pub set: Vec<Pair>,
    /// A file with these options, for files that come again (docs/files.md); an option given beside it wins
    #[arg(long, value_name = "FILE")]
    pub mapping: Option<PathBuf>,
    /// What is between the columns of a csv, such as ; or tab [default: ,]
    #[arg(long, value_name = "CHAR", value_parser = delimiter)]
    pub delimiter: Option<u8>,
    /// The encoding of the text: utf-16 (by its byte order mark), utf-16le, utf-16be, windows-1252 and others
    /// [default: utf-8]
    #[arg(long, value_name = "NAME", value_parser = Charset::parse)]
    pub encoding: Option<Charset>,
    #[command(flatten)]
    pub notation: Notation,
    /// Currencies may be in lower case
    #[arg(long)]
    pub lowercase_currencies: bool,
    /// Columns of the file that are not read; may be repeated, or a list with commas
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub ignore_columns: Vec<String>,
    /// Columns that are not known are not read, with a note
    #[arg(long)]
    pub ignore_extra_columns: bool,
}

/// `COLUMN=NAME`, or `COLUMN=VALUE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    pub column: String,
    pub value: String,
}

/// Reads `COLUMN=NAME`.
pub fn pair(text: &str) -> std::result::Result<Pair, String> {
    match text.split_once('=') {
        Some((column, value)) if !column.is_empty() => {
            Ok(Pair { column: column.to_owned(), value: value.to_owned() })
        }
        _ => Err("expected a column, = and what it is".to_owned()),
    }
}

/// Reads what is between the columns of a csv.
pub fn delimiter(text: &str) -> std::result::Result<u8, String> {
    match text.as_bytes() {
        _ if matches!(text, "tab" | "\\t") => Ok(b'\t'),
        [byte] if byte.is_ascii() && !matches!(byte, b'"' | b'\r' | b'\n' | 0) => Ok(*byte),
        _ => Err("expected tab, or one character of ASCII that is neither a quote nor a line end"
            .to_owned()),
    }
}

/// How an input is read.
pub struct Layout {
    /// For each column that an input may have.
    pub fields: Vec<Field>,
    /// Of a csv; `None`: a comma.
    pub delimiter: Option<u8>,
    pub charset: Option<Charset>,
    pub amounts: AmountNotation,
    /// The decimal mark of `amounts`, where they are in major units.
    pub decimal: Option<char>,
    pub times: TimeNotation,
    pub lowercase_currencies: bool,
    ignored: Vec<String>,
    ignores_extra: bool,
}

/// Where the value of a column is.
#[derive(Debug)]
pub struct Field {
    pub column: &'static str,
    pub need: Need,
    /// What the input calls it.
    pub name: String,
    /// It is this in every row, and not in the input.
    pub fixed: Option<String>,
}

impl Field {
    /// What messages call it.
    pub fn shown(&self) -> String {
        match &self.fixed {
            Some(_) => format!("{} (of --set)", self.column),
            None if self.name == self.column => self.column.to_owned(),
            None => format!("{} ({})", self.name, self.column),
        }
    }

    /// Whether each input has it: what is mapped is there, or else the mapping is wrong.
    pub fn is_needed(&self) -> bool {
        self.fixed.is_none() && (self.need == Need::Required || self.is_mapped())
    }

    /// Whether the input was said to have it under another name.
    pub fn is_mapped(&self) -> bool {
        self.fixed.is_none() && self.name != self.column
    }
}

impl LayoutArgs {
    /// What they say of an input with `columns`.
    pub fn layout(&self, columns: &[Column]) -> Result<Layout> {
        let Some(path) = &self.mapping else { return self.resolve(columns) };
        self.over(mapping::read(path)?).resolve(columns).map_err(|failure| match failure {
            Failure::Usage(message) => Failure::Usage(format!("{}: {message}", path.display())),
            other => other,
        })
    }

    /// These, and where they say nothing what the mapping file says.
    pub fn with_mapping(&self) -> Result<LayoutArgs> {
        let below = self.mapping.as_deref().map(mapping::read).transpose()?;
        Ok(self.over(below.unwrap_or_default()))
    }

    /// These, and `below` where they say nothing.
    fn over(&self, below: LayoutArgs) -> LayoutArgs {
        let is_free = |pair: &Pair| {
            let mut given = self.map.iter().chain(&self.set);
            !given.any(|other| other.column == pair.column)
        };
        let with = |given: &[Pair], below: Vec<Pair>| {
            given.iter().cloned().chain(below.into_iter().filter(is_free)).collect()
        };
        LayoutArgs {
            map: with(&self.map, below.map),
            set: with(&self.set, below.set),
            mapping: None,
            delimiter: self.delimiter.or(below.delimiter),
            encoding: self.encoding.or(below.encoding),
            notation: Notation {
                decimal: self.notation.decimal.or(below.notation.decimal),
                thousands: self.notation.thousands.or(below.notation.thousands),
                time_format: self.notation.time_format.clone().or(below.notation.time_format),
                timezone: self.notation.timezone.clone().or(below.notation.timezone),
            },
            lowercase_currencies: self.lowercase_currencies || below.lowercase_currencies,
            ignore_columns: [&self.ignore_columns[..], &below.ignore_columns].concat(),
            ignore_extra_columns: self.ignore_extra_columns || below.ignore_extra_columns,
        }
    }

    fn resolve(&self, columns: &[Column]) -> Result<Layout> {
        Ok(Layout {
            fields: self.fields(columns).map_err(Failure::Usage)?,
            delimiter: self.delimiter,
            charset: self.encoding,
            amounts: self.notation.amounts()?,
            decimal: self.notation.decimal,
            times: self.notation.times()?,
            lowercase_currencies: self.lowercase_currencies,
            ignored: self.ignore_columns.clone(),
            ignores_extra: self.ignore_extra_columns,
        })
    }

    fn fields(&self, columns: &[Column]) -> std::result::Result<Vec<Field>, String> {
        let mut fields: Vec<_> = columns.iter().map(Field::from).collect();
        for pair in &self.map {
            let field = find(&mut fields, "--map", &pair.column)?;
            if field.is_mapped() {
                return Err(format!("--map says twice what {} is", pair.column));
            }
            field.name.clone_from(&pair.value);
        }
        for pair in &self.set {
            let field = find(&mut fields, "--set", &pair.column)?;
            if field.is_mapped() || field.fixed.is_some() {
                return Err(format!("it is said twice what {} is: --set, and before", pair.column));
            }
            field.fixed = Some(pair.value.clone());
        }
        let is_read = |name: &&String| fields.iter().any(|it| it.is_mapped() && it.name == **name);
        match self.ignore_columns.iter().find(is_read) {
            Some(name) => Err(format!("{name} is both ignored and mapped")),
            None => Ok(fields),
        }
    }
}

impl From<&Column> for Field {
    fn from(column: &Column) -> Field {
        let name = column.name.to_owned();
        Field { column: column.name, need: column.need, name, fixed: None }
    }
}

fn find<'a>(
    fields: &'a mut [Field],
    option: &str,
    column: &str,
) -> std::result::Result<&'a mut Field, String> {
    let known = |field: &&Field| field.need != Need::Ignored;
    if !fields.iter().filter(known).any(|field| field.column == column) {
        let names = fields.iter().filter(known).map(|field| field.column);
        return Err(format!(
            "{option} {column}: no such column; is it {}?",
            nearest(column, names)
        ));
    }
    Ok(fields.iter_mut().find(|field| field.column == column).expect("it was there"))
}

impl Layout {
    /// The number of a column that an input may have.
    pub fn index(&self, column: &'static str) -> usize {
        let found = self.fields.iter().position(|field| field.column == column);
        found.expect("a column of this input")
    }

    /// The columns whose values are in the column `name` of an input.
    pub fn reads<'a>(&'a self, name: &'a [u8]) -> impl Iterator<Item = usize> + 'a {
        let is_read = move |field: &Field| field.fixed.is_none() && field.name.as_bytes() == name;
        let fields = self.fields.iter().enumerate();
        fields.filter(move |(_, field)| is_read(field)).map(|(i, _)| i)
    }

    /// Whether it was said that the column `name` of an input is not to be read.
    pub fn ignores(&self, name: &[u8]) -> bool {
        self.ignored.iter().any(|ignored| ignored.as_bytes() == name)
    }

    /// Whether the column `name`, which is not read, may be there.
    pub fn ignores_extra(&self, name: &[u8]) -> bool {
        self.ignores_extra && !self.is_fixed(name)
    }

    /// What is wrong with the column `name` where it may not be there.
    pub fn unknown(&self, quoted: &str) -> String {
        match self.is_fixed(quoted.trim_matches('"').as_bytes()) {
            true => format!("column {quoted} is in the file, and --set says what it is"),
            false => format!("unknown column {quoted}"),
        }
    }

    /// Whether --set says what the column `name` is: that it is in the input too makes two values of one.
    fn is_fixed(&self, name: &[u8]) -> bool {
        let mut fixed = self.fields.iter().filter(|field| field.fixed.is_some());
        fixed.any(|field| field.column.as_bytes() == name)
    }
}
