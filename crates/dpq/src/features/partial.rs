//! Features on their way to `features.npy`.
//!
//! Rows are appended to a file as they come, and never held together. An interrupted run resumes
//! after the last of them.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use dpq_formats::npy;

/// Features, behind space for the header of `features.npy`, which they become.
const FEATURES: &str = "features.part";
/// The row of each item, u32, written after its features.
const ROWS: &str = "rows.part";
/// The run that the features are of.
const KEY: &str = "key.part";

/// A file of features that is being written.
pub(super) struct Partial {
    dir: PathBuf,
    dim: usize,
    /// The rows whose features are written.
    pub(super) done: Vec<u32>,
    features: File,
    rows: File,
}

impl Partial {
    /// Resumes from the files of an interrupted run with the same `key` in `dir`, or starts new
    /// ones.
    pub(super) fn open(dir: &Path, key: &str, dim: usize) -> io::Result<Self> {
        let is_same = fs::read_to_string(dir.join(KEY)).is_ok_and(|found| found == key);
        if !(is_same && dir.join(FEATURES).exists()) {
            fs::write(dir.join(FEATURES), npy::header_bytes::<f32>(&[0, dim]))?;
            fs::write(dir.join(ROWS), [])?;
            fs::write(dir.join(KEY), key)?;
        }
        let append = |name| OpenOptions::new().append(true).open(dir.join(name));
        let (features, rows) = (append(FEATURES)?, append(ROWS)?);
        // The last batch of an interrupted run may be incomplete: its whole rows count.
        let header = npy::header_bytes::<f32>(&[0, dim]).len() as u64;
        let n_whole = features.metadata()?.len().saturating_sub(header) / (4 * dim as u64);
        let numbers = fs::read(dir.join(ROWS))?;
        let numbers = numbers.as_chunks().0.iter().take(n_whole as usize);
        let done: Vec<u32> = numbers.map(|&bytes| u32::from_le_bytes(bytes)).collect();
        features.set_len(header + 4 * (done.len() * dim) as u64)?;
        rows.set_len(4 * done.len() as u64)?;
        Ok(Self { dir: dir.to_owned(), dim, done, features, rows })
    }

    /// Appends the features of `rows`, f32 [n, dim].
    pub(super) fn push(&mut self, rows: &[u32], features: &[f32]) -> io::Result<()> {
        assert_eq!(features.len(), rows.len() * self.dim, "each row has dim features");
        let bytes: Vec<u8> = features.iter().flat_map(|x| x.to_le_bytes()).collect();
        let numbers: Vec<u8> = rows.iter().flat_map(|row| row.to_le_bytes()).collect();
        self.features.write_all(&bytes)?;
        // A row counts as done once it is on the disk.
        self.features.sync_data()?;
        self.rows.write_all(&numbers)?;
        self.done.extend_from_slice(rows);
        Ok(())
    }

    /// Turns the rows written into `features.npy`.
    pub(super) fn finish(self) -> Result<()> {
        ensure!(!self.done.is_empty(), "there are no features to write");
        let Self { dir, dim, done, features, rows } = self;
        drop((features, rows));
        let mut features = OpenOptions::new().write(true).open(dir.join(FEATURES))?;
        features.write_all(&npy::header_bytes::<f32>(&[done.len(), dim]))?;
        dpq_file::rename(dir.join(FEATURES), dir.join("features.npy"))?;
        fs::remove_file(dir.join(KEY))?;
        Ok(fs::remove_file(dir.join(ROWS))?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dpq_formats::read_features;

    #[test]
    fn an_interrupted_run_resumes_after_its_last_whole_row() {
        let dir = tempfile::TempDir::new().unwrap();
        let open = |key| Partial::open(dir.path(), key, 2).unwrap();
        let mut partial = open("a");
        partial.push(&[7, 3], &[1.0, 2.0, 3.0, 4.0]).unwrap();
        partial.push(&[9], &[5.0, 6.0]).unwrap();
        drop(partial);
        // Half a row, and half a number.
        let cut = |name: &str, by: u64| {
            let file = OpenOptions::new().write(true).open(dir.path().join(name)).unwrap();
            file.set_len(file.metadata().unwrap().len() - by).unwrap();
        };
        cut(FEATURES, 3);
        assert_eq!(open("a").done, [7, 3]);
        cut(ROWS, 2);
        let mut partial = open("a");
        assert_eq!(partial.done, [7]);
        partial.push(&[4], &[8.0, 9.0]).unwrap();
        partial.finish().unwrap();
        let features = read_features(dir.path().join("features.npy")).unwrap();
        assert_eq!((features.rows, features.values), (2, vec![1.0, 2.0, 8.0, 9.0]));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);

        open("a").push(&[7], &[1.0, 2.0]).unwrap();
        assert_eq!(open("a").done, [7]);
        assert!(open("b").done.is_empty(), "features of something else");
        assert!(open("b").finish().is_err());
    }
}
