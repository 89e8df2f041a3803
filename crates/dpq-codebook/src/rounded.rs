//! Inner products of vectors rounded to small integers: faster than in f32, with a known bound on
//! the error.
//!
//! A vector x is rounded to integers q and a scale, x − origin ≈ scale·q. The integers are so small
//! that the sum of their products fits into 32 bits. This sum is exact in any order, so it is the
//! same on every CPU. Products are computed in tiles: the sums of [`ROWS`] rows and [`COLUMNS`]
//! columns stay in vector registers while a loop runs over pairs of dimensions, which one
//! instruction multiplies and adds. Integers of 8 bits may go four to a pair's place, where one
//! instruction multiplies and adds all four.

use crate::norm::{SAFE_NORMS, lanes, squared_norm};
use crate::vectorize::vectorize;

/// The rows of a tile. Its sums take 12 of the 16 vector registers of AVX2, 24 of the 32 of NEON,
/// and 12 of the 32 of AVX-512, which multiplies the rows of two tiles at a time.
const ROWS: usize = 6;

/// The columns of a tile.
const COLUMNS: usize = 16;

/// Two consecutive dimensions of a vector. Packed integers take one byte each, so a pair holds
/// four.
type Pair = [i16; 2];

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;

/// The size of integers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Precision {
    /// As many bits as the sum of the products allows, at most 16.
    #[default]
    Fine,
    /// 8 bits.
    Coarse,
}

impl Precision {
    /// Returns the maximum integer of a row or column.
    fn max_integer(self, dim: usize) -> f32 {
        let largest = match self {
            Self::Fine => i16::MAX.into(),
            Self::Coarse => i8::MAX.into(),
        };
        (f64::from(i32::MAX) / dim.next_multiple_of(2) as f64).sqrt().min(largest).floor() as f32
    }

    /// Returns true if integers are packed: if this CPU multiplies them faster so.
    fn is_packed(self) -> bool {
        #[cfg(target_arch = "x86_64")]
        if self == Self::Coarse {
            return avx512::is_available();
        }
        false
    }

    /// Returns the number of pairs that hold the dimensions of a vector.
    fn n_pairs(self, dim: usize) -> usize {
        dim.div_ceil(if self.is_packed() { 4 } else { 2 })
    }
}

/// Vectors to multiply rows with, rounded to one scale and laid out tile by tile.
pub(crate) struct Columns {
    /// Subtracted from rows and columns before rounding, f32 [dim].
    pub(crate) origin: Vec<f32>,
    /// A column is approximately this times its integers.
    pub(crate) scale: f32,
    /// The maximum distance of a vector from its rounded form.
    error: f64,
    pub(crate) precision: Precision,
    /// [n / COLUMNS, number of pairs]: each entry holds a pair of each column of a tile, 0 for
    /// missing columns.
    tiles: Vec<[Pair; COLUMNS]>,
    /// Initial values of the sums of a tile, [n / COLUMNS]: packed integers of rows are one byte
    /// without sign, 128 too large.
    starts: Vec<[i32; COLUMNS]>,
}

/// Rows minus an origin, rounded. Its memory can be reused for rows of the same dimension.
#[derive(Default)]
pub(crate) struct Rows {
    precision: Precision,
    /// [n / ROWS, number of pairs]: each entry holds a pair of each row of a tile, arbitrary
    /// numbers for missing rows.
    tiles: Vec<[Pair; ROWS]>,
    /// Scale, norm and error of each row.
    pub(crate) rounded: Vec<Rounded>,
    /// A row minus the origin, padded with zeros to a multiple of four dimensions.
    centred: Vec<f32>,
}

/// Scale, norm and error of a rounded row.
#[derive(Clone, Copy)]
pub(crate) struct Rounded {
    /// The row minus the origin is approximately this times its integers.
    pub(crate) scale: f32,
    /// The norm of the row minus the origin.
    pub(crate) norm: f64,
    /// A bound on its distance from its rounded form.
    error: f64,
}

