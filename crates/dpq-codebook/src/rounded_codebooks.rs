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

use products::{BLOCK, products};

use crate::error::{MAX_VALUES, check_finite, check_size};
use crate::norm::squared_norm;
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

/// A query rounded to 16 bits, for [`RoundedCodebooks`].
#[derive(Debug)]
pub struct RoundedQuery {
    integers: Vec<i16>,
    scale: f32,
    norm: f64,
    error: f64,
}

impl RoundedCodebooks {
    /// Rounds codewords. This takes about as long as sixteen lookup tables.
    pub fn new(codebooks: &Codebooks) -> Self {
        let (dim, n_codewords) = (codebooks.dim(), codebooks.n_codewords());
        let stride = dim.next_multiple_of(BLOCK);
        let n = codebooks.n_levels() * n_codewords;
        let part =
            || Part { stride, integers: vec![0; n * stride], scales: vec![0.0; n], errors: vec![0.0; n] };
        let (mut parts, mut norms) = ([part(), part()], vec![0.0; n]);
        for (i, row) in codebooks.values().chunks_exact(dim).enumerate() {
            norms[i] = squared_norm(row).sqrt();
            let mut rest = row.to_vec();
            for part in &mut parts {
                let integers = &mut part.integers[i * stride..][..stride];
                let error;
                (part.scales[i], error) = round_off(&mut rest, integers);
                // The remainder of a remainder is rounded to f32, too.
                part.errors[i] = (error * (1.0 + 1e-6) + norms[i] * 1e-7) as f32;
            }
        }
        let max = |norms: &[f64]| norms.iter().copied().fold(0.0, f64::max);
        let norms = norms.chunks(n_codewords).map(max).collect();
        let max = |errors: &[f32]| errors.iter().copied().fold(0.0, f32::max).into();
        let fine_errors = parts[1].errors.chunks(n_codewords).map(max).collect();
        Self { n_codewords, dim, parts, norms, fine_errors }
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
        length.levels() / 8
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
                let (factor, rounding) = self.error(query, level);
                for ((lower, upper), error) in lower.iter_mut().zip(upper).zip(errors) {
                    let error = error * factor + rounding;
                    (*lower, *upper) = (*lower - error, *upper + error);
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
            let (factor, rounding) = self.error(query, level);
            let error = self.parts[0].errors[level * self.n_codewords + codeword] * factor + rounding;
            *bounds = [entry - error, entry + error];
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
    (scale, squared_norm(values).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Assignment;

    /// Codebooks whose levels differ in size, with a codeword of zeros and single large values.
    fn codebooks(dim: usize) -> Codebooks {
        let value = |i: usize| {
            let (level, codeword) = (i / (7 * dim), i / dim % 7);
            let outlier = if i % 97 == 5 { 30.0 } else { 1.0 };
            let x = ((i * 7919) % 1009) as f32 / 313.0 - 1.6;
            if codeword == 3 { 0.0 } else { x * outlier * 10f32.powi(-(level as i32) * 3) }
        };
        Codebooks::new((0..3 * 7 * dim).map(value).collect(), 3, 7, dim, Assignment::Euclidean).unwrap()
    }

    #[test]
    fn entries_are_within_their_bounds() {
        let dims: &[usize] = if cfg!(miri) { &[1, 33] } else { &[1, 2, 31, 32, 33, 300, 5000] };
        for &dim in dims {
            let codebooks = codebooks(dim);
            let rounded = RoundedCodebooks::new(&codebooks);
            for size in [1e-30, 1e-3, 1.0, 1e20] {
                let query: Vec<f32> = (0..dim).map(|i| (((i * 31) % 17) as f32 - 8.0) * size).collect();
                let exact = codebooks.lookup_table(&query).unwrap();
                let of_query = rounded.round(&query).unwrap();
                let max_length = codebooks.max_length();
                let bounds = rounded.lookup_bounds(&[&of_query], max_length).unwrap().remove(0);
                let all: Vec<(u8, u8)> = (0..21).map(|i| (i / 7, i % 7)).collect();
                let mut entries = vec![[f32::NAN; 2]; 21];
                rounded.lookup_entries(&of_query, &all, &mut entries).unwrap();
                let mut fine: Vec<f32> =
                    entries.iter().map(|[lower, upper]| lower.midpoint(*upper)).collect();
                rounded.add_remainders(&of_query, &all, &mut fine).unwrap();
                let norm = squared_norm(&query).sqrt() * squared_norm(codebooks.values()).sqrt();
                for (i, (exact, fine)) in exact.values().iter().zip(&fine).enumerate() {
                    // Whether a bound is rounded, too, does not show at these sizes.
                    let (exact, rounding) = (f64::from(*exact), norm / f64::from(1u32 << 24));
                    let [lower, upper] = [0, 1].map(|side| f64::from(bounds[side].values()[i]));
                    assert!(lower <= exact + rounding && exact <= upper + rounding, "dim {dim}, {i}");
                    assert!(upper - lower <= 0.1 * norm + 1e-30, "dim {dim}: {lower} to {upper}");
                    let error = rounded.max_error(&of_query, 3);
                    assert!((exact - f64::from(*fine)).abs() <= error && error <= 1e-3 * norm + 1e-30);
                }
                for n_levels in 1..=3 {
                    let bound = rounded.max_error(&of_query, n_levels);
                    for code in (0..7usize.pow(n_levels as u32)).map(|i| [i % 7, i / 7 % 7, i / 49]) {
                        let sum = |values: &[f32]| -> f64 {
                            (0..n_levels).map(|level| f64::from(values[level * 7 + code[level]])).sum()
                        };
                        let error = (sum(exact.values()) - sum(&fine)).abs();
                        assert!(error <= bound, "dim {dim}: {error}, {bound}");
                    }
                }
            }
        }
    }

    #[test]
    fn tables_and_entries_are_the_same() {
        for dim in [1, 31, 64, 300] {
            let rounded = RoundedCodebooks::new(&codebooks(dim));
            let query = |i: usize| {
                let x: Vec<f32> = (0..dim).map(|j| ((i + j) * 131 % 37) as f32 - 18.0).collect();
                rounded.round(&x).unwrap()
            };
            let queries: Vec<RoundedQuery> = (0..5).map(query).collect();
            let length = CodeLength::from_levels(3).unwrap();
            let tables = rounded.lookup_bounds(&queries.iter().collect::<Vec<_>>(), length).unwrap();
            for (bounds, query) in tables.iter().zip(&queries) {
                let (mut entries, codewords) = ([[f32::NAN; 2]; 3], [6u8, 0, 3]);
                rounded
                    .lookup_entries(query, &codewords.map(|codeword| (1, codeword)), &mut entries)
                    .unwrap();
                let of = |codeword: u8| [0, 1].map(|side| bounds[side].level(1)[usize::from(codeword)]);
                assert_eq!(entries, codewords.map(of));
            }
        }
    }

    #[test]
    fn the_largest_sums_fit() {
        for dim in [1, 300, 20_000] {
            let sign = |i: usize| if i.is_multiple_of(2) { 1.0 } else { -1.0 };
            let values: Vec<f32> = (0..2 * dim).map(|i| 3.5 * sign(i / dim)).collect();
            let codebooks = Codebooks::new(values, 1, 2, dim, Assignment::Euclidean).unwrap();
            let rounded = RoundedCodebooks::new(&codebooks);
            let query = rounded.round(&vec![-2.0; dim]).unwrap();
            for table in &rounded.lookup_bounds(&[&query], codebooks.max_length()).unwrap()[0] {
                for (entry, sign) in table.level(0).iter().zip([-1.0, 1.0]) {
                    assert!((entry / (7.0 * dim as f32 * sign) - 1.0).abs() < 1e-3, "dim {dim}: {entry}");
                }
            }
        }
    }

    #[test]
    fn entries_that_may_overflow_do_not_fit() {
        let codebooks = codebooks(40);
        let rounded = RoundedCodebooks::new(&codebooks);
        let fits = |x: f32| rounded.fits(&rounded.round(&[x; 40]).unwrap(), 2);
        assert!(fits(1e34) && !fits(1e38));
        assert!(rounded.round(&[f32::NAN; 40]).is_err() && rounded.round(&[0.0; 39]).is_err());
        let query = rounded.round(&[1.0; 40]).unwrap();
        assert!(rounded.lookup_entries(&query, &[(3, 0)], &mut [[0.0; 2]]).is_err());
        assert!(rounded.lookup_entries(&query, &[(2, 7)], &mut [[0.0; 2]]).is_err());
        assert!(rounded.lookup_entries(&query, &[(2, 6), (2, 6)], &mut [[0.0; 2]]).is_err());
    }
}
