//! The gallery that a server searches: an index file, or the last commit of a live index.

use std::sync::{Arc, PoisonError, RwLock};

use dpq_codebook::Codebooks;
use dpq_index::{Hit, Index, Metric, SearchOptions};
use dpq_live::{LiveIndex, Snapshot};

use crate::refusal::Refusal;

/// The gallery to serve.
pub enum Gallery {
    /// An index file, which does not change.
    File(Box<Index>),
    /// A live index, which requests change.
    Live(Box<LiveIndex>),
}

/// A gallery at one moment.
pub(crate) enum Reader {
    File(Box<Index>),
    Live(Snapshot),
}

/// The newest gallery. A search keeps the one that it started with.
pub(crate) struct Latest(RwLock<Arc<Reader>>);

impl Latest {
    pub(crate) fn new(reader: Reader) -> Self {
        Self(RwLock::new(Arc::new(reader)))
    }

    pub(crate) fn get(&self) -> Arc<Reader> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set(&self, reader: Reader) {
        let reader = Arc::new(reader);
        // The gallery before is dropped after the lock.
        let _old = std::mem::replace(&mut *self.0.write().unwrap_or_else(PoisonError::into_inner), reader);
    }
}

/// The items that a search may return, of one [`Reader`].
pub(crate) enum Filter {
    File(dpq_index::Filter),
    Live(dpq_live::Filter),
}

impl Reader {
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

    /// Returns the size of indexes and names, in bytes.
    pub(crate) fn n_bytes(&self) -> usize {
        match self {
            Self::File(index) => index.n_bytes(),
            Self::Live(snapshot) => snapshot.stats().bytes,
        }
    }

    /// Returns the number of the commit, of a live index.
    pub(crate) fn commit(&self) -> Option<u64> {
        match self {
            Self::File(_) => None,
            Self::Live(snapshot) => Some(snapshot.commit()),
        }
    }

    pub(crate) fn code_of(&self, id: u64) -> Option<Vec<u8>> {
        match self {
            Self::File(index) => index.code_of(id),
            Self::Live(snapshot) => snapshot.code_of(id),
        }
    }

    /// Does the work that the first search for an id would do.
    pub(crate) fn sort_ids(&self) {
        match self {
            Self::File(index) => index.sort_ids(),
            Self::Live(snapshot) => snapshot.sort_ids(),
        }
    }

    pub(crate) fn name_of(&self, id: u64) -> Option<&str> {
        match self {
            Self::File(_) => None,
            Self::Live(snapshot) => snapshot.name_of(id),
        }
    }

    pub(crate) fn id_of(&self, name: &str) -> Option<u64> {
        match self {
            Self::File(_) => None,
            Self::Live(snapshot) => snapshot.id_of(name),
        }
    }

    /// Returns how many items have codes that begin with the first 1, 2, … bytes of `code`.
    pub(crate) fn prefix_counts(&self, code: &[u8]) -> Result<Vec<usize>, Refusal> {
        Ok(match self {
            Self::File(index) => index.prefix_counts(code, None)?,
            Self::Live(snapshot) => snapshot.prefix_counts(code)?,
        })
    }

    /// Yields the ids of all items, in the order in which the gallery keeps them.
    pub(crate) fn ids(&self) -> Box<dyn Iterator<Item = u64> + '_> {
        match self {
            Self::File(index) => Box::new(index.ids()),
            Self::Live(snapshot) => Box::new(snapshot.ids()),
        }
    }

    /// Makes the filter of the items with these ids, and not with those. Returns `None` if all
    /// items pass.
    pub(crate) fn filter(&self, allow: Option<&[u64]>, deny: &[u64]) -> Result<Option<Filter>, Refusal> {
        Ok(match (self, allow, deny) {
            (_, None, []) => None,
            (Self::File(index), None, _) => Some(Filter::File(index.deny(deny))),
            (Self::File(index), Some(allow), []) => Some(Filter::File(index.allow(allow))),
            (Self::File(index), Some(allow), _) => {
                Some(Filter::File(index.allow(allow).and(&index.deny(deny))?))
            }
            (Self::Live(snapshot), None, _) => Some(Filter::Live(snapshot.deny(deny))),
            (Self::Live(snapshot), Some(allow), []) => Some(Filter::Live(snapshot.allow(allow))),
            (Self::Live(snapshot), Some(allow), _) => {
                Some(Filter::Live(snapshot.allow(allow).and(&snapshot.deny(deny))?))
            }
        })
    }

    /// Returns the hits of one query `[D]`.
    pub(crate) fn search(
        &self,
        query: &[f32],
        options: &SearchOptions,
        filter: Option<&Filter>,
    ) -> Result<Vec<Hit>, Refusal> {
        let mut hits = match (self, filter) {
            (Self::File(index), Some(Filter::File(filter))) => {
                index.search_batch(query, &options.filter(filter))?
            }
            (Self::File(index), _) => index.search_batch(query, options)?,
            (Self::Live(snapshot), Some(Filter::Live(filter))) => {
                snapshot.search_filtered(query, options, filter)?
            }
            (Self::Live(snapshot), _) => snapshot.search_batch(query, options)?,
        };
        Ok(hits.pop().unwrap_or_default())
    }
}
