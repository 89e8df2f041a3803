//! The vectors that an index was made of, to score hits by.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use dpq_formats::{FeatureFile, read_ids};
use dpq_index::{Hit, Index};

/// A memory-mapped file of vectors.
pub(crate) struct Vectors {
    path: PathBuf,
    file: FeatureFile,
    /// The row of each id; without, ids are rows.
    rows: Option<HashMap<u64, usize>>,
}

impl Vectors {
    /// Opens the vectors of the items of `index`. The file `ids` has the id of each row.
    #[expect(unsafe_code, reason = "a mapping is only as constant as its file")]
    pub(crate) fn open(path: &Path, ids: Option<&Path>, index: &Index) -> Result<Self> {
        // SAFETY: the process maps the file for one command, and dpq replaces files by renaming.
        // The user promises the rest.
        let file = unsafe { FeatureFile::map(path) }?;
        let (found, dim, name) = (file.columns(), index.codebooks().dim(), path.display());
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

    /// Returns the best `k` of the `hits` of a query, by vectors.
    pub(crate) fn rerank(&self, index: &Index, query: &[f32], hits: &[Hit], k: usize) -> Result<Vec<Hit>> {
        index.rerank(query, hits, k, |id, out| {
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
        })
    }
}
