//! The items that `dpq search` searches: an index file, or the last commit of a live index. How all
//! commands open both.

use std::path::Path;

use anyhow::{Result, ensure};
use dpq_codebook::Codebooks;
use dpq_index::{Filter, Hit, Index, SearchOptions};
use dpq_live::{LiveIndex, Snapshot};

pub(crate) enum Gallery {
    File(Box<Index>, Option<Filter>),
    Live(Snapshot, Option<dpq_live::Filter>),
}

impl Gallery {
    /// Memory-maps an index file, or the segments of a folder.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        if path.is_dir() {
            return Ok(Self::Live(snapshot(path)?, None));
        }
        Ok(Self::File(Box::new(map(path)?), None))
    }

    pub(crate) fn codebooks(&self) -> &Codebooks {
        match self {
            Self::File(index, _) => index.codebooks(),
            Self::Live(snapshot, _) => snapshot.codebooks(),
        }
    }

    /// Leaves out all items but those with these ids.
    pub(crate) fn allow(&mut self, ids: &[u64]) {
        match self {
            Self::File(index, filter) => *filter = Some(index.allow(ids)),
            Self::Live(snapshot, filter) => *filter = Some(snapshot.allow(ids)),
        }
    }

    pub(crate) fn search_batch(&self, queries: &[f32], options: SearchOptions) -> Result<Vec<Vec<Hit>>> {
        Ok(match self {
            Self::File(index, None) => index.search_batch(queries, &options)?,
            Self::File(index, Some(filter)) => index.search_batch(queries, &options.filter(filter))?,
            Self::Live(snapshot, None) => snapshot.search_batch(queries, &options)?,
            Self::Live(snapshot, Some(filter)) => snapshot.search_filtered(queries, &options, filter)?,
        })
    }

    /// As [`Index::rerank`].
    pub(crate) fn rerank(
        &self,
        query: &[f32],
        hits: &[Hit],
        k: usize,
        read: impl FnMut(u64, &mut [f32]) -> Result<()>,
    ) -> Result<Vec<Hit>> {
        match self {
            Self::File(index, _) => index.rerank(query, hits, k, read),
            Self::Live(snapshot, _) => snapshot.rerank(query, hits, k, read),
        }
    }

    /// Returns the name that a live index has for an id.
    pub(crate) fn name_of(&self, id: u64) -> Option<&str> {
        match self {
            Self::File(..) => None,
            Self::Live(snapshot, _) => snapshot.name_of(id),
        }
    }
}

/// Memory-maps an index, which opens in the same time whatever its size.
#[expect(unsafe_code, reason = "a mapping is only as constant as its file")]
pub(crate) fn map(path: &Path) -> Result<Index> {
    ensure!(
        !path.join("manifest.dpq").exists(),
        "{} is a live index, this command takes an index file: compact it and give its segment file",
        path.display()
    );
    // SAFETY: the process maps the file for one command, and dpq replaces files by renaming. The
    // user promises the rest.
    Ok(unsafe { Index::map(path) }?)
}

/// Memory-maps the last commit of a live index.
#[expect(unsafe_code, reason = "a mapping is only as constant as its files")]
pub(crate) fn snapshot(path: &Path) -> Result<Snapshot> {
    // SAFETY: the process maps the files for one command, and dpq writes each once and removes it.
    // The user promises the rest.
    Ok(unsafe { Snapshot::map(path) }?)
}

/// Opens a live index for changes, and memory-maps its segments.
#[expect(unsafe_code, reason = "a mapping is only as constant as its files")]
pub(crate) fn writer(path: &Path) -> Result<LiveIndex, dpq_live::Error> {
    // SAFETY: the process maps the files for one command, and dpq writes each once and removes it.
    // The user promises the rest.
    unsafe { LiveIndex::map(path) }
}
