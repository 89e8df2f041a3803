//! The vectors that an index was made of, to score hits by.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use dpq_formats::{FeatureFile, read_ids};

/// A memory-mapped file of vectors.
pub(crate) struct Vectors {
    path: PathBuf,
    file: FeatureFile,
    /// The row of each id; without, ids are rows.
    rows: Option<HashMap<u64, usize>>,
}

impl Vectors {
    /// Opens the vectors, of `dim` dimensions, of the items of an index. The file `ids` has the id
    /// of each row.
    #[expect(unsafe_code, reason = "a mapping is only as constant as its file")]
    pub(crate) fn open(path: &Path, ids: Option<&Path>, dim: usize) -> Result<Self> {
        // SAFETY: the process maps the file for one command, and dpq replaces files by renaming.
        // The user promises the rest.
        let file = unsafe { FeatureFile::map(path) }?;
        let (found, name) = (file.columns(), path.display());
        ensure!(found == dim, "{name} has vectors of {found} dimensions, the index has {dim}");
        let rows = ids.map(read_ids).transpose()?;
        if let Some(ids) = &rows {
            ensure!(
                ids.len() == file.rows(),
                "{name} has {} rows, {} ids were given",
                file.rows(),
                ids.len()
            );
        }
        let rows = rows.map(|ids| ids.into_iter().zip(0..).collect());
        Ok(Self { path: path.to_owned(), file, rows })
    }

    /// Reads the vector of an id.
    pub(crate) fn read(&self, id: u64, out: &mut [f32]) -> Result<()> {
        let row = match &self.rows {
            None => usize::try_from(id).ok().filter(|&row| row < self.file.rows()),
            Some(rows) => rows.get(&id).copied(),
        };
        let row = row.with_context(|| {
            let path = self.path.display();
            format!(
                "{path} has no vector for id {id}: give the ids of its rows, or the vectors of this index"
            )
        })?;
        Ok(self.file.read_finite(row, out)?)
    }
}
