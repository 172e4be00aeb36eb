//! Which columns of a row are written, and under which names.

use std::collections::HashSet;

use super::super::failure::{Failure, Result};
use super::super::nearest::nearest;
use super::super::output::{Cell, Columns};
use super::super::reading::{LayoutArgs, Pair};
use super::super::values::quoted;

/// What the rows of a file are of: invoices, or something else with columns of its own.
pub struct RowKind<'a> {
    /// Of each cell of a row.
    pub names: &'static [&'static str],
    /// How many of them, from the first, a csv has unless others are asked for.
    pub of_csv: usize,
    /// Cells of a row, for the types that parquet has.
    #[cfg_attr(not(feature = "parquet"), allow(dead_code))]
    pub example: &'a [Cell<'a>],
}

impl RowKind<'_> {
    /// The columns `names`, with commas, or `all`; without, those of the format that `layout` does not set: they are
    /// not in its files.
    pub fn select(
        &self,
        names: Option<&str>,
        layout: &LayoutArgs,
        is_csv: bool,
    ) -> Result<Columns> {
        let cells: Vec<usize> = match names {
            Some("all") => (0..self.names.len()).collect(),
            Some(names) => {
                let cells = names.split(',').map(|name| self.find("columns", name));
                cells.collect::<Result<_>>()?
            }
            None => {
                let is_set =
                    |cell: &usize| layout.set.iter().any(|it| it.column == self.names[*cell]);
                let of_csv = 0..if is_csv { self.of_csv } else { self.names.len() };
                of_csv.filter(|cell| !is_set(cell)).collect()
            }
        };
        let headers = self.headers(&cells, &layout.map)?;
        match twice(&headers) {
            Some(header) => Err(Failure::Usage(format!("--columns: {header} twice"))),
            None => Ok(Columns { cells, headers }),
        }
    }

    fn headers(&self, cells: &[usize], map: &[Pair]) -> Result<Vec<String>> {
        let mut names: Vec<_> = self.names.iter().map(|name| name.to_string()).collect();
        let mapped = map.iter().map(|pair| self.find("map", &pair.column));
        let mapped: Vec<usize> = mapped.collect::<Result<_>>()?;
        if let Some(again) = twice(&mapped) {
            return Err(Failure::Usage(format!("--map says twice what {} is", self.names[*again])));
        }
        for (cell, pair) in mapped.into_iter().zip(map) {
            names[cell].clone_from(&pair.value);
        }
        Ok(cells.iter().map(|&cell| names[cell].clone()).collect())
    }

    /// The cells that are not written, as each file of `layout` has the same: what they are to be.
    pub fn fixed(&self, layout: &LayoutArgs) -> Result<Vec<(usize, String)>> {
        let fixed = layout.set.iter();
        fixed.map(|pair| Ok((self.find("set", &pair.column)?, pair.value.clone()))).collect()
    }

    /// Which cell of a row the column `name` is.
    fn find(&self, flag: &str, name: &str) -> Result<usize> {
        self.names.iter().position(|known| *known == name).ok_or_else(|| {
            let meant = nearest(name, self.names.iter().copied());
            let (name, known) = (quoted(name), self.names.join(","));
            Failure::Usage(format!(
                "--{flag}: unknown column {name}: did you mean {meant}? expected some of {known}"
            ))
        })
    }
}

/// The first of `all` that is there before.
fn twice<T: Eq + std::hash::Hash>(all: &[T]) -> Option<&T> {
    let mut seen = HashSet::new();
    all.iter().find(|one| !seen.insert(*one))
}
