//! Features on their way to `features.npy`, and other results of the same items.
//!
//! Rows are appended to files as they come, and never held together. An interrupted run resumes
//! after the last of them.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use dpq_formats::npy;

/// The row of each item, u32, written after its results.
const ROWS: &str = "rows.part";
/// The run that the results are of.
const KEY: &str = "key.part";

/// A result of items, f32 [n, width].
#[derive(Clone, Copy)]
pub(crate) struct Column {
    /// `NAME.npy`, and `NAME.part` until it is whole.
    pub(crate) name: &'static str,
    pub(crate) width: usize,
}

impl Column {
    fn part(self, dir: &Path) -> PathBuf {
        dir.join(self.name).with_extension("part")
    }

    fn array(self, dir: &Path) -> PathBuf {
        dir.join(self.name).with_extension("npy")
    }

    fn header(self, n: usize) -> Vec<u8> {
        npy::header_bytes::<f32>(&[n, self.width])
    }

    fn n_bytes(self, n: usize) -> u64 {
        (self.header(0).len() + 4 * n * self.width) as u64
    }
}

/// Files of results that are being written.
pub(super) struct Partial {
    dir: PathBuf,
    columns: Vec<(Column, File)>,
    /// The rows whose results are written.
    pub(super) done: Vec<u32>,
    rows: File,
}

impl Partial {
    /// Resumes from the files of an interrupted run with the same `key` in `dir`, or starts new
    /// ones.
    pub(super) fn open(dir: &Path, key: &str, columns: &[Column]) -> io::Result<Self> {
        let is_same = fs::read_to_string(dir.join(KEY)).is_ok_and(|found| found == key);
        // A run that ended between finishing and closing.
        for column in columns.iter().filter(|column| is_same && !column.part(dir).exists()) {
            if column.array(dir).exists() {
                fs::rename(column.array(dir), column.part(dir))?;
            }
        }
        if !(is_same && columns.iter().all(|column| column.part(dir).exists())) {
            for column in columns {
                fs::write(column.part(dir), column.header(0))?;
            }
            fs::write(dir.join(ROWS), [])?;
            fs::write(dir.join(KEY), key)?;
        }
        // Not for appending: Windows lets nobody cut a file that is open for that.
        let open_file = |path: PathBuf| OpenOptions::new().write(true).open(path);
        let mut rows = open_file(dir.join(ROWS))?;
        // The last batch of an interrupted run may be incomplete: its whole rows count.
        let mut n_whole = usize::MAX;
        let open = |&column: &Column| {
            let file = open_file(column.part(dir))?;
            let rest = file.metadata()?.len().saturating_sub(column.n_bytes(0));
            n_whole = n_whole.min((rest / (4 * column.width as u64)) as usize);
            Ok((column, file))
        };
        let mut columns = columns.iter().map(open).collect::<io::Result<Vec<_>>>()?;
        let numbers = fs::read(dir.join(ROWS))?;
        let numbers = numbers.as_chunks().0.iter().take(n_whole);
        let done: Vec<u32> = numbers.map(|&bytes| u32::from_le_bytes(bytes)).collect();
        for (column, file) in &mut columns {
            cut(file, column.n_bytes(done.len()))?;
        }
        cut(&mut rows, 4 * done.len() as u64)?;
        Ok(Self { dir: dir.to_owned(), columns, done, rows })
    }

    /// Appends the results of `rows`, f32 [n, width] of each column.
    pub(super) fn push(&mut self, rows: &[u32], results: &[Vec<f32>]) -> io::Result<()> {
        assert_eq!(results.len(), self.columns.len(), "each column has results");
        for ((column, file), values) in self.columns.iter_mut().zip(results) {
            assert_eq!(values.len(), rows.len() * column.width, "each row has results");
            file.write_all(&values.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>())?;
            // A row counts as done once it is on the disk.
            file.sync_data()?;
        }
        let numbers: Vec<u8> = rows.iter().flat_map(|row| row.to_le_bytes()).collect();
        self.rows.write_all(&numbers)?;
        self.done.extend_from_slice(rows);
        Ok(())
    }

