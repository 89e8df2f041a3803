//! Class labels of items as bit sets, and who is relevant to whom.

use crate::Error;

/// The classes of `len()` items, one bit a class.
///
/// An item is relevant to a query when they share at least one class (multi-label relevance; with one class
/// an item this is equality). An item without any class is relevant to nobody.
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
    /// [`Error::LabelShape`] if `n_classes` is zero or the values do not make whole rows;
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

    /// Number of items.
    pub fn len(&self) -> usize {
        self.words.len() / self.n_words
    }

    /// Whether there are no items.
    pub fn is_empty(&self) -> bool {
        self.words.is_empty()
    }

    /// Number of classes.
    pub fn n_classes(&self) -> usize {
        self.n_classes
    }

    /// The classes of item `i` as bits: bit c % 64 of word c / 64 is class c.
    ///
    /// # Panics
    /// If item `i` does not exist.
    pub fn classes(&self, i: usize) -> &[u64] {
        &self.words[i * self.n_words..][..self.n_words]
    }

    /// Whether item `i` of these labels and item `j` of `other` share a class.
    ///
    /// # Panics
    /// If an item does not exist or the two label sets differ in their number of classes.
    pub fn share(&self, i: usize, other: &Self, j: usize) -> bool {
        assert_eq!(self.n_classes, other.n_classes, "labels of different classes cannot be compared");
        intersect(self.classes(i), other.classes(j))
    }

    /// For each item of `gallery`, whether it is relevant to item `i` of these labels; `[gallery.len()]`.
    ///
    /// # Errors
    /// [`Error::ClassCount`] if the two label sets differ in their number of classes.
    ///
    /// # Panics
    /// If item `i` does not exist.
    pub fn relevant(&self, i: usize, gallery: &Self) -> Result<Vec<bool>, Error> {
        if self.n_classes != gallery.n_classes {
            return Err(Error::ClassCount { query: self.n_classes, gallery: gallery.n_classes });
        }
        Ok(match self.classes(i) {
            // Up to 64 classes, the usual case, the loop is one instruction a row and vectorises.
            &[query] => gallery.words.iter().map(|item| item & query != 0).collect(),
            query => gallery.words.chunks_exact(self.n_words).map(|item| intersect(query, item)).collect(),
        })
    }
}

fn intersect(a: &[u64], b: &[u64]) -> bool {
    a.iter().zip(b).any(|(a, b)| a & b != 0)
}
