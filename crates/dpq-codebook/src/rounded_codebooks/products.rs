//! Inner products of rounded queries and codewords: 16-bit by 8-bit integers, summed in 32 bits,
//! which is exact in any order and so the same on every CPU.

use super::{Part, RoundedQuery};
use crate::vectorize::vectorize;

/// The integers of a row are padded with zeros to a multiple of this.
pub(super) const BLOCK: usize = 32;

/// The rows that are multiplied together, so that several chains of additions overlap.
const ROWS: usize = 4;

/// How many rows ahead the CPU is asked to load.
const AHEAD: usize = 4 * ROWS;

/// Adds the approximate products of queries and `n` rows of a part, the first or those that `at`
/// names, to the first `n` numbers of each query in `out` [number of queries, any number].
pub(super) fn products(
    part: &Part,
    queries: &[&RoundedQuery],
    at: Option<&[usize]>,
    n: usize,
    out: &mut [f32],
) {
    if n == 0 {
        return;
    }
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vnni")
    {
        #[expect(unsafe_code, reason = "the call is safe only where the CPU has the instructions")]
        // SAFETY: the line above found these parts of AVX-512.
        return unsafe { avx512::products(part, queries, at, n, out) };
    }
    products_vectorized(part, queries, at, n, out);
}

vectorize! {
    fn products_vectorized(
        part: &Part, queries: &[&RoundedQuery], at: Option<&[usize]>, n: usize, out: &mut [f32]
    ) =
        |part, queries, at, n, out| by_fours(part, queries, at, n, out, |q, rows, _| avx2::dots(q, rows)),
        |part, queries, at, n, out| by_fours(part, queries, at, n, out, |q, rows, _| dots(q, rows))
}

#[inline(always)]
fn by_fours(
    part: &Part,
    queries: &[&RoundedQuery],
    at: Option<&[usize]>,
    n: usize,
    out: &mut [f32],
    dots: impl Fn(&[[i16; BLOCK]], [&[[i8; BLOCK]]; ROWS], [&[[i8; BLOCK]]; ROWS]) -> [i32; ROWS],
) {
    // The last row stands in for missing ones.
    let row = |i: usize| at.map_or(i.min(n - 1), |at| at[i.min(n - 1)]);
    let rows = |first: usize| -> [&[[i8; BLOCK]]; ROWS] {
        std::array::from_fn(|i| part.integers[row(first + i) * part.stride..][..part.stride].as_chunks().0)
    };
    let stride = out.len() / queries.len();
    for first in (0..n).step_by(ROWS) {
        let (rows, next) = (rows(first), rows(first + AHEAD));
        for (query, out) in queries.iter().zip(out.chunks_exact_mut(stride)) {
            let dots = dots(query.integers.as_chunks().0, rows, next);
            for (i, (out, dot)) in out[first..n].iter_mut().zip(dots).enumerate() {
                *out += dot as f32 * query.scale * part.scales[row(first + i)];
            }
        }
    }
}

/// Returns the inner products of integers of a query and of rows, of one length.
#[inline(always)]
fn dots(query: &[[i16; BLOCK]], rows: [&[[i8; BLOCK]]; ROWS]) -> [i32; ROWS] {
    rows.map(|row| {
        let terms = query.as_flattened().iter().zip(row.as_flattened());
        terms.map(|(&q, &c)| i32::from(q) * i32::from(c)).sum()
    })
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::x86_64::*;

    use super::{BLOCK, ROWS};

    /// [`dots`](super::dots).
    #[expect(unsafe_code, reason = "vector loads take pointers")]
    #[inline]
    #[target_feature(enable = "avx2")]
    pub(super) fn dots(query: &[[i16; BLOCK]], rows: [&[[i8; BLOCK]]; ROWS]) -> [i32; ROWS] {
        assert!(rows.iter().all(|row| row.len() == query.len()), "rows of the query's length");
        let mut sums = [_mm256_setzero_si256(); ROWS];
        for (i, query) in query.iter().enumerate() {
            for half in 0..2 {
                // SAFETY: half a block is 16 integers; every row has as many blocks as the query.
                let query = unsafe { _mm256_loadu_si256(query.as_ptr().cast::<__m256i>().add(half)) };
                for (sum, row) in sums.iter_mut().zip(rows) {
                    // SAFETY: as above.
                    let row =
                        unsafe { _mm_loadu_si128(row.get_unchecked(i).as_ptr().cast::<__m128i>().add(half)) };
                    *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(query, _mm256_cvtepi8_epi16(row)));
                }
            }
        }
        sums.map(|sum| {
            let sum = _mm_add_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256::<1>(sum));
            let sum = _mm_add_epi32(sum, _mm_shuffle_epi32::<0b00_00_11_10>(sum));
            _mm_cvtsi128_si32(_mm_add_epi32(sum, _mm_shuffle_epi32::<0b00_00_00_01>(sum)))
        })
    }
}

