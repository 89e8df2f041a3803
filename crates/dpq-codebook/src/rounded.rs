//! Inner products of vectors rounded to small integers: faster than in f32, with a known bound on
//! the error.
//!
//! A vector x is rounded to integers q and a scale, x − origin ≈ scale·q. The integers are so small
//! that the sum of their products fits into 32 bits. This sum is exact in any order, so it is the
//! same on every CPU. Products are computed in tiles: the sums of [`ROWS`] rows and [`COLUMNS`]
//! columns stay in vector registers while a loop runs over pairs of dimensions, which one
//! instruction multiplies and adds.

use crate::norm::{SAFE_NORMS, lanes, squared_norm};
use crate::vectorize::vectorize;

/// The rows of a tile. Its sums take 12 of the 16 vector registers of AVX2, 24 of the 32 of NEON,
/// and 12 of the 32 of AVX-512, which multiplies the rows of two tiles at a time.
const ROWS: usize = 6;

/// The columns of a tile.
const COLUMNS: usize = 16;

/// Two consecutive dimensions of a vector.
type Pair = [i16; 2];

/// Vectors to multiply rows with, rounded to one scale and laid out tile by tile.
pub(crate) struct Columns {
    /// Subtracted from rows and columns before rounding, f32 [dim].
    pub(crate) origin: Vec<f32>,
    /// A column is approximately this times its integers.
    pub(crate) scale: f32,
    /// The maximum distance of a vector from its rounded form.
    error: f64,
    /// [n / COLUMNS, dim / 2]: each entry holds two dimensions of the columns of a tile, 0 for
    /// missing columns.
    tiles: Vec<[Pair; COLUMNS]>,
}

/// Rows minus an origin, rounded. Its memory can be reused for rows of the same dimension.
#[derive(Default)]
pub(crate) struct Rows {
    /// [n / ROWS, dim / 2]: each entry holds two dimensions of the rows of a tile, arbitrary
    /// numbers for missing rows.
    tiles: Vec<[Pair; ROWS]>,
    /// Scale, norm and error of each row.
    pub(crate) rounded: Vec<Rounded>,
    /// A row minus the origin.
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
    pub(crate) fn new(vectors: &[f32], origin: Vec<f32>) -> Self {
        let dim = origin.len();
        let (n, n_pairs) = (vectors.len() / dim, dim.div_ceil(2));
        let scale = scale(vectors, max_integer(dim));
        let mut tiles = vec![[[0; 2]; COLUMNS]; n.div_ceil(COLUMNS) * n_pairs];
        let mut error = 0.0f64;
        for (i, vector) in vectors.chunks_exact(dim).enumerate() {
            let tile = &mut tiles[i / COLUMNS * n_pairs..][..n_pairs];
            let remainder = |(&x, q): (&f32, i16)| x - scale * f32::from(q);
            let integers: Vec<i16> = vector.iter().map(|&x| round(x, scale.recip())).collect();
            let remainders: Vec<f32> = vector.iter().zip(integers.iter().copied()).map(remainder).collect();
            error = error.max(squared_norm(&remainders).sqrt());
            for (tile, pair) in tile.iter_mut().zip(integers.chunks(2)) {
                tile[i % COLUMNS][..pair.len()].copy_from_slice(pair);
            }
        }
        Self { origin, scale, error, tiles }
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
        self.tiles.len() / self.dim().div_ceil(2) * COLUMNS
    }

    /// Writes the products of rounded rows and all columns to `out` [n, width], with n rounded up
    /// to whole tiles.
    pub(crate) fn products(&self, rows: &Rows, out: &mut Vec<i32>) {
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
    /// Rounds `rows` [n, dim] minus `origin` [dim], for columns of the same origin.
    pub(crate) fn round(&mut self, rows: &[f32], origin: &[f32]) {
        let dim = origin.len();
        let (n, n_pairs, max) = (rows.len() / dim, dim.div_ceil(2), max_integer(dim));
        self.tiles.resize(n.div_ceil(ROWS) * n_pairs, [[0; 2]; ROWS]);
        self.centred.resize(dim, 0.0);
        self.rounded.clear();
        for (i, row) in rows.chunks_exact(dim).enumerate() {
            let tile = &mut self.tiles[i / ROWS * n_pairs..][..n_pairs];
            self.rounded.push(round_row(row, origin, max, i % ROWS, &mut self.centred, tile));
        }
    }
}

/// Returns the maximum integer of a row or column.
fn max_integer(dim: usize) -> f32 {
    let max = (f64::from(i32::MAX) / dim.next_multiple_of(2) as f64).sqrt().min(f64::from(i16::MAX));
    max.floor() as f32
}

/// Computes the products of all tiles.
fn multiply(columns: &Columns, rows: &[[Pair; ROWS]], out: &mut [i32]) {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vnni") {
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
        row: &[f32], origin: &[f32], max: f32, at: usize, centred: &mut [f32], tile: &mut [[Pair; ROWS]]
    ) -> Rounded =
        round_row_any, round_row_any
}