impl Columns {
    /// Rounds and lays out `vectors` [n, dim]. The caller has subtracted `origin` [dim] from them.
    pub(crate) fn new(vectors: &[f32], origin: Vec<f32>, precision: Precision) -> Self {
        let dim = origin.len();
        let (n_tiles, n_pairs) = ((vectors.len() / dim).div_ceil(COLUMNS), precision.n_pairs(dim));
        let scale = scale(vectors, precision.max_integer(dim));
        let mut tiles = vec![[[0; 2]; COLUMNS]; n_tiles * n_pairs];
        let mut starts = vec![[0; COLUMNS]; n_tiles];
        let mut error = 0.0f64;
        for (i, vector) in vectors.chunks_exact(dim).enumerate() {
            let tile = &mut tiles[i / COLUMNS * n_pairs..][..n_pairs];
            let remainder = |(&x, q): (&f32, i16)| x - scale * f32::from(q);
            let mut integers: Vec<i16> = vector.iter().map(|&x| round(x, scale.recip())).collect();
            let remainders: Vec<f32> = vector.iter().zip(integers.iter().copied()).map(remainder).collect();
            error = error.max(squared_norm(&remainders).sqrt());
            let column = tile.iter_mut().map(|tile| &mut tile[i % COLUMNS]);
            integers.resize(dim.next_multiple_of(4), 0);
            if precision.is_packed() {
                starts[i / COLUMNS][i % COLUMNS] =
                    -128 * integers.iter().copied().map(i32::from).sum::<i32>();
                column.zip(integers.as_chunks().0).for_each(|(column, &four)| *column = packed(four));
            } else {
                column.zip(integers.as_chunks().0).for_each(|(column, &pair)| *column = pair);
            }
        }
        Self { origin, scale, error, precision, tiles, starts }
    }

    fn dim(&self) -> usize {
        self.origin.len()
    }

    /// Returns true if `row` minus the origin has a safe norm or is zero.
    pub(crate) fn is_safe(&self, row: &[f32], rounded: Rounded) -> bool {
        SAFE_NORMS.contains(&rounded.norm) || row == self.origin
    }

    /// Returns a bound on how much rounding changes the inner product of `row` and a column of this
    /// norm.
    pub(crate) fn bound(&self, row: Rounded, norm: f64) -> f64 {
        row.error * norm + (row.norm + row.error) * self.error
    }

    /// Returns the number of products of a row: the number of columns, rounded up to a multiple of
    /// [`COLUMNS`].
    pub(crate) fn width(&self) -> usize {
        self.starts.len() * COLUMNS
    }

    /// Writes the products of rounded rows and all columns to `out` [n, width], with n rounded up
    /// to whole tiles.
    pub(crate) fn products(&self, rows: &Rows, out: &mut Vec<i32>) {
        assert_eq!(rows.precision, self.precision, "integers of one size");
        out.resize(rows.rounded.len().next_multiple_of(ROWS) * self.width(), 0);
        multiply(self, &rows.tiles, out);
    }

    /// Computes the products of all tiles, each by `tile`.
    #[inline(always)]
    fn multiply(
        &self,
        rows: &[[Pair; ROWS]],
        out: &mut [i32],
        tile: impl Fn(&[[Pair; COLUMNS]], &[[Pair; ROWS]], [&mut [i32; COLUMNS]; ROWS]),
    ) {
        let (n_pairs, width) = (self.dim().div_ceil(2), self.width());
        for (i, columns) in self.tiles.chunks_exact(n_pairs).enumerate() {
            for (rows, out) in rows.chunks_exact(n_pairs).zip(out.chunks_exact_mut(ROWS * width)) {
                let mut out = out.chunks_exact_mut(width);
                let out = std::array::from_fn(|_| &mut out.next().expect("whole tiles").as_chunks_mut().0[i]);
                tile(columns, rows, out);
            }
        }
    }
}

impl Rows {
    pub(crate) fn new(precision: Precision) -> Self {
        Self { precision, ..Self::default() }
    }

    /// Rounds `rows` [n, dim] minus `origin` [dim], for columns of the same origin and precision.
    pub(crate) fn round(&mut self, rows: &[f32], origin: &[f32]) {
        let dim = origin.len();
        let (n, n_pairs) = (rows.len() / dim, self.precision.n_pairs(dim));
        self.tiles.resize(n.div_ceil(ROWS) * n_pairs, [[0; 2]; ROWS]);
        self.centred.resize(dim.next_multiple_of(4), 0.0);
        self.rounded.clear();
        for (i, row) in rows.chunks_exact(dim).enumerate() {
            let tile = &mut self.tiles[i / ROWS * n_pairs..][..n_pairs];
            self.rounded.push(round_row(row, origin, self.precision, i % ROWS, &mut self.centred, tile));
        }
    }
}

