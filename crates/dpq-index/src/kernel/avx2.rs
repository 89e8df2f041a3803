//! The byte filter with AVX2: 32 codes at a time, with shuffles of 16 bytes as table lookups.

use std::arch::x86_64::*;
use std::ops::Range;

use super::{Column, Survivors};

/// Codes at a time.
const LANES: usize = 32;

#[target_feature(enable = "avx2")]
pub(super) fn survivors(
    columns: &[Column],
    positions: Range<usize>,
    limit: u8,
    survivors: &mut Survivors,
) -> usize {
    let mut n_found = 0;
    for start in positions.clone().step_by(LANES) {
        let mut sums = _mm256_setzero_si256();
        for column in columns {
            sums = _mm256_adds_epu8(sums, look_up(column.table, load(column.plane, start)));
        }
        let within = _mm256_cmpeq_epi8(_mm256_min_epu8(sums, _mm256_set1_epi8(limit.cast_signed())), sums);
        let mut found = _mm256_movemask_epi8(within).cast_unsigned();
        let n_left = positions.end - start;
        if n_left < LANES {
            found &= (1 << n_left) - 1;
        }
        while found != 0 {
            survivors[n_found] = (start - positions.start) as u16 + found.trailing_zeros() as u16;
            n_found += 1;
            found &= found - 1;
        }
    }
    n_found
}

/// Loads 32 bytes of a plane from `start` on, with zeros behind the end of the plane.
#[expect(unsafe_code, reason = "vector loads take pointers")]
#[inline]
#[target_feature(enable = "avx2")]
fn load(plane: &[u8], start: usize) -> __m256i {
    if let Some(bytes) = plane.get(start..start + LANES) {
        // SAFETY: `bytes` has 32 bytes.
        unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) }
    } else {
        let mut bytes = [0u8; LANES];
        let rest = &plane[start..];
        bytes[..rest.len()].copy_from_slice(rest);
        // SAFETY: `bytes` has 32 bytes.
        unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) }
    }
}

/// Returns the table entries of 32 bytes: shuffles by the low four bits, then a tree of blends by
/// the high four.
#[inline]
#[target_feature(enable = "avx2")]
fn look_up(table: &[u8; 256], bytes: __m256i) -> __m256i {
    // A shuffle gives zero where the highest bit is set, so an `or` serves as the blend by that
    // bit.
    let flipped = _mm256_xor_si256(bytes, _mm256_set1_epi8(i8::MIN));
    let one = |i| _mm256_or_si256(shuffle(table, i, bytes), shuffle(table, i + 8, flipped));
    // A blend uses only the highest bit of each byte, which bits from the byte below do not reach.
    let (bit_4, bit_5) = (_mm256_slli_epi16::<3>(bytes), _mm256_slli_epi16::<2>(bytes));
    let bit_6 = _mm256_slli_epi16::<1>(bytes);
    let two = |i| _mm256_blendv_epi8(one(i), one(i + 1), bit_4);
    let four = |i| _mm256_blendv_epi8(two(i), two(i + 2), bit_5);
    _mm256_blendv_epi8(four(0), four(4), bit_6)
}

/// Returns the entries 16·`i` + the low four bits of each byte, zero where its highest bit is set.
#[expect(unsafe_code, reason = "vector loads take pointers")]
#[inline]
#[target_feature(enable = "avx2")]
fn shuffle(table: &[u8; 256], i: usize, bytes: __m256i) -> __m256i {
    let sixteen = &table[i * 16..][..16];
    // SAFETY: `sixteen` has 16 bytes.
    let sixteen = unsafe { _mm_loadu_si128(sixteen.as_ptr().cast()) };
    _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(sixteen), bytes)
}