#[cfg(target_arch = "x86_64")]
mod avx512 {
    use std::arch::x86_64::*;

    use super::{BLOCK, Part, ROWS, RoundedQuery, by_fours};

    /// [`products`](super::products).
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    pub(super) fn products(
        part: &Part,
        queries: &[&RoundedQuery],
        at: Option<&[usize]>,
        n: usize,
        out: &mut [f32],
    ) {
        by_fours(part, queries, at, n, out, |query, rows, next| dots(query, rows, next));
    }

    /// [`dots`](super::dots). Meanwhile the CPU loads the rows that come `next`.
    #[expect(unsafe_code, reason = "vector loads take pointers")]
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    fn dots(
        query: &[[i16; BLOCK]],
        rows: [&[[i8; BLOCK]]; ROWS],
        next: [&[[i8; BLOCK]]; ROWS],
    ) -> [i32; ROWS] {
        assert!(rows.iter().all(|row| row.len() == query.len()), "rows of the query's length");
        let mut sums = [_mm512_setzero_si512(); ROWS];
        for (i, query) in query.iter().enumerate() {
            // SAFETY: a block is 32 integers; every row has as many blocks as the query.
            let query = unsafe { _mm512_loadu_si512(query.as_ptr().cast()) };
            for ((sum, row), next) in sums.iter_mut().zip(rows).zip(next) {
                _mm_prefetch::<_MM_HINT_T0>(next.as_ptr().wrapping_add(i).cast());
                // SAFETY: as above.
                let row = unsafe { _mm256_loadu_si256(row.get_unchecked(i).as_ptr().cast()) };
                *sum = _mm512_dpwssd_epi32(*sum, query, _mm512_cvtepi8_epi16(row));
            }
        }
        sums.map(|sum| _mm512_reduce_add_epi32(sum))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Assignment, Codebooks, RoundedCodebooks};

    #[test]
    fn every_route_gives_the_same_products() {
        for dim in [1, 31, 64, 300] {
            let value = |i: usize| ((i * 7919) % 1009) as f32 / 313.0 - 1.6;
            let values = (0..2 * 7 * dim).map(value).collect();
            let codebooks = Codebooks::new(values, 2, 7, dim, Assignment::Euclidean).unwrap();
            let rounded = RoundedCodebooks::new(&codebooks).unwrap();
            let query = |i: usize| {
                let x: Vec<f32> = (0..dim).map(|j| ((i + j) * 131 % 37) as f32 - 18.0).collect();
                rounded.round(&x).unwrap()
            };
            let queries = [query(0), query(1), query(2)];
            let queries: Vec<&RoundedQuery> = queries.iter().collect();
            type Route = fn(&Part, &[&RoundedQuery], Option<&[usize]>, usize, &mut [f32]);
            let routes: [Route; 3] = [products, products_vectorized, |part, queries, at, n, out| {
                by_fours(part, queries, at, n, out, |query, rows, _| dots(query, rows));
            }];
            for at in [None, Some(&[13, 0, 5, 5, 2][..])] {
                let n = at.map_or(14, <[usize]>::len);
                let results = routes.map(|route| {
                    let mut out = vec![0.5; 3 * n];
                    route(&rounded.parts[0], &queries, at, n, &mut out);
                    out.iter().map(|x| x.to_bits()).collect::<Vec<_>>()
                });
                assert!(results.iter().all(|result| *result == results[0]), "dim {dim}");
                assert!(results[0].iter().all(|&x| x != 0.5f32.to_bits()) || dim == 1, "dim {dim}");
            }
        }
    }
}