/// Computes the products of all tiles.
fn multiply(columns: &Columns, rows: &[[Pair; ROWS]], out: &mut [i32]) {
    #[cfg(target_arch = "x86_64")]
    if avx512::is_available() {
        #[expect(unsafe_code, reason = "the call is safe only where the CPU has the instructions")]
        // SAFETY: the line above found AVX-512 and its VNNI.
        return unsafe { avx512::multiply(columns, rows, out) };
    }
    multiply_vectorized(columns, rows, out);
}

vectorize! {
    fn multiply_vectorized(columns: &Columns, rows: &[[Pair; ROWS]], out: &mut [i32]) =
        |columns: &Columns, rows, out| columns.multiply(rows, out, |columns, rows, out| avx2::tile(columns, rows, out)),
        |columns: &Columns, rows, out| columns.multiply(rows, out, tile)
}

vectorize! {
    fn round_row(
        row: &[f32], origin: &[f32], precision: Precision, at: usize, centred: &mut [f32], tile: &mut [[Pair; ROWS]]
    ) -> Rounded =
        round_row_any, round_row_any
}

#[inline(always)]
fn round_row_any(
    row: &[f32],
    origin: &[f32],
    precision: Precision,
    at: usize,
    centred: &mut [f32],
    tile: &mut [[Pair; ROWS]],
) -> Rounded {
    centred.iter_mut().zip(row).zip(origin).for_each(|((centred, x), origin)| *centred = x - origin);
    let scale = scale(centred, precision.max_integer(row.len()));
    let inverse = scale.recip();
    let norm = f64::from(lanes(centred, 0.0, |sum, x| sum + x * x).iter().sum::<f32>()).sqrt();
    if precision.is_packed() {
        let fours = tile.iter_mut().zip(centred.as_chunks().0);
        fours.for_each(|(tile, four)| tile[at] = packed(four.map(|x| round(x, inverse) + 128)));
    } else {
        let pairs = tile.iter_mut().zip(centred.as_chunks().0);
        pairs.for_each(|(tile, pair)| tile[at] = pair.map(|x| round(x, inverse)));
    }
    // An integer differs by at most one half, and by the rounding of its computation in f32.
    let error = 0.51 * f64::from(scale) * (row.len() as f64).sqrt();
    Rounded { scale, norm, error }
}

/// Packs the lower bytes of four integers.
#[inline(always)]
fn packed(integers: [i16; 4]) -> Pair {
    let [a, b, c, d] = integers.map(|q| q as u8);
    [i16::from_le_bytes([a, b]), i16::from_le_bytes([c, d])]
}

/// Computes the products of a tile's rows and columns.
#[inline(always)]
fn tile(columns: &[[Pair; COLUMNS]], rows: &[[Pair; ROWS]], out: [&mut [i32; COLUMNS]; ROWS]) {
    let mut sums = [[0; COLUMNS]; ROWS];
    for (columns, rows) in columns.iter().zip(rows) {
        for (sums, [x, y]) in sums.iter_mut().zip(rows) {
            for (sum, [c, d]) in sums.iter_mut().zip(columns) {
                *sum += i32::from(*x) * i32::from(*c) + i32::from(*y) * i32::from(*d);
            }
        }
    }
    out.into_iter().zip(sums).for_each(|(out, sums)| *out = sums);
}

/// Returns the scale at which the largest of `values` becomes `max`.
#[inline(always)]
pub(crate) fn scale(values: &[f32], max: f32) -> f32 {
    let largest = lanes(values, 0.0, |largest, x| if x.abs() > largest { x.abs() } else { largest });
    // If all values are 0, any scale with a finite inverse works.
    largest.into_iter().fold(1e-30, f32::max) / max
}

