//! Filters: the items that a search may return, prepared once and used for many searches.

use std::collections::HashSet;
use std::ops::Range;

use crate::{Error, Index};

/// A set of items of one index, one bit each, made by [`Index::allow`] or [`Index::deny`].
pub struct Filter {
    words: Vec<u64>,
    /// The items that pass, ascending, unless there are many.
    few: Option<Vec<Place>>,
    n_allowed: usize,
    /// Number of items and checksum of `ids`: the bits mean the same items exactly where these agree.
    index: (usize, String),
}

/// Where an item and its code are.
pub(crate) struct Place {
    pub(crate) first: u8,
    pub(crate) position: usize,
    pub(crate) item: usize,
}

/// The most items that are listed.
const FEW: usize = 1 << 16;

impl Filter {
    /// Returns the items that pass, unless they are many.
    pub(crate) fn few(&self) -> Option<&[Place]> {
        self.few.as_deref()
    }

    /// Returns the number of items that pass.
    pub fn len(&self) -> usize {
        self.n_allowed
    }

    /// Tells whether no item passes.
    pub fn is_empty(&self) -> bool {
        self.n_allowed == 0
    }

    /// Tells whether an item passes.
    pub(crate) fn has(&self, item: usize) -> bool {
        self.words[item / 64] >> (item % 64) & 1 == 1
    }

    /// Yields the longest runs of items in `items` that pass.
    pub(crate) fn runs(&self, mut items: Range<usize>) -> impl Iterator<Item = Range<usize>> {
        std::iter::from_fn(move || {
            let start = self.next(items.clone(), 0)?;
            let end = self.next(start..items.end, u64::MAX).unwrap_or(items.end);
            items.start = end;
            Some(start..end)
        })
    }

    /// Returns the first item in `items` whose bit is set after flipping by `flip`.
    fn next(&self, items: Range<usize>, flip: u64) -> Option<usize> {
        let mut from = items.start;
        while from < items.end {
            let rest = (self.words[from / 64] ^ flip) >> (from % 64);
            if rest != 0 {
                return Some(from + rest.trailing_zeros() as usize).filter(|&found| found < items.end);
            }
            from = (from / 64 + 1) * 64;
        }
        None
    }
}

impl Index {
    /// Prepares a filter that lets only the items with these ids pass. Reads every id of the index once.
    ///
    /// Ids that the index does not hold are ignored: [`Filter::len`] tells how many were found.
    pub fn allow(&self, ids: &[u64]) -> Filter {
        let ids: HashSet<u64> = ids.iter().copied().collect();
        self.filter(|id| ids.contains(&id))
    }

    /// Prepares a filter that lets all items pass but those with these ids. Reads every id of the index once.
    ///
    /// Ids that the index does not hold are ignored.
    pub fn deny(&self, ids: &[u64]) -> Filter {
        let ids: HashSet<u64> = ids.iter().copied().collect();
        self.filter(|id| !ids.contains(&id))
    }

    fn filter(&self, passes: impl Fn(u64) -> bool) -> Filter {
        let view = self.view();
        let mut words = vec![0; self.len().div_ceil(64)];
        let mut n_allowed = 0;
        for (item, id) in view.ids.iter().enumerate() {
            if passes(id) {
                words[item / 64] |= 1 << (item % 64);
                n_allowed += 1;
            }
        }
        let mut filter = Filter { words, few: None, n_allowed, index: self.identity() };
        if n_allowed <= FEW {
            let place = |item| {
                let position = view.position_of(item);
                Place { first: view.row_of(position).0, position, item }
            };
            filter.few = Some(filter.runs(0..self.len()).flatten().map(place).collect());
        }
        filter
    }

    fn identity(&self) -> (usize, String) {
        let checksum =
            self.container.metadata("crc.ids").expect("the container checks every section's checksum");
        (self.len(), checksum.to_owned())
    }

    pub(crate) fn check_filter(&self, filter: &Filter) -> Result<(), Error> {
        if filter.index == self.identity() {
            return Ok(());
        }
        Err(Error::Search {
            reason: format!(
                "the filter was prepared for another index (of {} items, this one has {}): prepare it with this one",
                filter.index.0,
                self.len()
            ),
        })
    }
}