    /// Turns the rows written into files of arrays. A run resumes from these too until
    /// [`close`].
    pub(super) fn finish(mut self) -> Result<()> {
        ensure!(!self.done.is_empty(), "there are no items to write");
        for (column, _) in self.columns.drain(..) {
            let mut file = OpenOptions::new().write(true).open(column.part(&self.dir))?;
            file.write_all(&column.header(self.done.len()))?;
            drop(file);
            dpq_file::rename(column.part(&self.dir), column.array(&self.dir))?;
        }
        Ok(())
    }
}

/// Cuts a file, and continues at its end.
fn cut(file: &mut File, n_bytes: u64) -> io::Result<()> {
    file.set_len(n_bytes)?;
    file.seek(SeekFrom::Start(n_bytes)).map(drop)
}

/// Removes what a run would resume from, once all of its results are written.
pub(crate) fn close(dir: &Path) -> io::Result<()> {
    fs::remove_file(dir.join(KEY))?;
    fs::remove_file(dir.join(ROWS))
}

impl Drop for Partial {
    /// There is nothing to resume from.
    fn drop(&mut self) {
        if self.done.is_empty() {
            for path in self.columns.iter().map(|(column, _)| column.part(&self.dir)) {
                let _ = fs::remove_file(path);
            }
            let _ = fs::remove_file(self.dir.join(KEY));
            let _ = fs::remove_file(self.dir.join(ROWS));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dpq_formats::read_features;

    const COLUMNS: [Column; 2] =
        [Column { name: "features", width: 2 }, Column { name: "posteriors", width: 1 }];

    #[test]
    fn an_interrupted_run_resumes_after_its_last_whole_row() {
        let dir = tempfile::TempDir::new().unwrap();
        let open = |key| Partial::open(dir.path(), key, &COLUMNS).unwrap();
        let mut partial = open("a");
        partial.push(&[7, 3, 5], &[vec![1.0, 2.0, 3.0, 4.0, 9.0, 9.0], vec![0.1, 0.2, 0.3]]).unwrap();
        partial.push(&[9], &[vec![5.0, 6.0], vec![0.4]]).unwrap();
        drop(partial);
        // Half a row, one row more, and half a number.
        let cut = |name: &str, by: u64| {
            let file = OpenOptions::new().write(true).open(dir.path().join(name)).unwrap();
            file.set_len(file.metadata().unwrap().len() - by).unwrap();
        };
        cut("features.part", 3);
        assert_eq!(open("a").done, [7, 3, 5]);
        cut("posteriors.part", 4);
        assert_eq!(open("a").done, [7, 3]);
        cut(ROWS, 2);
        let mut partial = open("a");
        assert_eq!(partial.done, [7]);
        partial.push(&[4], &[vec![8.0, 9.0], vec![0.5]]).unwrap();
        partial.finish().unwrap();
        // Killed after that, or in the middle.
        fs::rename(dir.path().join("posteriors.npy"), dir.path().join("posteriors.part")).unwrap();
        let partial = open("a");
        assert_eq!(partial.done, [7, 4]);
        partial.finish().unwrap();
        close(dir.path()).unwrap();
        for (name, expected) in [("features", vec![1.0, 2.0, 8.0, 9.0]), ("posteriors", vec![0.1, 0.5])] {
            let read = read_features(dir.path().join(name).with_extension("npy")).unwrap();
            assert_eq!((read.rows, read.values), (2, expected));
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);

        open("a").push(&[7], &[vec![1.0, 2.0], vec![0.1]]).unwrap();
        assert_eq!(open("a").done, [7]);
        assert!(open("b").done.is_empty(), "results of something else");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "nothing to resume from");
        assert!(open("b").finish().is_err());
    }
}
