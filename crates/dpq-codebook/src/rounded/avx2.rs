//! Tiles of products by AVX2.

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
