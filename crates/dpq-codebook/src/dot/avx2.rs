//! Inner products by AVX2 and fused multiply-add, eight partial sums at a time.

use std::arch::x86_64::*;

use super::{LANES, ROWS};

/// The partial sums that a register holds.
const HALF: usize = LANES / 2;

/// [`dots_of`](super::dots_of) eight numbers wide; the compiler would vectorize it two wide.
#[inline]
#[target_feature(enable = "avx2,fma")]
pub(crate) fn dots_of(x: &[f32], rows: [&[f32]; ROWS]) -> [f32; ROWS] {
    let [[low, high]] = sums::<1, 2>([x], rows, [0, HALF]);
    add_up(low, high)
}

/// Multiplies two vectors with the same rows, which are loaded once for both.
#[inline]
#[target_feature(enable = "avx2,fma")]
pub(super) fn tile(xs: [&[f32]; 2], rows: [&[f32]; ROWS]) -> [[f32; ROWS]; 2] {
    // All sums of both vectors at once would not fit into the registers.
    let low = sums::<2, 1>(xs, rows, [0]);
    let high = sums::<2, 1>(xs, rows, [HALF]);
    [add_up(low[0][0], high[0][0]), add_up(low[1][0], high[1][0])]
}

/// Returns, for each vector, the partial sums that start `at` these lanes, by row.
#[expect(unsafe_code, reason = "vector loads take pointers")]
#[inline]
#[target_feature(enable = "avx2,fma")]
fn sums<const M: usize, const N: usize>(
    xs: [&[f32]; M],
    rows: [&[f32]; ROWS],
    at: [usize; N],
) -> [[[__m256; ROWS]; N]; M] {
    let dim = xs[0].len();
    assert!(xs.iter().chain(&rows).all(|x| x.len() == dim), "vectors of one length");
    assert!(at.iter().all(|at| at + HALF <= LANES), "lanes of a partial sum");
    let (xs, rows) = (xs.map(|x| x.as_chunks::<LANES>()), rows.map(|row| row.as_chunks::<LANES>()));
    let mut sums = [[[_mm256_setzero_ps(); ROWS]; N]; M];
    for i in 0..dim / LANES {
        for (n, &at) in at.iter().enumerate() {
            // SAFETY: reads eight of the sixteen numbers of block i, which every vector has.
            let load = |x: &[[f32; LANES]]| unsafe { _mm256_loadu_ps(x.get_unchecked(i).as_ptr().add(at)) };
            let rows = rows.map(|(blocks, _)| load(blocks));
            for (sums, (x, _)) in sums.iter_mut().zip(xs) {
                let x = load(x);
                for (sum, row) in sums[n].iter_mut().zip(rows) {
                    *sum = _mm256_fmadd_ps(x, row, *sum);
                }
            }
        }
    }
    if dim.is_multiple_of(LANES) {
        return sums;
    }
    for (n, &at) in at.iter().enumerate() {
        let n_rest = (dim % LANES).saturating_sub(at) as i32;
        let mask = _mm256_cmpgt_epi32(_mm256_set1_epi32(n_rest), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
        // SAFETY: the mask reads only numbers inside the tail, and all tails have one length.
        let load = |tail: &[f32]| unsafe { _mm256_maskload_ps(tail.as_ptr().wrapping_add(at), mask) };
        for (sums, (_, x)) in sums.iter_mut().zip(xs) {
            let x = load(x);
            for (sum, (_, row)) in sums[n].iter_mut().zip(rows) {
                *sum = _mm256_fmadd_ps(x, load(row), *sum);
            }
        }
    }
    sums
}

/// The tree of [`add_up`](super::add_up), for all rows together.
#[expect(unsafe_code, reason = "a vector store takes a pointer")]
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn add_up(low: [__m256; ROWS], high: [__m256; ROWS]) -> [f32; ROWS] {
    let mut halves = [_mm_setzero_ps(); ROWS];
    for ((half, low), high) in halves.iter_mut().zip(low).zip(high) {
        let sum = _mm256_add_ps(low, high);
        *half = _mm_add_ps(_mm256_castps256_ps128(sum), _mm256_extractf128_ps::<1>(sum));
    }
    let [a, b, c, d] = &mut halves;
    _MM_TRANSPOSE4_PS(a, b, c, d);
    let sum = _mm_add_ps(_mm_add_ps(*a, *c), _mm_add_ps(*b, *d));
    let mut out = [0.0; ROWS];
    // SAFETY: `out` has four numbers.
    unsafe { _mm_storeu_ps(out.as_mut_ptr(), _mm_add_ps(sum, _mm_setzero_ps())) }
    out
}
