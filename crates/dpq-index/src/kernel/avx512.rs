//! The byte filter with AVX-512 VBMI: 64 codes at a time, with permutations of 128 bytes as table
//! lookups.

use std::arch::x86_64::*;
use std::ops::Range;

use super::{BLOCK, Column, Survivors};

/// Codes at a time.
const LANES: usize = 64;

/// Columns at a time: their tables stay in registers, four of 32 each.
const KEPT: usize = 4;

/// The sums of a block over some columns.
type Sums = [__m512i; BLOCK / LANES];

#[target_feature(enable = "avx512vbmi")]
pub(super) fn survivors(
    columns: &[Column],
    positions: Range<usize>,
    limit: u8,
    survivors: &mut Survivors,
) -> usize {
    // Most calls have few columns and few codes: they do without the sums of a block.
    if columns.len() <= KEPT {
        return scan_last(columns, positions, limit, |_| _mm512_setzero_si512(), survivors);
    }
    let (mut columns, mut sums) = (columns, [_mm512_setzero_si512(); BLOCK / LANES]);
    while columns.len() > KEPT {
        let (now, later) = columns.split_at(KEPT);
        add(now, positions.clone(), &mut sums);
        columns = later;
    }
    scan_last(columns, positions, limit, |i| sums[i], survivors)
}

/// [`scan`] of at most `KEPT` columns.
#[inline]
#[target_feature(enable = "avx512vbmi")]
fn scan_last(
    columns: &[Column],
    positions: Range<usize>,
    limit: u8,
    sums: impl Fn(usize) -> __m512i,
    survivors: &mut Survivors,
) -> usize {
    match columns.len() {
        0 => scan::<0>(columns, positions, limit, sums, survivors),
        1 => scan::<1>(columns, positions, limit, sums, survivors),
        2 => scan::<2>(columns, positions, limit, sums, survivors),
        3 => scan::<3>(columns, positions, limit, sums, survivors),
        _ => scan::<KEPT>(columns, positions, limit, sums, survivors),
    }
}

/// Adds the table entries of `KEPT` columns to the sums.
#[target_feature(enable = "avx512vbmi")]
fn add(columns: &[Column], positions: Range<usize>, sums: &mut Sums) {
    let (planes, tables) = registers::<KEPT>(columns, &positions);
    for (sum, start) in sums.iter_mut().zip((0..positions.len()).step_by(LANES)) {
        *sum = add_columns(*sum, &planes, &tables, start);
    }
}

/// Finds the codes whose sum is within the limit: `sums` of 64 codes and the N last columns.
#[target_feature(enable = "avx512vbmi")]
fn scan<const N: usize>(
    columns: &[Column],
    positions: Range<usize>,
    limit: u8,
    sums: impl Fn(usize) -> __m512i,
    survivors: &mut Survivors,
) -> usize {
    let (planes, tables) = registers::<N>(columns, &positions);
    let limit = _mm512_set1_epi8(limit.cast_signed());
    let mut n_found = 0;
    for (i, start) in (0..positions.len()).step_by(LANES).enumerate() {
        let sum = add_columns(sums(i), &planes, &tables, start);
        let mut found = _mm512_mask_cmple_epu8_mask(first(positions.len() - start), sum, limit);
        while found != 0 {
            survivors[n_found] = start as u16 + found.trailing_zeros() as u16;
            n_found += 1;
            found &= found - 1;
        }
    }
    n_found
}

/// Returns the bytes at `positions` of N columns, and their tables.
#[inline]
#[target_feature(enable = "avx512vbmi")]
fn registers<'a, const N: usize>(
    columns: &[Column<'a>],
    positions: &Range<usize>,
) -> ([&'a [u8]; N], [[__m512i; 4]; N]) {
    // Slices of the same length keep bounds checks out of the loop.
    let mut planes = [&[][..]; N];
    let mut tables = [[_mm512_setzero_si512(); 4]; N];
    for ((plane, table), column) in planes.iter_mut().zip(&mut tables).zip(columns) {
        *plane = &column.plane[positions.start..][..positions.len()];
        *table = quarters(column.table);
    }
    (planes, tables)
}

/// Adds the table entries of 64 codes, from `start` on.
#[inline]
#[target_feature(enable = "avx512vbmi")]
fn add_columns<const N: usize>(
    mut sum: __m512i,
    planes: &[&[u8]; N],
    tables: &[[__m512i; 4]; N],
    start: usize,
) -> __m512i {
    for (plane, table) in planes.iter().zip(tables) {
        sum = _mm512_adds_epu8(sum, look_up(table, load(&plane[start..])));
    }
    sum
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
