//! The report of a system beside the paper's: tables of figures over trainings.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::Error;
use crate::document::{Block, markdown, measured};
use crate::files::{self, Files, RESULTS};
use crate::results::Machine;
use crate::summary::mean_sd;
use crate::table::{Table, line};

/// The folder names of studies in `docs/results`: the systems of `reproduce-paper --system`.
pub const NAMES: [&str; 3] = ["mecoq", "mopq", "phpq"];

/// Tables of figures, and how they were measured.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Study {
    /// The title of the page.
    pub title: String,
    /// The measurement, its data, and the rules of its figures.
    pub text: String,
    /// The tables.
    pub sections: Vec<Section>,
    /// The command that measured it.
    pub command: String,
    /// The commit of the repository, ending in `-dirty` if a relevant file differs from it.
    pub commit: String,
    /// The computer.
    pub machine: Machine,
}

/// A table under a heading of its own.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Section {
    /// The heading.
    pub heading: String,
    /// The text below the table. May be empty.
    pub text: String,
    /// Name of the first column.
    pub first: String,
    /// Names of the other columns.
    pub columns: Vec<String>,
    /// The rows.
    pub rows: Vec<Row>,
}

/// A row of a table.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Row {
    /// The first column.
    pub name: String,
    /// For each other column one value per training. None stands for a cell without a figure.
    pub cells: Vec<Vec<f64>>,
}

impl Study {
    /// Writes the numbers and the page into `folder`, which it creates if necessary, and returns
    /// the paths.
    ///
    /// # Errors
    /// [`Error::Io`] names the file.
    pub fn write(&self, folder: impl AsRef<Path>) -> Result<Vec<PathBuf>, Error> {
        files::write_numbers(folder.as_ref(), self, self.render())
    }

    /// Reads the numbers in `folder`.
    pub(crate) fn read(folder: &Path) -> Result<Self, Error> {
        files::read(&folder.join(RESULTS))
    }

    pub(crate) fn render(&self) -> Files {
        vec![("results.md".to_owned(), self.page())]
    }

    fn page(&self) -> String {
        let mut blocks = vec![
            Block::Text("`dpq` measured every number on this page.".to_owned()),
            Block::Text(self.text.clone()),
        ];
        for Section { heading, text, first, columns, rows } in &self.sections {
            let is_large = |column: usize| {
                let values = rows.iter().filter_map(|row| row.cells.get(column)).flatten();
                values.clone().next().is_some() && values.into_iter().all(|value| value.abs() >= 10.0)
            };
            let digits: Vec<usize> =
                (0..columns.len()).map(|column| if is_large(column) { 0 } else { 4 }).collect();
            let cells = |row: &Row| {
                let cells = row.cells.iter().zip(&digits).map(|(values, &digits)| figure(values, digits));
                line(&row.name, cells)
            };
            let rows = rows.iter().map(cells);
            blocks.push(Block::Heading(heading.clone().into()));
            blocks.push(Block::Table(Table::new(first, columns, rows), text.clone()));
        }
        blocks.extend(measured(&self.command, &self.commit, &self.machine));
        markdown(&self.title, &blocks)
    }
}

/// Returns the mean, and the standard deviation of several values.
fn figure(values: &[f64], digits: usize) -> String {
    match values {
        [] => String::new(),
        [value] => format!("{value:.digits$}"),
        _ => {
            let [mean, sd] = mean_sd(values);
            format!("{mean:.digits$} ± {sd:.digits$}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_means_and_deviations_and_is_made_from_the_numbers() {
        let row = |name: &str, cells: [&[f64]; 3]| Row {
            name: name.to_owned(),
            cells: cells.map(<[f64]>::to_vec).into(),
        };
        let study = Study {
            title: "MoPQ".to_owned(),
            text: "Pairs.".to_owned(),
            sections: vec![Section {
                heading: "R@10".to_owned(),
                text: "Expectation over ties.".to_owned(),
                first: "bytes".to_owned(),
                columns: ["4", "8", "seconds"].map(str::to_owned).into(),
                rows: vec![
                    row("a", [&[0.5, 0.75], &[0.25], &[431.2, 440.8]]),
                    row("b", [&[], &[1.0], &[12.0]]),
                ],
            }],
            command: "cargo".to_owned(),
            commit: "abc".to_owned(),
            machine: Machine { cpu: "c".to_owned(), cores: 2, system: "s".to_owned() },
        };
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(study.write(dir.path().join("new")).unwrap().len(), 2);
        let again = Study::read(&dir.path().join("new")).unwrap();
        assert_eq!(again.render(), study.render());
        let page = study.page();
        assert!(page.contains("| a     | 0.6250 ± 0.1768 | 0.2500 | 436 ± 7 |"), "{page}");
        assert!(page.contains("| b     |                 | 1.0000 |      12 |"), "{page}");
        assert!(page.contains("## R@10") && page.contains("- Commit abc"), "{page}");
    }
}
