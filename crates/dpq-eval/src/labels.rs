//! Class labels as bit sets, and the relevance that follows from them.

use crate::Error;

/// The classes of `len()` items, one bit per class.
///
/// An item is relevant to a query if they share at least one class. An item without any class is
/// relevant to no query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Labels {
    /// `[len, n_words]`, row-major; bit c % 64 of word c / 64 is class c.
    words: Vec<u64>,
    n_words: usize,
    n_classes: usize,
}

impl Labels {
    /// Reads a multi-hot matrix.
    ///
    /// Shapes: `values` `[n, n_classes]` row-major, each 0 or 1; rows without a class are allowed.
    ///
    /// # Errors
    /// [`Error::LabelShape`] if `n_classes` is zero or the values are not whole rows;
    /// [`Error::LabelValue`].
    pub fn from_multi_hot(values: &[u8], n_classes: usize) -> Result<Self, Error> {
        if n_classes == 0 || !values.len().is_multiple_of(n_classes) {
            return Err(Error::LabelShape { n_values: values.len(), n_classes });
        }
        if let Some(at) = values.iter().position(|&value| value > 1) {
            return Err(Error::LabelValue { row: at / n_classes, class: at % n_classes, value: values[at] });
        }
        let pack = |bits: &[u8]| bits.iter().rev().fold(0, |word, &bit| word << 1 | u64::from(bit));
        let words = values.chunks_exact(n_classes).flat_map(|row| row.chunks(64).map(pack)).collect();
        Ok(Self { words, n_words: n_classes.div_ceil(64), n_classes })
    }

    /// Returns the number of items.
    pub fn len(&self) -> usize {
        self.words.len() / self.n_words
    }

    /// Returns true if there are no items.
    pub fn is_empty(&self) -> bool {
        self.words.is_empty()
    }

    /// Returns the number of classes.
    pub fn n_classes(&self) -> usize {
        self.n_classes
    }

    /// Returns the classes of an item as bits: bit c % 64 of word c / 64 is class c.
    ///
    /// # Errors
    /// [`Error::Item`] if there is no such item.
    pub fn classes(&self, item: usize) -> Result<&[u64], Error> {
        let mut rows = self.words.chunks_exact(self.n_words);
        rows.nth(item).ok_or(Error::Item { item, n_items: self.len() })
    }

    /// Returns for each item of `gallery` whether it is relevant to the query `item` of these
    /// labels, `[gallery.len()]`.
    ///
    /// # Errors
    /// [`Error::ClassCount`] if the two have different numbers of classes; [`Error::Item`] if there
    /// is no such query.
    pub fn relevant(&self, item: usize, gallery: &Self) -> Result<Vec<bool>, Error> {
        if self.n_classes != gallery.n_classes {
            return Err(Error::ClassCount { query: self.n_classes, gallery: gallery.n_classes });
        }
        Ok(match self.classes(item)? {
            // Up to 64 classes, the usual case, the loop is one instruction per row and vectorises.
            &[query] => gallery.words.iter().map(|item| item & query != 0).collect(),
            query => {
                let share = |item: &[u64]| item.iter().zip(query).any(|(a, b)| a & b != 0);
                gallery.words.chunks_exact(self.n_words).map(share).collect()
            }
        })
    }
}
