//! Filters: the items that a search may return, prepared once and used for many searches.

use std::collections::HashSet;
use std::fmt::{Debug, Formatter};
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use dpq_codebook::Expected;

use crate::view::View;
use crate::{Error, Index};

/// The items of one index that a search may return.
///
/// [`Index::allow`], [`Index::deny`], [`Index::filter`] and [`Index::filter_from_bitmap`] make
/// filters. A filter serves any number of searches of the opened index that made it, and no other
/// index: not even another opening of the same file. It holds one bit per item. Clones share that
/// memory.
///
/// ```
/// # use dpq_index::{Assignment, Codebooks, Index};
/// # let codebooks = Codebooks::new(vec![1.0, 0.0, 0.0, 1.0], 1, 2, 2, Assignment::Euclidean)?;
/// # let index = Index::builder(&codebooks, &[0, 1, 1, 0, 1, 1]).build()?;
/// let even = index.filter(|id| id % 2 == 0);
/// let new_and_even = even.and(&index.deny(&[0, 1, 2]))?;
/// assert_eq!(new_and_even.len(), 1); // of ids 0 to 5 only id 4 passes
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Filter(Arc<Inner>);

struct Inner {
    /// The identity of the index.
    index: Arc<()>,
    n_items: usize,
    /// One bit per item, with zeros behind the last item.
    words: Vec<u64>,
    n_passing: usize,
    /// The items that pass, ascending, once a search has asked for them.
    listed: OnceLock<Vec<ListedItem>>,
}

/// An item and the place of its code.
pub(crate) struct ListedItem {
    pub(crate) first: u8,
    pub(crate) position: usize,
    pub(crate) item: usize,
}

impl Filter {
    fn new(index: Arc<()>, n_items: usize, mut words: Vec<u64>) -> Self {
        if let Some(last) = words.last_mut() {
            *last &= u64::MAX >> (words_of(n_items) * 64 - n_items);
        }
        let n_passing = words.iter().map(|word| word.count_ones() as usize).sum();
        Self(Arc::new(Inner { index, n_items, words, n_passing, listed: OnceLock::new() }))
    }

    /// Returns the number of items that pass.
    pub fn len(&self) -> usize {
        self.0.n_passing
    }

    /// Returns true if no item passes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the filter of the items that pass both filters.
    ///
    /// # Errors
    /// [`Error::ForeignFilter`] if the two filters are of different indexes.
    pub fn and(&self, other: &Self) -> Result<Self, Error> {
        self.combine(other, |a, b| a & b)
    }

    /// Returns the filter of the items that pass at least one of the two filters; errors are those
    /// of [`and`](Self::and).
    pub fn or(&self, other: &Self) -> Result<Self, Error> {
        self.combine(other, |a, b| a | b)
    }

    /// Returns the filter of the items that do not pass this one.
    #[must_use]
    pub fn not(&self) -> Self {
        let words = self.0.words.iter().map(|word| !word).collect();
        Self::new(self.0.index.clone(), self.0.n_items, words)
    }

    fn combine(&self, other: &Self, combine: impl Fn(u64, u64) -> u64) -> Result<Self, Error> {
        other.check(&self.0.index)?;
        let words = self.0.words.iter().zip(&other.0.words).map(|(&a, &b)| combine(a, b)).collect();
        Ok(Self::new(self.0.index.clone(), self.0.n_items, words))
    }

    /// Refuses a filter whose index has another identity.
    pub(crate) fn check(&self, index: &Arc<()>) -> Result<(), Error> {
        if Arc::ptr_eq(&self.0.index, index) { Ok(()) } else { Err(Error::ForeignFilter) }
    }

    /// Returns the items that pass. `view` belongs to the index of the filter.
    pub(crate) fn listed(&self, view: &View) -> &[ListedItem] {
        let listed = |item| {
            let position = view.position_of(item);
            ListedItem { first: view.row_of(position).0, position, item }
        };
        self.0.listed.get_or_init(|| self.runs(0..self.0.n_items).flatten().map(listed).collect())
    }

    /// Returns true if an item passes.
    pub(crate) fn has(&self, item: usize) -> bool {
        self.0.words[item / 64] >> (item % 64) & 1 == 1
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
            let rest = (self.0.words[from / 64] ^ flip) >> (from % 64);
            if rest != 0 {
                return Some(from + rest.trailing_zeros() as usize).filter(|&found| found < items.end);
            }
            from = (from / 64 + 1) * 64;
        }
        None
    }
}

impl Debug for Filter {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        write!(f, "Filter({} of {} items)", self.len(), self.0.n_items)
    }
}

impl Index {
    /// Makes the filter of the items with these ids. Ids that the index does not hold are ignored.
    pub fn allow(&self, ids: &[u64]) -> Filter {
        let ids: HashSet<u64> = ids.iter().copied().collect();
        self.filter(|id| ids.contains(&id))
    }

    /// Makes the filter of all items except those with these ids. Ids that the index does not hold
    /// are ignored.
    pub fn deny(&self, ids: &[u64]) -> Filter {
        self.allow(ids).not()
    }

    /// Makes the filter of the items whose id satisfies `passes`, which is called once per item.
    pub fn filter(&self, passes: impl Fn(u64) -> bool) -> Filter {
        let mut words = vec![0; words_of(self.len())];
        for (item, id) in self.ids().enumerate() {
            words[item / 64] |= u64::from(passes(id)) << (item % 64);
        }
        Filter::new(self.identity.clone(), self.len(), words)
    }

    /// Makes a filter from a bitmap, u64 `[⌈N/64⌉]`: the item at place i of [`ids`](Self::ids)
    /// passes if bit i mod 64 of word ⌊i/64⌋ is set. Bits behind the last item are ignored.
    ///
    /// # Errors
    /// [`Error::Codebook`] for another number of words.
    pub fn filter_from_bitmap(&self, words: &[u64]) -> Result<Filter, Error> {
        Expected::Shape(vec![words_of(self.len())]).check("bitmap", words.len())?;
        Ok(Filter::new(self.identity.clone(), self.len(), words.to_vec()))
    }

    /// Returns the id of each item in the order of the index: by code, then by id.
    pub fn ids(&self) -> impl Iterator<Item = u64> {
        self.view().ids.iter()
    }
}

fn words_of(n_items: usize) -> usize {
    n_items.div_ceil(64)
}
