//! The byte filter with NEON: 64 codes at a time, with lookups in tables of 64 bytes.

use std::arch::aarch64::*;
use std::ops::Range;

use super::{Column, Survivors};

/// Codes of a vector.
const LANES: usize = 16;
/// Vectors that a loaded table serves.
const VECTORS: usize = 4;

#[target_feature(enable = "neon")]
pub(super) fn survivors(
    columns: &[Column],
    positions: Range<usize>,
    limit: u8,
    survivors: &mut Survivors,
) -> usize {
    let limit = vdupq_n_u8(limit);
    let mut n_found = 0;
    for start in positions.clone().step_by(LANES * VECTORS) {
        let mut sums = [vdupq_n_u8(0); VECTORS];
        for column in columns {
            let table = quarters(column.table);
            for (i, sum) in sums.iter_mut().enumerate() {
                *sum = vqaddq_u8(*sum, look_up(&table, load(column.plane, start + i * LANES)));
            }
        }
        for (i, sum) in sums.into_iter().enumerate() {
            let offset = start + i * LANES - positions.start;
            // Four bits per code, of which one is kept.
            let within = vshrn_n_u16::<4>(vreinterpretq_u16_u8(vcleq_u8(sum, limit)));
            let mut found = vget_lane_u64::<0>(vreinterpret_u64_u8(within)) & 0x1111_1111_1111_1111;
            let n_left = positions.len().saturating_sub(offset);
            if n_left < LANES {
                found &= (1 << (4 * n_left)) - 1;
            }
            while found != 0 {
                survivors[n_found] = offset as u16 + (found.trailing_zeros() / 4) as u16;
                n_found += 1;
                found &= found - 1;
            }
        }
    }
    n_found
}

/// Loads 16 bytes of a plane from `start` on, with zeros behind the end of the plane.
#[expect(unsafe_code, reason = "vector loads take pointers")]
#[inline]
#[target_feature(enable = "neon")]
fn load(plane: &[u8], start: usize) -> uint8x16_t {
    if let Some(bytes) = plane.get(start..start + LANES) {
        // SAFETY: `bytes` has 16 bytes.
        unsafe { vld1q_u8(bytes.as_ptr()) }
    } else {
        let mut bytes = [0u8; LANES];
        let rest = plane.get(start..).unwrap_or(&[]);
        bytes[..rest.len()].copy_from_slice(rest);
        // SAFETY: `bytes` has 16 bytes.
        unsafe { vld1q_u8(bytes.as_ptr()) }
    }
}

/// Loads a table.
#[expect(unsafe_code, reason = "vector loads take pointers")]
#[inline]
#[target_feature(enable = "neon")]
fn quarters(table: &[u8; 256]) -> [uint8x16x4_t; 4] {
    // SAFETY: each load reads 64 of 256 bytes.
    [0, 64, 128, 192].map(|start| unsafe { vld1q_u8_x4(table[start..].as_ptr()) })
}

/// Returns the table entries of 16 bytes. A lookup leaves entries as they are, or zero, where its
/// index is 64 or more.
#[inline]
#[target_feature(enable = "neon")]
fn look_up(table: &[uint8x16x4_t; 4], bytes: uint8x16_t) -> uint8x16_t {
    let found = vqtbl4q_u8(table[0], bytes);
    let found = vqtbx4q_u8(found, table[1], vsubq_u8(bytes, vdupq_n_u8(64)));
    let found = vqtbx4q_u8(found, table[2], vsubq_u8(bytes, vdupq_n_u8(128)));
    vqtbx4q_u8(found, table[3], vsubq_u8(bytes, vdupq_n_u8(192)))
}
