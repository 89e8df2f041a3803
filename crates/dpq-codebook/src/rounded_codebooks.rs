//! Codewords rounded to 8 bits, which give lookup tables with a known error from a quarter of the
//! memory.
//!
//! A lookup table takes as long as reading the codewords, and in a search by long codes that is
//! most of the time. A search by approximate entries finds the few codes that may be among the
//! best; only their entries are then computed exactly.
//!
//! A codeword c is rounded to integers up to ±127 and a scale of its own, a query to integers of 16
//! bits. Their products are summed in 32 bits, which is exact in any order.

mod products;

use rayon::prelude::*;

use products::{BLOCK, products};

use crate::error::{MAX_VALUES, check_finite, check_size};
use crate::norm::{squared_norm, sum};
use crate::rounded::{round, scale};
use crate::table::rows_at;
use crate::vectorize::vectorize;
use crate::{CodeLength, Codebooks, Error, Expected, LookupTable};

/// The largest integer of a codeword.
const MAX_INTEGER: f32 = 127.0;

/// Codewords rounded to 8 bits, and what that leaves of them, rounded to 8 bits again: together
/// half of their memory.
#[derive(Debug)]
pub struct RoundedCodebooks {
    n_codewords: usize,
    dim: usize,
    parts: [Part; 2],
    /// The maximum ‖c‖ of each level.
    norms: Vec<f64>,
    /// The maximum error of the second part of each level.
    fine_errors: Vec<f64>,
}

/// Codewords or their remainders, rounded.
#[derive(Debug)]
struct Part {
    /// The length of a row of integers, D or a few more.
    stride: usize,
    /// [L, K, stride].
    integers: Vec<i8>,
    /// A rounded vector is this times its integers, [L, K].
    scales: Vec<f32>,
    /// The distance of a codeword from the sum of its rounded parts up to this one, [L, K].
    errors: Vec<f32>,
}

impl Part {
    /// Returns the integers, the scale and the error of each row.
    fn rows(&mut self) -> impl IndexedParallelIterator<Item = ((&mut [i8], &mut f32), &mut f32)> {
        self.integers.par_chunks_exact_mut(self.stride).zip(&mut self.scales).zip(&mut self.errors)
    }
}

/// A query rounded to 16 bits, for [`RoundedCodebooks`].
#[derive(Debug)]
pub struct RoundedQuery {
    integers: Vec<i16>,
    scale: f32,
    norm: f64,
    error: f64,
}

impl RoundedCodebooks {
    /// Rounds codewords on the current rayon pool: the work of about nineteen lookup tables.
    ///
    /// # Errors
    /// [`Error::Product`] for product codebooks, whose tables take L times less work.
    pub fn new(codebooks: &Codebooks) -> Result<Self, Error> {
        codebooks.check_progressive()?;
        let (dim, n_codewords) = (codebooks.dim(), codebooks.n_codewords());
        let stride = dim.next_multiple_of(BLOCK);
        let n = codebooks.n_levels() * n_codewords;
        let part =
            || Part { stride, integers: vec![0; n * stride], scales: vec![0.0; n], errors: vec![0.0; n] };
        let ([mut coarse, mut fine], mut norms) = ([part(), part()], vec![0.0; n]);
        let rows = codebooks.values().par_chunks_exact(dim).zip(&mut norms);
        rows.zip(coarse.rows()).zip(fine.rows()).for_each_init(
            Vec::new,
            |rest, (((row, norm), coarse), fine)| {
                rest.clear();
                rest.extend_from_slice(row);
                *norm = squared_norm(row).sqrt();
                for ((integers, scale), error) in [coarse, fine] {
                    let left;
                    (*scale, left) = round_off(rest, integers);
                    // The remainder of a remainder is rounded to f32, too.
                    *error = (left * (1.0 + 1e-6) + *norm * 1e-7) as f32;
                }
            },
        );
        let parts = [coarse, fine];
        let max = |norms: &[f64]| norms.iter().copied().fold(0.0, f64::max);
        let norms = norms.chunks(n_codewords).map(max).collect();
        let max = |errors: &[f32]| errors.iter().copied().fold(0.0, f32::max).into();
        let fine_errors = parts[1].errors.chunks(n_codewords).map(max).collect();
        Ok(Self { n_codewords, dim, parts, norms, fine_errors })
    }

