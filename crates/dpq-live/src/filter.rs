//! Filters of a snapshot.

use std::sync::Arc;

use dpq_index::Index;

use crate::Error;
use crate::segment::Part;

/// Segments and the tail, and which of their items are visible: all, if there is no filter.
pub(crate) type Parts = [(Part, Option<dpq_index::Filter>)];

/// The items of one snapshot that a search may return.
///
/// [`Snapshot::allow`](crate::Snapshot::allow) and [`Snapshot::deny`](crate::Snapshot::deny) make
/// filters. A filter serves any number of searches of that snapshot and its clones, and no other
/// one.
#[derive(Clone)]
pub struct Filter {
    of: Arc<Parts>,
    /// By part. No filter passes items that are not visible.
    passing: Vec<dpq_index::Filter>,
}

impl Filter {
    pub(crate) fn new(of: &Arc<Parts>, passing: impl Fn(&Index) -> dpq_index::Filter) -> Self {
        let passing = of.iter().map(|(part, visible)| both(passing(&part.segment.index), visible));
        Self { of: of.clone(), passing: passing.collect() }
    }

    /// Returns the number of items that pass.
    pub fn len(&self) -> usize {
        self.passing.iter().map(dpq_index::Filter::len).sum()
    }

    /// Returns true if no item passes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the filter of the items that pass both filters.
    ///
    /// # Errors
    /// [`dpq_index::Error::ForeignFilter`] if the two filters are of different snapshots.
    pub fn and(&self, other: &Self) -> Result<Self, Error> {
        self.combine(other, dpq_index::Filter::and)
    }

    /// Returns the filter of the items that pass at least one of the two filters; errors are those
    /// of [`and`](Self::and).
    pub fn or(&self, other: &Self) -> Result<Self, Error> {
        self.combine(other, dpq_index::Filter::or)
    }

    /// Returns the filter of the items that do not pass this one.
    #[must_use]
    pub fn not(&self) -> Self {
        let parts = self.passing.iter().zip(&*self.of);
        let passing = parts.map(|(passing, (_, visible))| both(passing.not(), visible)).collect();
        Self { of: self.of.clone(), passing }
    }

    fn combine(
        &self,
        other: &Self,
        combine: fn(&dpq_index::Filter, &dpq_index::Filter) -> Result<dpq_index::Filter, dpq_index::Error>,
    ) -> Result<Self, Error> {
        let passing = self.passing.iter().zip(other.of(&self.of)?);
        let passing = passing.map(|(a, b)| combine(a, b)).collect::<Result<_, _>>()?;
        Ok(Self { of: self.of.clone(), passing })
    }

    /// Returns the filters by part, if they are `of` these parts.
    pub(crate) fn of(&self, of: &Arc<Parts>) -> Result<&[dpq_index::Filter], Error> {
        if Arc::ptr_eq(&self.of, of) {
            Ok(&self.passing)
        } else {
            Err(dpq_index::Error::ForeignFilter.into())
        }
    }
}

fn both(passing: dpq_index::Filter, visible: &Option<dpq_index::Filter>) -> dpq_index::Filter {
    let Some(visible) = visible else { return passing };
    passing.and(visible).expect("both are of the part's index")
}
