//! Lookup tables: what a query knows of every codeword.

use crate::dot::dots;
use crate::error::check_finite;
use crate::{CodeLength, Codebooks, Error};

/// One number a codeword: f32 [L, K], finite.
///
/// For a query x the entry is ⟨x, c⟩, and the inner product with an approximation is the sum of one entry a level: the
/// asymmetric quantizer distance (AQD). Any other additive score may be searched by a table of its own.
#[derive(Clone, Debug, PartialEq)]
pub struct LookupTable {
    values: Vec<f32>,
    n_levels: usize,
    n_codewords: usize,
}

impl LookupTable {
    /// Makes a table of `values`, f32 [n_levels, n_codewords].
    ///
    /// # Errors
    /// [`Error::Range`], [`Error::Length`] or [`Error::NotFinite`] if the values are no table.
    pub fn new(values: Vec<f32>, n_levels: usize, n_codewords: usize) -> Result<Self, Error> {
        CodeLength::from_levels(n_levels)?;
        crate::codebooks::check_n_codewords(n_codewords)?;
        if values.len() != n_levels * n_codewords {
            return Err(Error::Length {
                what: "lookup table",
                found: values.len(),
                expected: format!("{n_levels} levels × {n_codewords} codewords"),
            });
        }
        check_finite("lookup table", &values)?;
        Ok(Self { values, n_levels, n_codewords })
    }

    /// Levels, L.
    pub fn n_levels(&self) -> usize {
        self.n_levels
    }

    /// Codewords a level, K.
    pub fn n_codewords(&self) -> usize {
        self.n_codewords
    }

    /// The entries of a level, f32 `[K]`.
    ///
    /// # Panics
    /// If there is no such level.
    pub fn level(&self, level: usize) -> &[f32] {
        &self.values[level * self.n_codewords..][..self.n_codewords]
    }

    /// All entries, f32 [L, K].
    pub fn values(&self) -> &[f32] {
        &self.values
    }
}

impl Codebooks {
    /// The inner products of a query `[D]` and all codewords, each summed in one fixed order: the same bits on every CPU,
    /// for one query or many.
    ///
    /// # Errors
    /// [`Error::Length`] unless the query has D values, [`Error::NotFinite`] if one, or an inner product, is NaN or
    /// infinite.
    pub fn lookup_table(&self, query: &[f32]) -> Result<LookupTable, Error> {
        self.lookup_table_at(query, self.max_length())
    }

    /// The first levels of [`lookup_table`](Self::lookup_table), those of a code of `length`, in as much less time.
    ///
    /// # Errors
    /// As [`lookup_table`](Self::lookup_table), and [`Error::Range`] for a length above that of the codes.
    pub fn lookup_table_at(&self, query: &[f32], length: CodeLength) -> Result<LookupTable, Error> {
        if query.len() != self.dim() {
            return Err(Error::Length {
                what: "query",
                found: query.len(),
                expected: self.dim().to_string(),
            });
        }
        check_finite("query", query)?;
        self.check_length(length)?;
        let n_values = length.levels() * self.n_codewords();
        let mut values = vec![0.0; n_values];
        dots(query, &self.values()[..n_values * self.dim()], &mut values);
        LookupTable::new(values, length.levels(), self.n_codewords())
    }
}
