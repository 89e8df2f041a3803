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
}

/// The parts of codewords that entries are computed from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Precision {
    /// Codewords rounded to 8 bits.
    Coarse,
    /// Also the remainders, rounded to 8 bits: a hundredth of the error.
    Fine,
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
    /// The maximum error of each level.
    max_errors: Vec<f64>,
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
        let part = || Part {
            stride,
            integers: vec![0; n * stride],
            scales: vec![0.0; n],
            errors: vec![0.0; n],
            max_errors: Vec::new(),
        };
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
        for part in &mut parts {
            let max_error = |errors: &[f32]| errors.iter().copied().fold(0.0, f32::max).into();
            part.max_errors = part.errors.chunks(n_codewords).map(max_error).collect();
        }
        let norms = norms.chunks(n_codewords).map(max).collect();
        Self { n_codewords, dim, parts, norms }
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

    /// Returns a bound on |s − t| for all codes of `n_levels`: s is the sum of the approximate
    /// entries of a code, t that of the entries of [`Codebooks::lookup_table`], and both are summed
    /// without rounding. It is infinite if entries may overflow f32.
    ///
    /// # Panics
    /// If there are fewer than `n_levels`.
    pub fn max_error(&self, query: &RoundedQuery, n_levels: usize, precision: Precision) -> f64 {
        let errors = match precision {
            Precision::Coarse => &self.parts[0].max_errors[..n_levels],
            Precision::Fine => &self.parts[1].max_errors[..n_levels],
        };
        if self.max_magnitude(query, n_levels) < f64::from(f32::MAX) / 8.0 {
            self.bound(query, errors.iter().copied())
        } else {
            f64::INFINITY
        }
    }

    /// Returns a number that no sum of entries of `n_levels`, approximate or exact, exceeds in
    /// magnitude.
    ///
    /// # Panics
    /// If there are fewer than `n_levels`.
    pub fn max_magnitude(&self, query: &RoundedQuery, n_levels: usize) -> f64 {
        4.0 * query.norm * self.norms[..n_levels].iter().sum::<f64>()
    }

    /// Returns the bound of [`max_error`](Self::max_error) for one code `[n]`, by coarse entries. It
    /// is lower than for all.
    ///
    /// # Panics
    /// If the code names no codeword.
    pub fn error(&self, query: &RoundedQuery, code: &[u8]) -> f64 {
        let errors = self.parts[0].errors.chunks_exact(self.n_codewords).zip(code);
        self.bound(query, errors.map(|(errors, &codeword)| errors[usize::from(codeword)].into()))
    }

    /// Returns a bound on the error of a sum of entries, from the errors of codewords by level.
    fn bound(&self, query: &RoundedQuery, errors: impl Iterator<Item = f64>) -> f64 {
        // The exact table adds up D / 16 products per lane, and 16 lanes; an approximate entry is
        // the result of a few operations on f32. Products may underflow. A rounded codeword is at
        // most twice as long as the codeword.
        let rounding = (self.dim as f64 / 16.0 + 16.0) / f64::from(1u32 << 24);
        let relative = 2.0 * (query.error + rounding * (query.norm + query.error));
        let underflow = self.dim as f64 * f64::from(f32::MIN_POSITIVE);
        let of_level = |(norm, error): (&f64, f64)| query.norm * error + relative * norm + underflow;
        // The computation of the bound rounds, too.
        self.norms.iter().zip(errors).map(of_level).sum::<f64>() * (1.0 + 1e-9)
    }

    /// Returns coarse lookup tables of `queries` at `length`. Reads the codewords once for all.
    ///
    /// # Errors
    /// [`Error::Argument`] for a length above that of the codes, [`Error::TooLarge`] if memory
    /// cannot hold the tables, [`Error::NotFinite`] if entries overflow f32.
    pub fn lookup_tables(
        &self,
        queries: &[&RoundedQuery],
        length: CodeLength,
    ) -> Result<Vec<LookupTable>, Error> {
        Expected::Range(0..=8 * self.norms.len()).check("code length in bits", length.bits())?;
        let n_values = length.levels() * self.n_codewords;
        let mut values = vec![0.0; check_size("lookup tables", queries.len(), n_values, MAX_VALUES)?];
        products(&self.parts[0], queries, None, n_values, &mut values);
        let table = |values: &[f32]| LookupTable::new(values.to_vec(), length.levels(), self.n_codewords);
        values.chunks_exact(n_values).map(table).collect()
    }

    /// Writes the coarse entries for some codewords: `entries` `[n]` for the level and codeword of
    /// each of `at` `[n]`.
    ///
    /// # Errors
    /// As [`Codebooks::lookup_entries`].
    pub fn lookup_entries(
        &self,
        query: &RoundedQuery,
        at: &[(u8, u8)],
        entries: &mut [f32],
    ) -> Result<(), Error> {
        entries.fill(0.0);
        self.add(&self.parts[0], query, at, entries)
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
    fn sums_of_entries_are_within_their_bound() {
        let dims: &[usize] = if cfg!(miri) { &[1, 33] } else { &[1, 2, 31, 32, 33, 300, 5000] };
        for &dim in dims {
            let codebooks = codebooks(dim);
            let rounded = RoundedCodebooks::new(&codebooks);
            for size in [1e-30, 1e-3, 1.0, 1e20] {
                let query: Vec<f32> = (0..dim).map(|i| (((i * 31) % 17) as f32 - 8.0) * size).collect();
                let exact = codebooks.lookup_table(&query).unwrap();
                let of_query = rounded.round(&query).unwrap();
                let coarse = rounded.lookup_tables(&[&of_query], codebooks.max_length()).unwrap().remove(0);
                let all: Vec<(u8, u8)> = (0..21).map(|i| (i / 7, i % 7)).collect();
                let mut fine = vec![f32::NAN; 21];
                rounded.lookup_entries(&of_query, &all, &mut fine).unwrap();
                rounded.add_remainders(&of_query, &all, &mut fine).unwrap();
                let norm = squared_norm(&query).sqrt() * squared_norm(codebooks.values()).sqrt();
                for n_levels in 1..=3 {
                    let bounds = [Precision::Coarse, Precision::Fine]
                        .map(|precision| rounded.max_error(&of_query, n_levels, precision));
                    assert!(bounds[0] <= 0.1 * norm + 1e-30, "dim {dim}: {bounds:?}");
                    assert!(bounds[1] <= 1e-3 * norm + 1e-30, "dim {dim}: {bounds:?}");
                    for code in (0..7usize.pow(n_levels as u32)).map(|i| [i % 7, i / 7 % 7, i / 49]) {
                        let sum = |values: &[f32]| -> f64 {
                            (0..n_levels).map(|level| f64::from(values[level * 7 + code[level]])).sum()
                        };
                        let errors =
                            [coarse.values(), &fine].map(|values| (sum(exact.values()) - sum(values)).abs());
                        let of_code =
                            rounded.error(&of_query, &code.map(|codeword| codeword as u8)[..n_levels]);
                        assert!(
                            errors[0] <= of_code && of_code <= bounds[0],
                            "dim {dim}: {errors:?}, {bounds:?}"
                        );
                        assert!(errors[1] <= bounds[1], "dim {dim}: {errors:?}, {bounds:?}");
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
            let tables = rounded.lookup_tables(&queries.iter().collect::<Vec<_>>(), length).unwrap();
            for (table, query) in tables.iter().zip(&queries) {
                let (mut entries, codewords) = ([f32::NAN; 3], [6u8, 0, 3]);
                rounded
                    .lookup_entries(query, &codewords.map(|codeword| (1, codeword)), &mut entries)
                    .unwrap();
                assert_eq!(entries, codewords.map(|codeword| table.level(1)[usize::from(codeword)]));
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
            let tables = rounded.lookup_tables(&[&query], codebooks.max_length()).unwrap();
            for (entry, sign) in tables[0].level(0).iter().zip([-1.0, 1.0]) {
                assert!((entry / (7.0 * dim as f32 * sign) - 1.0).abs() < 1e-5, "dim {dim}: {entry}");
            }
        }
    }

    #[test]
    fn entries_that_may_overflow_have_no_bound() {
        let codebooks = codebooks(40);
        let rounded = RoundedCodebooks::new(&codebooks);
        assert!(rounded.max_error(&rounded.round(&[1e34; 40]).unwrap(), 2, Precision::Fine) < f64::INFINITY);
        assert_eq!(
            rounded.max_error(&rounded.round(&[1e38; 40]).unwrap(), 2, Precision::Fine),
            f64::INFINITY
        );
        assert!(rounded.round(&[f32::NAN; 40]).is_err() && rounded.round(&[0.0; 39]).is_err());
        let query = rounded.round(&[1.0; 40]).unwrap();
        assert!(rounded.lookup_entries(&query, &[(3, 0)], &mut [0.0]).is_err());
        assert!(rounded.lookup_entries(&query, &[(2, 7)], &mut [0.0]).is_err());
        assert!(rounded.lookup_entries(&query, &[(2, 6), (2, 6)], &mut [0.0]).is_err());
    }
}
