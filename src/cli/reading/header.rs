//! The header of a csv: which field of a record each column is, or what is wrong with it.

use std::borrow::Cow;

use super::super::values;
use super::layout::{Field, Layout};
use super::problems::Complaint;
use super::{Need, ENCODING_HINT};

/// How many things that are wrong with a header are told: a file that is no csv at all has every one there is.
const SHOWN: usize = 8;

/// What a header says.
#[derive(Debug)]
pub struct Header {
    /// For each column of the layout, which field of a record it is.
    pub fields: Vec<Option<usize>>,
    /// Columns that are not known, and may be there.
    pub extra: Vec<String>,
}

/// Finds the columns of `layout` in the header of a csv.
pub fn read(layout: &Layout, header: &[&[u8]]) -> Result<Header, Complaint> {
    let mut fields = vec![None; layout.fields.len()];
    let (mut extra, mut unknown, mut problems) = (Vec::new(), Vec::new(), Vec::new());
    for (i, &name) in header.iter().enumerate().filter(|(_, name)| !layout.ignores(name)) {
        let mut is_read = false;
        for column in layout.reads(name) {
            is_read = true;
            if fields[column].replace(i).is_some() {
                problems.push(format!("column {} twice", layout.fields[column].shown()));
            }
        }
        match is_read {
            true => {}
            false if layout.ignores_extra(name) => {
                extra.push(String::from_utf8_lossy(name).into_owned());
            }
            false => {
                problems.push(layout.unknown(&lossy(name)));
                unknown.push(name);
            }
        }
    }
    let unbound = layout.fields.iter().zip(&fields).filter(|(_, at)| at.is_none());
    let absent: Vec<_> = unbound.map(|(field, _)| field).filter(|it| it.fixed.is_none()).collect();
    let missing: Vec<_> = absent.iter().copied().filter(|field| field.is_needed()).collect();
    problems.extend(missing.iter().map(|field| format!("no column {}", field.shown())));
    if problems.is_empty() {
        return Ok(Header { fields, extra });
    }
    problems.truncate(SHOWN);
    let complaint =
        format!("{}; expected the csv header {}", problems.join("; "), expected(layout));
    let hints = match delimiter_hint(layout, header) {
        Some(hint) => vec![hint],
        None => columns_hints(&unknown, &absent, &missing),
    };
    Err(hints.into_iter().fold(Complaint::new(complaint), Complaint::hint))
}

/// What a header may have, the optional columns in brackets.
fn expected(layout: &Layout) -> String {
    let names =
        layout.fields.iter().filter(|field| field.fixed.is_none()).filter_map(|field| match field
            .need
        {
            _ if field.is_needed() => Some(field.name.clone()),
            Need::Ignored => None,
            _ => Some(format!("[{}]", field.name)),
        });
    names.collect::<Vec<_>>().join(",")
}

/// A header of one column that has another delimiter in it.
fn delimiter_hint(layout: &Layout, header: &[&[u8]]) -> Option<String> {
    let [only] = header else { return None };
    let others = [(b';', "';'"), (b'\t', "tab"), (b',', "','"), (b'|', "'|'")];
    let mut others = others.iter().filter(|(byte, _)| *byte != layout.delimiter.unwrap_or(b','));
    let (_, name) = others.find(|(byte, _)| only.contains(byte))?;
    Some(format!("--delimiter {name} says what is between its columns"))
}

/// The options that help where columns are `unknown` or `missing`. What is `absent` may be any of the unknown.
fn columns_hints(unknown: &[&[u8]], absent: &[&Field], missing: &[&Field]) -> Vec<String> {
    if unknown.iter().any(|name| std::str::from_utf8(name).is_err()) {
        return vec![ENCODING_HINT.to_owned()];
    }
    let unknown: Vec<_> = unknown.iter().map(|name| String::from_utf8_lossy(name)).collect();
    let mut hints = Vec::new();
    let alike = alike(&unknown, absent);
    let is_paired = |field: &&&Field| alike.iter().any(|(_, other)| other.column == field.column);
    let unpaired: Vec<_> = missing.iter().filter(|field| !is_paired(field)).collect();
    let pairs = alike.iter().map(|(name, field)| format!("{}={name}", field.column));
    let others = unpaired.iter().map(|field| format!("{}=NAME", field.column));
    let map = pairs.chain(others).collect::<Vec<_>>().join(",");
    if !unknown.is_empty() && !map.is_empty() {
        hints.push(format!("--map {} says which column of the file each is", shell(&map)));
    }
    hints.extend(unpaired.first().map(|field| set_hint(field)));
    let left = unknown.iter().filter(|name| !alike.iter().any(|(other, _)| other == *name));
    let left: Vec<_> = left.take(SHOWN).map(|name| name.to_string()).collect();
    if !left.is_empty() {
        hints.push(format!("--ignore-columns {} leaves columns out", shell(&left.join(","))));
    }
    hints
}

/// The option that helps where `field` is nowhere.
pub fn set_hint(field: &Field) -> String {
    format!("--set {}=VALUE gives all rows one value of a column that the file lacks", field.column)
}

/// What is wrong with a member of a JSON object that is not known.
pub fn unknown_member(layout: &Layout, name: &str) -> Complaint {
    let known = layout.fields.iter().filter(|field| field.fixed.is_none());
    let names: Vec<_> = known.clone().map(|field| &field.name[..]).collect();
    let message =
        format!("{}; expected {}", layout.unknown(&values::quoted(name)), names.join(", "));
    let names = [name];
    let known: Vec<_> = known.filter(|field| field.need != Need::Ignored).collect();
    let column = alike(&names, &known).first().map_or("COLUMN", |(_, field)| field.column);
    Complaint::new(message)
        .hint(format!("--map {} says which column it is", shell(&format!("{column}={name}"))))
        .hint(format!("--ignore-columns {} leaves it out", shell(name)))
}

/// Pairs of names that may mean the same, those that are most alike first, each name once.
fn alike<'a>(unknown: &'a [impl AsRef<str>], absent: &[&'a Field]) -> Vec<(&'a str, &'a Field)> {
    let mut pairs = Vec::new();
    for name in unknown.iter().map(AsRef::as_ref) {
        for &field in absent {
            let likeness = likeness(name, field.column);
            if likeness > 0.5 {
                pairs.push((likeness, name, field));
            }
        }
    }
    pairs.sort_by(|(a, ..), (b, ..)| b.total_cmp(a));
    let mut found: Vec<(&str, &Field)> = Vec::new();
    for (_, name, field) in pairs {
        if !found.iter().any(|(other, it)| *other == name || it.column == field.column) {
            found.push((name, field));
        }
    }
    found
}

/// From 0 to 1, whatever the case, and what is between the words.
fn likeness(name: &str, column: &str) -> f64 {
    let letters = |text: &str| text.to_lowercase().replace(|c: char| !c.is_alphanumeric(), "");
    let (name, column) = (letters(name), letters(column));
    match name.len() > 2 && column.contains(&name) {
        true => 0.9,
        false => strsim::normalized_damerau_levenshtein(&name, &column),
    }
}

/// As a shell takes it for one word.
fn shell(text: &str) -> Cow<'_, str> {
    let is_plain = |c: char| c.is_alphanumeric() || "_-.,=/:+@%".contains(c);
    match !text.is_empty() && text.chars().all(is_plain) {
        true => text.into(),
        false => format!("'{}'", text.replace('\'', "'\\''")).into(),
    }
}

fn lossy(bytes: &[u8]) -> String {
    values::quoted(&String::from_utf8_lossy(bytes))
}