    /// Rounds a query `[D]`.
    ///
    /// # Errors
    /// [`Error::Argument`] unless the query has D values, [`Error::NotFinite`] if one is NaN or
    /// infinite.
    pub fn round(&self, query: &[f32]) -> Result<RoundedQuery, Error> {
        Expected::Shape(vec![self.dim]).check("query", query.len())?;
        check_finite("query", query)?;
        // So small that sums of products with codewords fit 32 bits.
        let max = i32::MAX as f64 / f64::from(MAX_INTEGER) / self.parts[0].stride as f64;
        let scale = scale(query, max.min(i16::MAX.into()).floor().max(1.0) as f32);
        let mut integers = vec![0; self.parts[0].stride];
        for (integer, x) in integers.iter_mut().zip(query) {
            *integer = (x / scale).round() as i16;
        }
        let remainder = |(x, &q): (&f32, &i16)| f64::from(*x) - f64::from(scale) * f64::from(q);
        let error = query.iter().zip(&integers).map(remainder).map(|x| x * x).sum::<f64>().sqrt();
        Ok(RoundedQuery { integers, scale, norm: squared_norm(query).sqrt(), error })
    }

    /// Returns true if bounds hold for `n_levels`: no sum of entries, approximate or exact, may
    /// overflow f32, and the length of the query is zero or a normal number.
    ///
    /// # Panics
    /// If there are fewer than `n_levels`.
    pub fn fits(&self, query: &RoundedQuery, n_levels: usize) -> bool {
        let max = f64::from(f32::MAX) / 8.0;
        let is_normal = query.norm == 0.0 || (f64::from(f32::MIN_POSITIVE)..max).contains(&query.norm);
        is_normal && self.max_magnitude(query, n_levels) < max
    }

    /// Returns a number that no sum of entries of `n_levels`, approximate or exact, exceeds in
    /// magnitude.
    ///
    /// # Panics
    /// If there are fewer than `n_levels`.
    pub fn max_magnitude(&self, query: &RoundedQuery, n_levels: usize) -> f64 {
        4.0 * query.norm * self.norms[..n_levels].iter().sum::<f64>()
    }

    /// Returns a bound on |s − t| for all codes of `n_levels`: s is the sum of the fine entries of
    /// a code, t that of the entries of [`Codebooks::lookup_table`], and both are summed without
    /// rounding.
    ///
    /// # Panics
    /// If there are fewer than `n_levels`.
    pub fn max_error(&self, query: &RoundedQuery, n_levels: usize) -> f64 {
        let of_level = |level: usize| query.norm * self.fine_errors[level] + self.rounding(query, level);
        // The computation of the bound rounds, too.
        (0..n_levels).map(of_level).sum::<f64>() * (1.0 + 1e-9)
    }

    /// Returns a bound on what rounding adds to the error of an entry: rounding of the query, and
    /// of sums.
    fn rounding(&self, query: &RoundedQuery, level: usize) -> f64 {
        // The exact table adds up D / 16 products per lane, and 16 lanes; an approximate entry is
        // the result of a few operations on f32. Products may underflow. A rounded codeword is at
        // most twice as long as the codeword.
        let rounding = (self.dim as f64 / 16.0 + 16.0) / f64::from(1u32 << 24);
        let relative = 2.0 * (query.error + rounding * (query.norm + query.error));
        relative * self.norms[level] + self.dim as f64 * f64::from(f32::MIN_POSITIVE)
    }

    /// Returns how much an approximate entry may differ from the exact one: the error of each
    /// codeword times the first number, plus the second.
    fn error(&self, query: &RoundedQuery, level: usize) -> (f32, f32) {
        // The product, the sum, and these conversions round by 2⁻²⁴ each.
        let up = |x: f64| (x * (1.0 + 1e-6)) as f32;
        (up(query.norm), up(self.rounding(query, level)))
    }

    /// Returns the number of levels, the first, whose bounds in tables at `length` are fine: they
    /// take the remainders into account. Their codewords are the longest and so have the largest
    /// errors.
    pub fn n_fine(&self, length: CodeLength) -> usize {
        length.levels().div_ceil(8)
    }

