//! Inner products by AVX-512, all sixteen partial sums at a time.

use std::arch::x86_64::*;

use super::{LANES, ROWS, avx2, by_fours, by_tiles};

/// The vectors of a tile. Its sums take 16 of the 32 registers; of tiles with more sums, the
/// compiler puts some into memory.
const XS: usize = 4;

/// Sixteen numbers of a vector in one line of the cache: a load that crosses lines takes twice as
/// long.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Block([f32; LANES]);

/// [`dots_at`](super::dots_at).
#[target_feature(enable = "avx512f,avx2,fma")]
pub(super) fn dots(x: &[f32], rows: &[f32], at: Option<&[usize]>, out: &mut [f32]) {
    let blocks = blocks(x);
    by_fours(x.len(), rows, at, out, |rows| {
        let [products] = tile([&blocks], rows);
        products
    });
}

/// [`batch`](super::batch).
#[target_feature(enable = "avx512f,avx2,fma")]
pub(super) fn batch(xs: &[f32], rows: &[f32], dim: usize, out: &mut [f32]) {
    let blocks: Vec<Vec<Block>> = xs.chunks_exact(dim).map(blocks).collect();
    let xs: Vec<&[Block]> = blocks.iter().map(Vec::as_slice).collect();
    by_tiles(&xs, rows, dim, out, |xs: [_; XS], rows| tile(xs, rows));
}

/// Returns a vector padded with zeros to whole blocks.
fn blocks(x: &[f32]) -> Vec<Block> {
    let block = |x: &[f32]| {
        let mut block = [0.0; LANES];
        block[..x.len()].copy_from_slice(x);
        Block(block)
    };
    x.chunks(LANES).map(block).collect()
}

/// Multiplies vectors with the same rows, which are loaded once for all.
#[expect(unsafe_code, reason = "vector loads take pointers")]
#[inline]
#[target_feature(enable = "avx512f,avx2,fma")]
fn tile<const M: usize>(xs: [&[Block]; M], rows: [&[f32]; ROWS]) -> [[f32; ROWS]; M] {
    let n_blocks = xs[0].len();
    let rows = rows.map(|row| row.as_chunks::<LANES>());
    let n_rest = rows[0].1.len();
    let n_whole = n_blocks - usize::from(n_rest > 0);
    assert!(xs.iter().all(|x| x.len() == n_blocks), "vectors of one length");
    assert!(rows.iter().all(|row| (row.0.len(), row.1.len()) == (n_whole, n_rest)), "rows of this length");
    let mut sums = [[_mm512_setzero_ps(); ROWS]; M];
    let mut add = |i: usize, rows: [__m512; ROWS]| {
        for (sums, x) in sums.iter_mut().zip(xs) {
            // SAFETY: every vector has `n_blocks` blocks.
            let x = unsafe { _mm512_load_ps(x.get_unchecked(i).0.as_ptr()) };
            for (sum, row) in sums.iter_mut().zip(rows) {
                *sum = _mm512_fmadd_ps(x, row, *sum);
            }
        }
    };
    for i in 0..n_whole {
        let load = |(blocks, _): (&[[f32; LANES]], &[f32])| {
            // SAFETY: every row has `n_whole` blocks of sixteen numbers.
            unsafe { _mm512_loadu_ps(blocks.get_unchecked(i).as_ptr()) }
        };
        add(i, rows.map(load));
    }
    if n_rest > 0 {
        // SAFETY: the mask reads only the rest.
        let load = |rest: &[f32]| unsafe { _mm512_maskz_loadu_ps((1 << n_rest) - 1, rest.as_ptr()) };
        add(n_whole, rows.map(|(_, rest)| load(rest)));
    }
    // Loops: the closure of a `map` here would be a call per tile.
    let mut products = [[0.0; ROWS]; M];
    for (products, sums) in products.iter_mut().zip(sums) {
        let mut halves = [[_mm256_setzero_ps(); ROWS]; 2];
        for (row, sum) in sums.into_iter().enumerate() {
            halves[0][row] = _mm512_castps512_ps256(sum);
            halves[1][row] = _mm256_castpd_ps(_mm512_extractf64x4_pd::<1>(_mm512_castps_pd(sum)));
        }
        *products = avx2::add_up(halves[0], halves[1]);
    }
    products
}
