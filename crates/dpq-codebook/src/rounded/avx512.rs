//! Tiles of products by the VNNI of AVX-512.

use std::arch::x86_64::*;

use super::{COLUMNS, Columns, Pair, ROWS};

pub(super) fn is_available() -> bool {
    is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vnni")
}

/// Computes the products of all tiles, two tiles of rows at a time: the sums of one tile would have
/// to wait for each other.
#[target_feature(enable = "avx512f,avx512vnni")]
pub(super) fn multiply(columns: &Columns, rows: &[[Pair; ROWS]], out: &mut [i32]) {
    if columns.precision.is_packed() {
        multiply_tiles(columns, rows, out, |sum, rows, columns| _mm512_dpbusd_epi32(sum, rows, columns));
    } else {
        multiply_tiles(columns, rows, out, |sum, rows, columns| _mm512_dpwssd_epi32(sum, rows, columns));
    }
}

/// Computes the products of all tiles, of which `multiply_add` adds those of a pair.
#[inline]
#[target_feature(enable = "avx512f,avx512vnni")]
fn multiply_tiles(
    columns: &Columns,
    rows: &[[Pair; ROWS]],
    out: &mut [i32],
    multiply_add: impl Fn(__m512i, __m512i, __m512i) -> __m512i,
) {
    let (n_pairs, width) = (columns.precision.n_pairs(columns.dim()), columns.width());
    for (i, (columns, start)) in columns.tiles.chunks_exact(n_pairs).zip(&columns.starts).enumerate() {
        let rows = rows.chunks(2 * n_pairs).zip(out.chunks_mut(2 * ROWS * width));
        for (rows, out) in rows {
            let (rows, next) = rows.split_at(n_pairs);
            let out = out.chunks_exact_mut(width).map(|row| &mut row.as_chunks_mut().0[i]);
            if next.is_empty() {
                tile((columns, start), [rows], out, &multiply_add);
            } else {
                tile((columns, start), [rows, next], out, &multiply_add);
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
    (columns, start): (&[[Pair; COLUMNS]], &[i32; COLUMNS]),
    rows: [&[[Pair; ROWS]]; N],
    out: impl Iterator<Item = &'a mut [i32; COLUMNS]>,
    multiply_add: impl Fn(__m512i, __m512i, __m512i) -> __m512i,
) {
    assert!(rows.iter().all(|rows| rows.len() == columns.len()), "tiles of one dimension");
    // SAFETY: the sums of a row are 16 numbers, 64 bytes.
    let start = unsafe { _mm512_loadu_si512(start.as_ptr().cast()) };
    let mut sums = [[start; ROWS]; N];
    for (i, columns) in columns.iter().enumerate() {
        // SAFETY: the columns are 16 pairs, 64 bytes.
        let columns = unsafe { _mm512_loadu_si512(columns.as_ptr().cast()) };
        for (sums, rows) in sums.iter_mut().zip(rows) {
            for (sum, &[x, y]) in sums.iter_mut().zip(&rows[i]) {
                let pair = _mm512_set1_epi32(i32::from(y) << 16 | i32::from(x.cast_unsigned()));
                *sum = multiply_add(*sum, pair, columns);
            }
        }
    }
    for (out, sum) in out.zip(sums.as_flattened()) {
        // SAFETY: a row of the tile has 16 sums, 64 bytes.
        unsafe { _mm512_storeu_si512(out.as_mut_ptr().cast(), *sum) }
    }
}