#[inline(always)]
fn round_row_any(
    row: &[f32],
    origin: &[f32],
    max: f32,
    at: usize,
    centred: &mut [f32],
    tile: &mut [[Pair; ROWS]],
) -> Rounded {
    centred.iter_mut().zip(row).zip(origin).for_each(|((centred, x), origin)| *centred = x - origin);
    let scale = scale(centred, max);
    let inverse = scale.recip();
    let norm = f64::from(lanes(centred, 0.0, |sum, x| sum + x * x).iter().sum::<f32>()).sqrt();
    let (pairs, last) = centred.as_chunks::<2>();
    for (tile, pair) in tile.iter_mut().zip(pairs) {
        tile[at] = pair.map(|x| round(x, inverse));
    }
    if let ([x], Some(tile)) = (last, tile.last_mut()) {
        tile[at] = [round(*x, inverse), 0];
    }
    // An integer differs by at most one half, and by the rounding of its computation in f32.
    let error = 0.51 * f64::from(scale) * (row.len() as f64).sqrt();
    Rounded { scale, norm, error }
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

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::x86_64::*;

    use super::{COLUMNS, Pair, ROWS};

    /// Computes the products of a tile's rows and columns.
    #[expect(unsafe_code, reason = "vector loads and stores take pointers")]
    #[inline]
    #[target_feature(enable = "avx2")]
    pub(super) fn tile(columns: &[[Pair; COLUMNS]], rows: &[[Pair; ROWS]], out: [&mut [i32; COLUMNS]; ROWS]) {
        let mut sums = [[_mm256_setzero_si256(); 2]; ROWS];
        for (columns, rows) in columns.iter().zip(rows) {
            let (columns, _) = columns.as_chunks::<{ COLUMNS / 2 }>();
            // SAFETY: half of the columns are 8 pairs, 32 bytes.
            let columns = [0, 1].map(|i| unsafe { _mm256_loadu_si256(columns[i].as_ptr().cast()) });
            for (sums, &[x, y]) in sums.iter_mut().zip(rows) {
                let pair = _mm256_set1_epi32(i32::from(y) << 16 | i32::from(x.cast_unsigned()));
                for (sum, columns) in sums.iter_mut().zip(columns) {
                    *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(pair, columns));
                }
            }
        }
        for (out, sums) in out.into_iter().zip(sums) {
            let (out, _) = out.as_chunks_mut::<{ COLUMNS / 2 }>();
            for (out, sum) in out.iter_mut().zip(sums) {
                // SAFETY: half of the columns are 8 sums, 32 bytes.
                unsafe { _mm256_storeu_si256(out.as_mut_ptr().cast(), sum) }
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod avx512 {
    use std::arch::x86_64::*;

    use super::{COLUMNS, Columns, Pair, ROWS};

    /// Computes the products of all tiles, two tiles of rows at a time: the sums of one tile would
    /// have to wait for each other.
    #[target_feature(enable = "avx512f,avx512vnni")]
    pub(super) fn multiply(columns: &Columns, rows: &[[Pair; ROWS]], out: &mut [i32]) {
        let (n_pairs, width) = (columns.dim().div_ceil(2), columns.width());
        for (i, columns) in columns.tiles.chunks_exact(n_pairs).enumerate() {
            let rows = rows.chunks(2 * n_pairs).zip(out.chunks_mut(2 * ROWS * width));
            for (rows, out) in rows {
                let (rows, next) = rows.split_at(n_pairs);
                let out = out.chunks_exact_mut(width).map(|row| &mut row.as_chunks_mut().0[i]);
                if next.is_empty() {
                    tile(columns, [rows], out);
                } else {
                    tile(columns, [rows, next], out);
                }
            }
        }
    }

    /// Computes the products of the rows of `N` tiles and the columns of one, and writes them to
    /// `out` by row.
    #[expect(unsafe_code, reason = "vector loads and stores take pointers")]
    #[inline]
    #[target_feature(enable = "avx512f,avx512vnni")]
    fn tile<'a, const N: usize>(
        columns: &[[Pair; COLUMNS]],
        rows: [&[[Pair; ROWS]]; N],
        out: impl Iterator<Item = &'a mut [i32; COLUMNS]>,
    ) {
        assert!(rows.iter().all(|rows| rows.len() == columns.len()), "tiles of one dimension");
        let mut sums = [[_mm512_setzero_si512(); ROWS]; N];
        for (i, columns) in columns.iter().enumerate() {
            // SAFETY: the columns are 16 pairs, 64 bytes.
            let columns = unsafe { _mm512_loadu_si512(columns.as_ptr().cast()) };
            for (sums, rows) in sums.iter_mut().zip(rows) {
                for (sum, &[x, y]) in sums.iter_mut().zip(&rows[i]) {
                    let pair = _mm512_set1_epi32(i32::from(y) << 16 | i32::from(x.cast_unsigned()));
                    *sum = _mm512_dpwssd_epi32(*sum, pair, columns);
                }
            }
        }
        for (out, sum) in out.zip(sums.as_flattened()) {
            // SAFETY: a row of the tile has 16 sums, 64 bytes.
            unsafe { _mm512_storeu_si512(out.as_mut_ptr().cast(), *sum) }
        }
    }
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
                let columns = Columns::new(&vectors, vec![0.0; dim]);
                let (mut memory, mut products) = (Rows::default(), Vec::new());
                memory.round(&rows, &columns.origin);
                columns.products(&memory, &mut products);
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
            let columns = Columns::new(&values, vec![0.0; dim]);
            let (mut memory, mut all) = (Rows::default(), Vec::new());
            memory.round(&values, &columns.origin);
            columns.products(&memory, &mut all);
            let max = max_integer(dim) as i32;
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
