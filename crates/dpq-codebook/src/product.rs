//! Matrix products and norms.
//!
//! A product is made of tiles: the sums of [`ROWS`] rows and [`COLUMNS`] columns stay in vector registers while the
//! dimensions go by. Columns are laid out for that once, by [`Columns::new`].

use std::array;

use crate::vectorize::vectorize;

/// Rows of a tile. With the columns, its sums take 12 of the 16 vector registers of AVX2 and 24 of the 32 of NEON.
const ROWS: usize = 6;

/// Columns of a tile.
const COLUMNS: usize = 16;

/// Dimensions that a tile goes through at a time, at most: its columns stay in the first-level cache for all rows.
const DEPTH: usize = 320;

/// Vectors that others are multiplied with, laid out tile by tile.
pub(crate) struct Columns {
    dim: usize,
    /// [n / COLUMNS, dim], each entry one dimension of the columns of a tile; 0 where there is no column.
    tiles: Vec<[f32; COLUMNS]>,
}

impl Columns {
    /// Lays out `vectors` [n, dim].
    pub(crate) fn new(vectors: &[f32], dim: usize) -> Self {
        let n = vectors.len() / dim;
        let mut tiles = vec![[0.0; COLUMNS]; n.div_ceil(COLUMNS) * dim];
        for (i, vector) in vectors.chunks_exact(dim).enumerate() {
            let tile = &mut tiles[i / COLUMNS * dim..][..dim];
            tile.iter_mut().zip(vector).for_each(|(tile, &x)| tile[i % COLUMNS] = x);
        }
        Self { dim, tiles }
    }

    /// Products of a row: the number of vectors, rounded up to a multiple of [`COLUMNS`].
    pub(crate) fn width(&self) -> usize {
        self.tiles.len() / self.dim * COLUMNS
    }

    /// The inner products of `rows` [n, dim] and all vectors: out [n, width], on the calling thread.
    ///
    /// A sum has one order, whatever the rows beside it: ascending, with fused multiply-add on a CPU that has it.
    pub(crate) fn products(&self, rows: &[f32], out: &mut Vec<f32>) {
        out.resize(rows.len() / self.dim * self.width(), 0.0);
        multiply(self, rows, out);
    }

    #[inline(always)]
    fn multiply<const FUSED: bool>(&self, rows: &[f32], out: &mut [f32]) {
        let (dim, width) = (self.dim, self.width());
        let depth = dim.div_ceil(dim.div_ceil(DEPTH));
        for start in (0..dim).step_by(depth) {
            for (i, tile) in self.tiles.chunks_exact(dim).enumerate() {
                let (tile, column) = (&tile[start..dim.min(start + depth)], i * COLUMNS);
                let mut rows = rows.chunks_exact(ROWS * dim);
                let mut outs = out.chunks_exact_mut(ROWS * width);
                for (rows, out) in rows.by_ref().zip(outs.by_ref()) {
                    multiply_tile::<ROWS, FUSED>(rows, dim, start, tile, &mut out[column..], width);
                }
                let rest = rows.remainder().chunks_exact(dim);
                for (row, out) in rest.zip(outs.into_remainder().chunks_exact_mut(width)) {
                    multiply_tile::<1, FUSED>(row, dim, start, tile, &mut out[column..], width);
                }
            }
        }
    }
}

vectorize! {
    fn multiply(columns: &Columns, rows: &[f32], out: &mut [f32]) =
        Columns::multiply::<true>, Columns::multiply::<{ cfg!(target_arch = "aarch64") }>
}

/// Products of N rows, at every `dim`, and the columns of a tile, whose first dimension is `start`: begins the sums in
/// `out`, at every `width`, or goes on with them.
#[inline(always)]
fn multiply_tile<const N: usize, const FUSED: bool>(
    rows: &[f32],
    dim: usize,
    start: usize,
    tile: &[[f32; COLUMNS]],
    out: &mut [f32],
    width: usize,
) {
    let rows: [&[f32]; N] = array::from_fn(|i| &rows[i * dim + start..][..tile.len()]);
    let mut sums = [[0.0; COLUMNS]; N];
    if start > 0 {
        sums.iter_mut().enumerate().for_each(|(i, sums)| sums.copy_from_slice(&out[i * width..][..COLUMNS]));
    }
    for (d, columns) in tile.iter().enumerate() {
        for (sums, row) in sums.iter_mut().zip(rows) {
            for (sum, &column) in sums.iter_mut().zip(columns) {
                *sum = if FUSED { row[d].mul_add(column, *sum) } else { row[d] * column + *sum };
            }
        }
    }
    sums.iter().enumerate().for_each(|(i, sums)| out[i * width..][..COLUMNS].copy_from_slice(sums));
}

/// The squared norm, summed in one order: eight partial sums, so that the loop becomes vector instructions.
pub(crate) fn squared_norm(x: &[f32]) -> f64 {
    let mut sums = [0.0; 8];
    let (blocks, tail) = x.as_chunks::<8>();
    for block in blocks {
        for lane in 0..8 {
            sums[lane] += f64::from(block[lane]) * f64::from(block[lane]);
        }
    }
    tail.iter().map(|&x| f64::from(x) * f64::from(x)).chain(sums).sum()
}

/// The squared distance, summed in one order.
#[inline(always)]
pub(crate) fn squared_distance(a: &[f32], b: &[f32]) -> f32 {
    // Eight partial sums, so that the loop becomes vector instructions.
    let mut sums = [0.0f32; 8];
    let ((a, a_tail), (b, b_tail)) = (a.as_chunks::<8>(), b.as_chunks::<8>());
    for (a, b) in a.iter().zip(b) {
        for lane in 0..8 {
            sums[lane] += (a[lane] - b[lane]) * (a[lane] - b[lane]);
        }
    }
    a_tail.iter().zip(b_tail).map(|(a, b)| (a - b) * (a - b)).chain(sums).sum()
}

/// Sixteen partial results of folding `values`, so that the loop becomes vector instructions.
#[inline(always)]
pub(crate) fn lanes(values: &[f32], init: f32, fold: impl Fn(f32, f32) -> f32) -> [f32; 16] {
    let mut lanes = [init; 16];
    let (blocks, tail) = values.as_chunks::<16>();
    for block in blocks {
        lanes.iter_mut().zip(block).for_each(|(lane, &value)| *lane = fold(*lane, value));
    }
    lanes.iter_mut().zip(tail).for_each(|(lane, &value)| *lane = fold(*lane, value));
    lanes
}
