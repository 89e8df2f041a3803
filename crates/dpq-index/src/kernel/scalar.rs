//! The byte filter without vector instructions.

use std::ops::Range;

use super::{Column, Survivors};

/// Codes at a time.
const GROUP: usize = 16;

pub(super) fn survivors(
    columns: &[Column],
    positions: Range<usize>,
    limit: u8,
    survivors: &mut Survivors,
) -> usize {
    let mut n_found = 0;
    for start in positions.clone().step_by(GROUP) {
        // The maximum number of columns does not overflow these.
        let mut sums = [0u16; GROUP];
        let sums = &mut sums[..GROUP.min(positions.end - start)];
        for columns in columns.chunks(4) {
            match columns.len() {
                1 => add::<1>(columns, start, sums),
                2 => add::<2>(columns, start, sums),
                3 => add::<3>(columns, start, sums),
                _ => add::<4>(columns, start, sums),
            }
        }
        // Most groups have no survivors. Comparing all sums at once finds that out.
        let within = |sum: u16| sum <= u16::from(limit);
        if sums.iter().fold(false, |any, &sum| any | within(sum)) {
            for (i, &sum) in sums.iter().enumerate() {
                survivors[n_found] = (start - positions.start + i) as u16;
                n_found += usize::from(within(sum));
            }
        }
    }
    n_found
}

/// Adds the entries of N columns to the sums of the codes from `start` on.
#[inline(always)]
fn add<const N: usize>(columns: &[Column], start: usize, sums: &mut [u16]) {
    // Slices of the same length keep bounds checks out of the loop.
    let planes: [&[u8]; N] = std::array::from_fn(|i| &columns[i].plane[start..][..sums.len()]);
    let tables: [&[u8; 256]; N] = std::array::from_fn(|i| columns[i].table);
    for (i, sum) in sums.iter_mut().enumerate() {
        for column in 0..N {
            *sum += u16::from(tables[column][usize::from(planes[column][i])]);
        }
    }
}
