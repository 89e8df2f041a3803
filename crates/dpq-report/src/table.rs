//! Tables in Markdown, whose columns also line up in a terminal.

use std::fmt::{self, Display};

/// A header and rows, which may be shorter than the header.
#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) header: Vec<String>,
    pub(crate) rows: Vec<Vec<String>>,
}

impl Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cell = |row: &[String], column: usize| row.get(column).cloned().unwrap_or_default();
        let all = || [&self.header].into_iter().chain(&self.rows);
        let width = |column| all().map(|row| cell(row, column).chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..self.header.len()).map(width).collect();
        let write_row = |f: &mut fmt::Formatter<'_>, row: &[String]| {
            for (column, &width) in widths.iter().enumerate() {
                let text = cell(row, column);
                if column == 0 { write!(f, "| {text:<width$} ")? } else { write!(f, "| {text:>width$} ")? }
            }
            f.write_str("|")
        };
        write_row(f, &self.header)?;
        f.write_str("\n")?;
        for (column, &width) in widths.iter().enumerate() {
            if column == 0 { write!(f, "|-{:-<width$}-", "")? } else { write!(f, "|-{:-<width$}:", "")? }
        }
        f.write_str("|")?;
        for row in &self.rows {
            f.write_str("\n")?;
            write_row(f, row)?;
        }
        Ok(())
    }
}

impl Table {
    /// Returns a table whose header begins with a name.
    pub(crate) fn new(
        name: &str,
        header: impl IntoIterator<Item = impl Display>,
        rows: impl IntoIterator<Item = Vec<String>>,
    ) -> Self {
        Self { header: line(name, header), rows: rows.into_iter().collect() }
    }
}

/// Returns a row that begins with a name.
pub(crate) fn line(name: &str, cells: impl IntoIterator<Item = impl Display>) -> Vec<String> {
    [name.to_owned()].into_iter().chain(cells.into_iter().map(|cell| cell.to_string())).collect()
}
