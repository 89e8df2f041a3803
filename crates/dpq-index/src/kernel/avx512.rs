//! The byte filter with AVX-512 VBMI: 64 codes at a time, with permutations of 128 bytes as table
//! lookups.

use std::arch::x86_64::*;
use std::ops::Range;

use super::{BLOCK, Column, Survivors};

/// Codes at a time.
const LANES: usize = 64;

/// Columns at a time: their tables stay in registers, four of 32 each. With six the compiler puts
/// some into memory.
const KEPT: usize = 5;

#[target_feature(enable = "avx512vbmi")]
pub(super) fn survivors(
    columns: &[Column],
    positions: Range<usize>,
    limit: u8,
    survivors: &mut Survivors,
) -> usize {
    // Functions of their own: most calls have few columns and few codes, and need few registers.
    match columns.len() {
        0 => survivors_of::<0>(columns, positions, limit, survivors),
        1 => survivors_of::<1>(columns, positions, limit, survivors),
        2 => survivors_of::<2>(columns, positions, limit, survivors),
        3 => survivors_of::<3>(columns, positions, limit, survivors),
        4 => survivors_of::<4>(columns, positions, limit, survivors),
        5 => survivors_of::<5>(columns, positions, limit, survivors),
        _ => survivors_of_many(columns, positions, limit, survivors),
    }
}

/// [`survivors`] of N columns.
#[inline(never)]
#[target_feature(enable = "avx512vbmi")]
fn survivors_of<const N: usize>(
    columns: &[Column],
    positions: Range<usize>,
    limit: u8,
    survivors: &mut Survivors,
) -> usize {
    let (mut n_found, n) = (0, positions.len());
    sum_columns::<N>(columns, positions, |start, sum| find(sum, start, n, limit, survivors, &mut n_found));
    n_found
}

/// [`survivors`] of more than `KEPT` columns.
#[inline(never)]
#[target_feature(enable = "avx512vbmi")]
fn survivors_of_many(
    mut columns: &[Column],
    positions: Range<usize>,
    limit: u8,
    survivors: &mut Survivors,
) -> usize {
    let (mut n_found, n) = (0, positions.len());
    let mut sums = [_mm512_setzero_si512(); BLOCK / LANES];
    while columns.len() > KEPT {
        let (now, later) = columns.split_at(KEPT);
        sum_columns::<KEPT>(now, positions.clone(), |start, sum| {
            sums[start / LANES] = _mm512_adds_epu8(sums[start / LANES], sum);
        });
        columns = later;
    }
    let last = |start, sum| {
        let sum = _mm512_adds_epu8(sums[start / LANES], sum);
        find(sum, start, n, limit, survivors, &mut n_found);
    };
    match columns.len() {
        1 => sum_columns::<1>(columns, positions, last),
        2 => sum_columns::<2>(columns, positions, last),
        3 => sum_columns::<3>(columns, positions, last),
        4 => sum_columns::<4>(columns, positions, last),
        _ => sum_columns::<KEPT>(columns, positions, last),
    }
    n_found
}

/// Calls `f` with the sums of the table entries of each 64 codes over N columns, and the offset of
/// these codes.
#[inline]
#[target_feature(enable = "avx512vbmi")]
fn sum_columns<const N: usize>(
    columns: &[Column],
    positions: Range<usize>,
    mut f: impl FnMut(usize, __m512i),
) {
    let mut planes = [(&[][..], &[][..]); N];
    let mut tables = [[_mm512_setzero_si512(); 4]; N];
    for ((plane, table), column) in planes.iter_mut().zip(&mut tables).zip(columns) {
        *plane = column.plane[positions.clone()].as_chunks::<LANES>();
        *table = quarters(column.table);
    }
    // Whole loads and slices of the same length keep masks and bounds checks out of the loop.
    let n_whole = positions.len() / LANES;
    let planes = planes.map(|(whole, rest)| (&whole[..n_whole], rest));
    for i in 0..n_whole {
        let mut sum = _mm512_setzero_si512();
        for ((whole, _), table) in planes.iter().zip(&tables) {
            sum = _mm512_adds_epu8(sum, look_up(table, load(&whole[i])));
        }
        f(i * LANES, sum);
    }
    if n_whole * LANES < positions.len() {
        let mut sum = _mm512_setzero_si512();
        for ((_, rest), table) in planes.iter().zip(&tables) {
            sum = _mm512_adds_epu8(sum, look_up(table, load(rest)));
        }
        f(n_whole * LANES, sum);
    }
}

/// Writes the offsets of the codes whose sum is within the limit, of 64 codes from `start` on or of
/// those before `end`.
#[inline]
#[target_feature(enable = "avx512vbmi")]
fn find(sum: __m512i, start: usize, end: usize, limit: u8, survivors: &mut Survivors, n_found: &mut usize) {
    let limit = _mm512_set1_epi8(limit.cast_signed());
    let mut found = _mm512_mask_cmple_epu8_mask(first(end - start), sum, limit);
    while found != 0 {
        survivors[*n_found] = start as u16 + found.trailing_zeros() as u16;
        *n_found += 1;
        found &= found - 1;
    }
}

/// Returns a mask of the first `n` lanes.
#[inline]
fn first(n: usize) -> __mmask64 {
    !u64::MAX.unbounded_shl(n.min(LANES) as u32)
}

/// Loads the first 64 bytes, or fewer with zeros behind them.
#[expect(unsafe_code, reason = "vector loads take pointers")]
#[inline]
#[target_feature(enable = "avx512vbmi")]
fn load(bytes: &[u8]) -> __m512i {
    // SAFETY: the mask leaves out the lanes behind the end of `bytes`.
    unsafe { _mm512_maskz_loadu_epi8(first(bytes.len()), bytes.as_ptr().cast()) }
}

/// Loads a table.
#[inline]
#[target_feature(enable = "avx512vbmi")]
fn quarters(table: &[u8; 256]) -> [__m512i; 4] {
    let mut quarters = [_mm512_setzero_si512(); 4];
    for (quarter, bytes) in quarters.iter_mut().zip(table.as_chunks::<LANES>().0) {
        *quarter = load(bytes);
    }
    quarters
}

/// Returns the table entries of 64 bytes: a permutation each for bytes below 128 and from 128 on,
/// and a blend of both.
#[inline]
#[target_feature(enable = "avx512vbmi")]
fn look_up(table: &[__m512i; 4], bytes: __m512i) -> __m512i {
    let low = _mm512_permutex2var_epi8(table[0], bytes, table[1]);
    let high = _mm512_permutex2var_epi8(table[2], bytes, table[3]);
    _mm512_mask_blend_epi8(_mm512_movepi8_mask(bytes), low, high)
}