/// Returns the integer nearest to x times `inverse`, which fits into 16 bits.
#[inline(always)]
pub(crate) fn round(x: f32, inverse: f32) -> i16 {
    /// Floats of this size are integers, so adding a number to this rounds it and leaves it in the
    /// lowest bits.
    const SHIFT: f32 = (3 << 22) as f32;
    (x * inverse + SHIFT).to_bits() as i16
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(n: usize) -> impl Iterator<Item = f32> {
        (0..n).map(|i| ((i * 7919) % 1009) as f32 / 313.0 - 1.6)
    }

    fn dot(a: &[f32], b: &[f32]) -> f64 {
        a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
    }

    /// Returns rounded vectors, rounded rows and their products.
    fn products(
        vectors: &[f32],
        rows: &[f32],
        dim: usize,
        precision: Precision,
    ) -> (Columns, Rows, Vec<i32>) {
        let columns = Columns::new(vectors, vec![0.0; dim], precision);
        let (mut memory, mut products) = (Rows::new(precision), Vec::new());
        memory.round(rows, &columns.origin);
        columns.products(&memory, &mut products);
        (columns, memory, products)
    }

    #[test]
    fn coarse_products_are_those_of_integers_of_eight_bits() {
        for dim in [1, 2, 3, 4, 5, 17, 301] {
            // The last number of each row is the largest.
            let values: Vec<f32> = numbers(33 * dim)
                .enumerate()
                .map(|(i, x)| if i % dim == dim - 1 { -2.0 } else { x })
                .collect();
            let (columns, memory, all) = products(&values, &values, dim, Precision::Coarse);
            let integers = |row: &[f32]| {
                row.iter().map(|&x| i32::from(round(x, (2.0f32 / 127.0).recip()))).collect::<Vec<_>>()
            };
            for ((row, products), rounded) in
                values.chunks_exact(dim).zip(all.chunks_exact(columns.width())).zip(&memory.rounded)
            {
                assert_eq!(rounded.scale, 2.0 / 127.0);
                for (column, &product) in values.chunks_exact(dim).zip(products) {
                    let products = integers(row).into_iter().zip(integers(column));
                    assert_eq!(product, products.map(|(x, c)| x * c).sum::<i32>());
                }
            }
        }
    }

    #[test]
    fn products_are_within_their_bound() {
        // Miri would take hours for more dimensions.
        let dims: &[usize] = if cfg!(miri) { &[1, 2, 17] } else { &[1, 2, 3, 16, 300, 301, 4096] };
        for &dim in dims {
            for n in [1, 5, 6, 7, 33] {
                let vectors: Vec<f32> = numbers(n * dim).collect();
                // Rows of all sizes, and rows with single large values.
                let size = |row: usize| 10f32.powi(row as i32 % 20 - 10);
                let outlier = |i: usize| if i % 97 == 5 { 50.0 } else { 1.0 };
                let rows: Vec<f32> = numbers((n + 1) * dim)
                    .enumerate()
                    .skip(dim)
                    .map(|(i, x)| x * size(i / dim) * outlier(i))
                    .collect();
                let (columns, memory, products) = products(&vectors, &rows, dim, Precision::Fine);
                let products = products.chunks_exact(columns.width());
                for ((row, &rounded), products) in rows.chunks_exact(dim).zip(&memory.rounded).zip(products) {
                    let norm = dot(row, row).sqrt();
                    assert!((rounded.norm - norm).abs() <= 1e-3 * norm);
                    for (column, &product) in vectors.chunks_exact(dim).zip(products) {
                        let product =
                            f64::from(product) * f64::from(rounded.scale) * f64::from(columns.scale);
                        let norm_of_column = dot(column, column).sqrt();
                        let bound = columns.bound(rounded, norm_of_column);
                        assert!((product - dot(row, column)).abs() <= bound, "dim {dim}, n {n}");
                        assert!(
                            bound <= 1e-1 * norm * norm_of_column.max(1.0),
                            "dim {dim}, n {n}: bound {bound}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn the_largest_sums_fit_and_are_the_same_on_every_route() {
        let dims: &[usize] = if cfg!(miri) { &[1, 2, 17] } else { &[1, 2, 3, 300, 2000] };
        for &dim in dims {
            let values: Vec<f32> = (0..17 * dim).map(|i| if i / dim % 2 == 0 { 3.5 } else { -3.5 }).collect();
            let (columns, memory, all) = products(&values, &values, dim, Precision::Fine);
            let max = Precision::Fine.max_integer(dim) as i32;
            let sign = |i: usize| if i.is_multiple_of(2) { 1 } else { -1 };
            for (i, products) in all.chunks_exact(columns.width()).take(17).enumerate() {
                for (j, &product) in products.iter().take(17).enumerate() {
                    assert_eq!(product, sign(i) * sign(j) * max * max * dim as i32);
                }
            }
            type Route = fn(&Columns, &[[Pair; ROWS]], &mut [i32]);
            for route in
                [multiply_vectorized as Route, |columns, rows, out| columns.multiply(rows, out, tile)]
            {
                let mut products = vec![0; all.len()];
                route(&columns, &memory.tiles, &mut products);
                assert_eq!(products, all);
            }
        }
    }
}
