//! The two kinds of index that `pydpq.Index` is: an index file, and the last commit of a live
//! index.

use std::path::Path;

use dpq_codebook::{CodeLength, Codebooks};
use dpq_index::{Error, Hit, Metric, SearchOptions};
use dpq_live::Snapshot;
use pyo3::PyResult;

use crate::error::raise;

pub(crate) enum Opened {
    File(Box<dpq_index::Index>),
    Live(Snapshot),
}

pub(crate) enum Filter {
    File(dpq_index::Filter),
    Live(dpq_live::Filter),
}

impl From<dpq_index::Index> for Opened {
    fn from(index: dpq_index::Index) -> Self {
        Self::File(Box::new(index))
    }
}

impl Opened {
    /// Memory-maps a file, or the segments of a folder.
    ///
    /// # Safety
    /// As [`dpq_index::Index::map`] and [`Snapshot::map`].
    #[expect(unsafe_code, reason = "a mapping is only as constant as its file")]
    pub(crate) unsafe fn map(path: &Path) -> PyResult<Self> {
        if path.is_dir() {
            // SAFETY: the caller promises it.
            return unsafe { Snapshot::map(path) }.map(Self::Live).map_err(raise);
        }
        // SAFETY: the caller promises it.
        unsafe { dpq_index::Index::map(path) }.map(Self::from).map_err(raise)
    }

    /// Builds an index in memory of the same items.
    pub(crate) fn build(&self) -> PyResult<dpq_index::Index> {
        let (ids, codes) = self.ids_and_codes();
        let index = dpq_index::Index::builder(self.codebooks(), &codes).ids(&ids).metric(self.metric());
        index.build().map_err(raise)
    }

    pub(crate) fn save(&self, path: &Path) -> PyResult<()> {
        match self {
            Self::File(index) => index.save(path).map_err(raise),
            Self::Live(_) => self.build()?.save(path).map_err(raise),
        }
    }

    pub(crate) fn ids_and_codes(&self) -> (Vec<u64>, Vec<u8>) {
        match self {
            Self::File(index) => index.ids_and_codes(),
            Self::Live(snapshot) => snapshot.ids_and_codes(),
        }
    }

    pub(crate) fn codebooks(&self) -> &Codebooks {
        match self {
            Self::File(index) => index.codebooks(),
            Self::Live(snapshot) => snapshot.codebooks(),
        }
    }

    pub(crate) fn metric(&self) -> Metric {
        match self {
            Self::File(index) => index.metric(),
            Self::Live(snapshot) => snapshot.metric(),
        }
    }

    pub(crate) fn len(&self) -> usize {
        match self {
            Self::File(index) => index.len(),
            Self::Live(snapshot) => snapshot.len(),
        }
    }

    pub(crate) fn version(&self) -> u8 {
        match self {
            Self::File(index) => index.version(),
            Self::Live(snapshot) => snapshot.version(),
        }
    }

    pub(crate) fn norm_lengths(&self) -> &[CodeLength] {
        match self {
            Self::File(index) => index.norm_lengths(),
            Self::Live(snapshot) => snapshot.norm_lengths(),
        }
    }

    pub(crate) fn name_of(&self, id: u64) -> Option<&str> {
        match self {
            Self::File(_) => None,
            Self::Live(snapshot) => snapshot.name_of(id),
        }
    }

    pub(crate) fn allow(&self, ids: &[u64]) -> Filter {
        match self {
            Self::File(index) => Filter::File(index.allow(ids)),
            Self::Live(snapshot) => Filter::Live(snapshot.allow(ids)),
        }
    }

    pub(crate) fn deny(&self, ids: &[u64]) -> Filter {
        match self {
            Self::File(index) => Filter::File(index.deny(ids)),
            Self::Live(snapshot) => Filter::Live(snapshot.deny(ids)),
        }
    }

    pub(crate) fn search_batch(
        &self,
        queries: &[f32],
        options: &SearchOptions,
        filter: Option<&Filter>,
    ) -> PyResult<Vec<Vec<Hit>>> {
        match (self, filter) {
            (Self::File(index), None) => index.search_batch(queries, options).map_err(raise),
            (Self::File(index), Some(Filter::File(filter))) => {
                index.search_batch(queries, &options.filter(filter)).map_err(raise)
            }
            (Self::Live(snapshot), None) => snapshot.search_batch(queries, options).map_err(raise),
            (Self::Live(snapshot), Some(Filter::Live(filter))) => {
                snapshot.search_filtered(queries, options, filter).map_err(raise)
            }
            _ => Err(raise(Error::ForeignFilter)),
        }
    }

    /// As [`dpq_index::Index::rerank`].
    pub(crate) fn rerank(
        &self,
        query: &[f32],
        hits: &[Hit],
        k: usize,
        read: impl FnMut(u64, &mut [f32]) -> Result<(), Error>,
    ) -> Result<Vec<Hit>, Error> {
        match self {
            Self::File(index) => index.rerank(query, hits, k, read),
            Self::Live(snapshot) => snapshot.rerank(query, hits, k, read),
        }
    }

    pub(crate) fn squared_distances(&self, query: &[f32], hits: &[Hit]) -> PyResult<Vec<f32>> {
        match self {
            Self::File(index) => index.squared_distances(query, hits).map_err(raise),
            Self::Live(snapshot) => snapshot.squared_distances(query, hits).map_err(raise),
        }
    }

    pub(crate) fn verify(&self) -> PyResult<()> {
        match self {
            Self::File(index) => index.verify().map_err(raise),
            Self::Live(snapshot) => snapshot.verify().map_err(raise),
        }
    }
}

impl Filter {
    pub(crate) fn and(&self, other: &Self) -> PyResult<Self> {
        match (self, other) {
            (Self::File(a), Self::File(b)) => a.and(b).map(Self::File).map_err(raise),
            (Self::Live(a), Self::Live(b)) => a.and(b).map(Self::Live).map_err(raise),
            _ => Err(raise(Error::ForeignFilter)),
        }
    }

    pub(crate) fn or(&self, other: &Self) -> PyResult<Self> {
        match (self, other) {
            (Self::File(a), Self::File(b)) => a.or(b).map(Self::File).map_err(raise),
            (Self::Live(a), Self::Live(b)) => a.or(b).map(Self::Live).map_err(raise),
            _ => Err(raise(Error::ForeignFilter)),
        }
    }

    pub(crate) fn not(&self) -> Self {
        match self {
            Self::File(filter) => Self::File(filter.not()),
            Self::Live(filter) => Self::Live(filter.not()),
        }
    }

    pub(crate) fn len(&self) -> usize {
        match self {
            Self::File(filter) => filter.len(),
            Self::Live(filter) => filter.len(),
        }
    }
}
