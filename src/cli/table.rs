//! Rows as a table for people: aligned columns whose widths stay.

use std::io::{self, Write};

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// A value as it is shown.
pub type Shown = (String, Kind);

#[derive(Clone, Copy, PartialEq)]
pub enum Kind {
    /// May be cut, unless it is in the last column, which pads nothing.
    Text,
    /// Of a length that is bounded by itself: a time, a truth value.
    Short,
    /// On the right of its column.
    Number,
}

/// The widest column of text, in columns of a terminal; a longer text, such as a memo, is cut.
const WIDEST: usize = 40;

/// The first rows are held back to find the widths; those after them keep to these.
const HELD_ROWS: usize = 1000;

pub struct Table<W> {
    out: W,
    columns: Vec<String>,
    held: Vec<Vec<Shown>>,
    /// Set when the header is printed.
    widths: Option<Vec<usize>>,
}

impl<W: Write> Table<W> {
    pub fn new(columns: Vec<String>, out: W) -> Table<W> {
        Table { out, columns, held: Vec::new(), widths: None }
    }

    /// Sets the widths of the columns, and prints the header: for rows that are not to be held back. Each is
    /// at least that of its name.
    pub fn set_widths(&mut self, widths: &[usize]) -> io::Result<()> {
        let names = self.columns.iter().map(|name| name.width());
        let widths: Vec<_> = names.zip(widths).map(|(name, &width)| name.max(width)).collect();
        let kind = |i: usize| self.held.first().map_or(Kind::Text, |row| row[i].1);
        let names = self.columns.iter().enumerate();
        // A column of numbers has its name above its last digit.
        let header = names.map(|(i, name)| (name.clone(), kind(i))).collect();
        print(&mut self.out, header, &widths)?;
        let mut held = std::mem::take(&mut self.held).into_iter();
        held.try_for_each(|row| print(&mut self.out, row, &widths))?;
        self.widths = Some(widths);
        Ok(())
    }

    pub fn row(&mut self, row: Vec<Shown>) -> io::Result<()> {
        if let Some(widths) = &self.widths {
            return print(&mut self.out, row, widths);
        }
        self.held.push(row);
        if self.held.len() < HELD_ROWS {
            return Ok(());
        }
        self.print_held()
    }

    /// Brings out what is not held back.
    pub fn end_page(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    /// Brings out everything, the header at least.
    pub fn flush(&mut self) -> io::Result<()> {
        self.print_held()?;
        self.out.flush()
    }

    fn print_held(&mut self) -> io::Result<()> {
        if self.widths.is_some() {
            return Ok(());
        }
        let mut widths = vec![0; self.columns.len()];
        for row in &self.held {
            for (width, (text, kind)) in widths.iter_mut().zip(row) {
                let widest = if *kind == Kind::Text { WIDEST } else { usize::MAX };
                *width = text.width().min(widest).max(*width);
            }
        }
        self.set_widths(&widths)
    }
}

fn print(out: &mut impl Write, row: Vec<Shown>, widths: &[usize]) -> io::Result<()> {
    let mut line = String::new();
    let last = row.len().saturating_sub(1);
    for (i, ((text, kind), &width)) in row.into_iter().zip(widths).enumerate() {
        let text = if kind == Kind::Text && i < last { cut(text, width) } else { text };
        let padding = " ".repeat(width.saturating_sub(text.width()));
        match kind {
            Kind::Number => line.extend([&padding, &text, "  "]),
            Kind::Text | Kind::Short => line.extend([&text, &padding, "  "]),
        }
    }
    writeln!(out, "{}", line.trim_end())
}

/// At most `width` columns of a terminal of `text`, with a mark where it was cut.
fn cut(text: String, width: usize) -> String {
    if text.width() <= width {
        return text;
    }
    let mut room = width.saturating_sub(1);
    let fits = |c: &char| {
        let columns = c.width().unwrap_or(0);
        let fits = columns <= room;
        room = room.saturating_sub(columns);
        fits
    };
    text.chars().take_while(fits).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(pages: &[&[(&str, &str, i64)]]) -> String {
        let mut out = Vec::new();
        let mut table = Table::new(["id", "memo", "cents"].map(str::to_owned).to_vec(), &mut out);
        for page in pages {
            for &(id, memo, cents) in *page {
                let text = |text: &str| (text.to_owned(), Kind::Text);
                table.row(vec![text(id), text(memo), (cents.to_string(), Kind::Number)]).unwrap();
            }
            table.end_page().unwrap();
        }
        table.flush().unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_long_text_is_cut_and_pads_the_others_no_further() {
        let long = "m".repeat(1024);
        let expected = format!(
            "id  memo{}  cents\na   {}…      1\nb   x{}      2\n",
            " ".repeat(36),
            "m".repeat(39),
            " ".repeat(39)
        );
        assert_eq!(printed(&[&[("a", &long, 1), ("b", "x", 2)]]), expected);
    }

    #[test]
    fn widths_are_the_same_on_every_page() {
        let pages: &[&[_]] =
            &[&[("a", "", 1)], &[("a", "two words", 22)], &[("abc", "東京 → 大阪", 3)]];
        let expected = "id   memo         cents\na                     1\na    two words       22\nabc  東京 → 大阪      3\n";
        assert_eq!(printed(pages), expected);
    }

    #[test]
    fn what_comes_after_the_rows_held_back_keeps_to_their_widths() {
        let short = vec![("ab", "東京東京", 1); HELD_ROWS];
        let text = printed(&[&short, &[("abcd", "東京東京東京", 123_456)]]);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 1 + HELD_ROWS + 1);
        assert_eq!(lines[1], "ab  東京東京      1");
        assert_eq!(lines[HELD_ROWS + 1], "a…  東京東…   123456");
    }
}
