//! The byte filter without vector instructions.

use std::ops::Range;

use super::{BLOCK, Column, Survivors};

pub(super) fn survivors(
    columns: &[Column],
    positions: Range<usize>,
    limit: u8,
    survivors: &mut Survivors,
) -> usize {
    let mut sums = [0u8; BLOCK];
    let sums = &mut sums[..positions.len()];
    for columns in columns.chunks(4) {
        match columns.len() {
            1 => add::<1>(columns, positions.start, sums),
            2 => add::<2>(columns, positions.start, sums),
            3 => add::<3>(columns, positions.start, sums),
            _ => add::<4>(columns, positions.start, sums),
        }
    }
    // Most groups have no survivor, which a comparison of all at once tells.
    let mut n_found = 0;
    for (group, sums) in sums.chunks(16).enumerate() {
        if sums.iter().fold(0, |any, &sum| any | u8::from(sum <= limit)) != 0 {
            for (i, &sum) in sums.iter().enumerate() {
                survivors[n_found] = (group * 16 + i) as u16;
                n_found += usize::from(sum <= limit);
            }
        }
    }
    n_found
}

/// Adds the entries of N columns to the sums of the codes from `start` on.
fn add<const N: usize>(columns: &[Column], start: usize, sums: &mut [u8]) {
    // Slices of one length, known before the loop, keep bounds checks out of it.
    let planes: [&[u8]; N] = std::array::from_fn(|i| &columns[i].plane[start..][..sums.len()]);
    let tables: [&[u8; 256]; N] = std::array::from_fn(|i| columns[i].table);
    for (i, sum) in sums.iter_mut().enumerate() {
        let mut total = u32::from(*sum);
        for column in 0..N {
            total += u32::from(tables[column][usize::from(planes[column][i])]);
        }
        *sum = total.min(255) as u8;
    }
}
