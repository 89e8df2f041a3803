//! A report as files: `results.json`, `tsne.svg` and `queries.svg`, and everything made from them.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::document::{html, markdown};
use crate::page::{self, QUERIES, TSNE};
use crate::{Error, Results, csv, figures, words};

/// The file that keeps the numbers.
pub(crate) const RESULTS: &str = "results.json";

/// The numbers of a report and the figures that need more than numbers.
#[derive(Clone, Debug)]
pub struct Report {
    /// The numbers.
    pub results: Results,
    /// Gallery items by t-SNE, as [`tsne`](crate::tsne()) draws them.
    pub tsne: Option<String>,
    /// Example queries, as [`sheet`](crate::sheet()) draws them.
    pub queries: Option<String>,
}

/// File names and texts.
pub(crate) type Files = Vec<(String, String)>;

impl Report {
    /// Reads `results.json` and the figures beside it.
    ///
    /// # Errors
    /// [`Error::Io`] and [`Error::Json`] name the file.
    pub fn read(folder: impl AsRef<Path>) -> Result<Self, Error> {
        let results = read(&folder.as_ref().join(RESULTS))?;
        let figure = |file| fs::read_to_string(folder.as_ref().join(file)).ok();
        Ok(Self { results, tsne: figure(TSNE), queries: figure(QUERIES) })
    }

    /// Returns the title, the main table and that of other codes, for a terminal.
    pub fn summary(&self) -> String {
        page::summary(&self.results)
    }

    /// Writes all files of the report into `folder`, which it creates if necessary, and returns
    /// their paths. Removes the files of an earlier report.
    ///
    /// # Errors
    /// [`Error::Io`] names the file.
    pub fn write(&self, folder: impl AsRef<Path>) -> Result<Vec<PathBuf>, Error> {
        let folder = folder.as_ref();
        fs::create_dir_all(folder).map_err(Error::io("write", folder))?;
        for path in [TSNE, QUERIES].map(|file| folder.join(file)).iter().filter(|path| path.exists()) {
            fs::remove_file(path).map_err(Error::io("write", path))?;
        }
        let mut files = vec![(RESULTS.to_owned(), self.results.to_json())];
        let figures = [(TSNE, &self.tsne), (QUERIES, &self.queries)];
        files.extend(figures.into_iter().filter_map(|(file, svg)| Some((file.to_owned(), svg.clone()?))));
        files.extend(self.render());
        write(folder, &files)
    }

    /// Returns everything that is made from the numbers and figures.
    pub(crate) fn render(&self) -> Files {
        let results = &self.results;
        let mut files = vec![
            ("results.csv", csv::csv(results)),
            ("map.svg", figures::map_by_bits(results).svg()),
            ("precision-recall.svg", figures::precision_recall(results).svg()),
            ("precision-at.svg", figures::precision_at(results).svg()),
            ("distortion.svg", figures::distortion(results).svg()),
            ("usage.svg", figures::usage(results).svg()),
        ];
        let find = |name: &str| match name {
            TSNE => self.tsne.as_deref(),
            QUERIES => self.queries.as_deref(),
            _ => files.iter().find(|(file, _)| *file == name).map(|(_, text)| text.as_str()),
        };
        let (title, blocks) = (words::title(results), page::blocks(results, |file| find(file).is_some()));
        let pages = [("results.md", markdown(&title, &blocks)), ("report.html", html(&title, &blocks, find))];
        files.extend(pages);
        files.into_iter().map(|(file, text)| (file.to_owned(), text)).collect()
    }
}

/// Writes files, each under another name until it is complete.
pub(crate) fn write(folder: &Path, files: &[(String, String)]) -> Result<Vec<PathBuf>, Error> {
    let write = |(file, text): &(String, String)| {
        let (path, partial) = (folder.join(file), folder.join(format!("{file}.partial")));
        fs::write(&partial, text)
            .and_then(|()| fs::rename(&partial, &path))
            .map_err(Error::io("write", &path))?;
        Ok(path)
    };
    files.iter().map(write).collect()
}

/// Writes numbers as JSON and what is made from them into a folder, which it creates if necessary.
pub(crate) fn write_numbers(
    folder: &Path,
    numbers: &impl Serialize,
    made: Files,
) -> Result<Vec<PathBuf>, Error> {
    fs::create_dir_all(folder).map_err(Error::io("write", folder))?;
    let json = serde_json::to_string_pretty(numbers).expect("numbers and texts");
    write(folder, &[vec![(RESULTS.to_owned(), json + "\n")], made].concat())
}

/// Reads a JSON file.
pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> Result<T, Error> {
    let json = fs::read(path).map_err(Error::io("read", path))?;
    serde_json::from_slice(&json).map_err(|source| Error::Json { path: path.to_owned(), source })
}

/// Returns the paths in a folder in the order of their names.
pub(crate) fn list(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let entries = fs::read_dir(folder).map_err(Error::io("read", folder))?;
    let paths: Result<Vec<_>, _> = entries.map(|entry| entry.map(|entry| entry.path())).collect();
    let mut paths = paths.map_err(Error::io("read", folder))?;
    paths.sort();
    Ok(paths)
}