    /// Returns lookup tables of lower and upper bounds on the entries of each of `queries` at
    /// `length`. Reads the codewords once for all.
    ///
    /// Bounds are accurate but for the rounding of f32: an entry may exceed them by 2⁻²² of
    /// [`max_magnitude`](Self::max_magnitude) of its level.
    ///
    /// # Errors
    /// [`Error::Argument`] for a length above that of the codes, [`Error::TooLarge`] if memory
    /// cannot hold the tables, [`Error::NotFinite`] if entries overflow f32.
    pub fn lookup_bounds(
        &self,
        queries: &[&RoundedQuery],
        length: CodeLength,
    ) -> Result<Vec<[LookupTable; 2]>, Error> {
        Expected::Range(0..=8 * self.norms.len()).check("code length in bits", length.bits())?;
        let n_values = length.levels() * self.n_codewords;
        let mut values = vec![0.0; check_size("lookup tables", queries.len(), n_values, MAX_VALUES)?];
        let table = |values| LookupTable::new(values, length.levels(), self.n_codewords);
        products(&self.parts[0], queries, None, n_values, &mut values);
        let n_fine = self.n_fine(length);
        products(&self.parts[1], queries, None, n_fine * self.n_codewords, &mut values);
        let bounds = |(values, query): (&[f32], &&RoundedQuery)| {
            let (mut lower, mut upper) = (values.to_vec(), values.to_vec());
            let levels = lower.chunks_mut(self.n_codewords).zip(upper.chunks_mut(self.n_codewords));
            for (level, (lower, upper)) in levels.enumerate() {
                let part = &self.parts[usize::from(level < n_fine)];
                let errors = &part.errors[level * self.n_codewords..];
                let of_level = self.error(query, level);
                for ((lower, upper), error) in lower.iter_mut().zip(upper).zip(errors) {
                    [*lower, *upper] = bounds_of(*lower, *error, of_level);
                }
            }
            Ok([table(lower)?, table(upper)?])
        };
        values.chunks_exact(n_values).zip(queries).map(bounds).collect()
    }

    /// Writes the bounds for some codewords: `bounds` `[n]`, lower and upper, for the level and
    /// codeword of each of `at` `[n]`.
    ///
    /// # Errors
    /// As [`Codebooks::lookup_entries`].
    pub fn lookup_entries(
        &self,
        query: &RoundedQuery,
        at: &[(u8, u8)],
        bounds: &mut [[f32; 2]],
    ) -> Result<(), Error> {
        let mut entries = vec![0.0; bounds.len()];
        self.add(&self.parts[0], query, at, &mut entries)?;
        for ((bounds, entry), &(level, codeword)) in bounds.iter_mut().zip(entries).zip(at) {
            let (level, codeword) = (usize::from(level), usize::from(codeword));
            let error = self.parts[0].errors[level * self.n_codewords + codeword];
            *bounds = bounds_of(entry, error, self.error(query, level));
        }
        Ok(())
    }

    /// Turns coarse entries, as [`lookup_entries`](Self::lookup_entries) writes them, into fine
    /// ones.
    ///
    /// # Errors
    /// As [`Codebooks::lookup_entries`].
    pub fn add_remainders(
        &self,
        query: &RoundedQuery,
        at: &[(u8, u8)],
        entries: &mut [f32],
    ) -> Result<(), Error> {
        self.add(&self.parts[1], query, at, entries)
    }

    fn add(
        &self,
        part: &Part,
        query: &RoundedQuery,
        at: &[(u8, u8)],
        entries: &mut [f32],
    ) -> Result<(), Error> {
        let rows = rows_at(at, entries.len(), self.norms.len(), self.n_codewords)?;
        products(part, &[query], Some(&rows), entries.len(), entries);
        check_finite("lookup table", entries)
    }
}

/// Returns the bounds of an approximate entry, from the error of its codeword and what
/// [`RoundedCodebooks::error`] says of the level.
#[inline(always)]
fn bounds_of(entry: f32, error: f32, (factor, rounding): (f32, f32)) -> [f32; 2] {
    let error = error * factor + rounding;
    [entry - error, entry + error]
}

vectorize! {
    fn round_off(values: &mut [f32], integers: &mut [i8]) -> (f32, f64) =
        round_off_any, round_off_any
}

/// Rounds `values`, and subtracts the rounded form from them. Returns its scale, and the norm of
/// what is left.
#[inline(always)]
fn round_off_any(values: &mut [f32], integers: &mut [i8]) -> (f32, f64) {
    let scale = scale(values, MAX_INTEGER);
    let inverse = scale.recip();
    for (x, integer) in values.iter_mut().zip(integers) {
        *integer = round(*x, inverse) as i8;
        *x = (f64::from(*x) - f64::from(scale) * f64::from(*integer)) as f32;
    }
    (scale, sum(values, values, |x, _| f64::from(x) * f64::from(x)).sqrt())
}

#[cfg(test)]
mod tests;
