//! The byte filter, the loop that reads most of the bytes of a search, for each instruction set.
//!
//! A kernel takes columns, each a plane of bytes and a table of 256 bytes. It finds the positions
//! where the sum of one table entry per column is within a limit. All kernels find the same
//! positions, so the choice affects only time.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "aarch64")]
mod neon;
mod scalar;

use std::fmt::{Display, Formatter};
use std::ops::Range;

/// The maximum number of codes that a kernel filters at a time.
pub(crate) const BLOCK: usize = 1024;

/// The offsets of the codes in a block that pass.
pub(crate) type Survivors = [u16; BLOCK];

/// Bytes of codes, and the number that each byte value adds.
#[derive(Clone, Copy)]
pub(crate) struct Column<'a> {
    pub(crate) plane: &'a [u8],
    pub(crate) table: &'a [u8; 256],
}

/// A routine that scans codes and that this CPU can run. All kernels find the same hits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kernel(Kind);

// Private: whoever has a value has a CPU with the instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Scalar,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512Vbmi,
    #[cfg(target_arch = "aarch64")]
    Neon,
}

impl Kernel {
    /// Returns the kernels that this CPU can run, fastest first. The last is `scalar`, which runs
    /// everywhere.
    pub fn available() -> impl Iterator<Item = Self> {
        let kinds = [
            #[cfg(target_arch = "x86_64")]
            (is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512vbmi"))
            .then_some(Kind::Avx512Vbmi),
            #[cfg(target_arch = "x86_64")]
            is_x86_feature_detected!("avx2").then_some(Kind::Avx2),
            #[cfg(target_arch = "aarch64")]
            std::arch::is_aarch64_feature_detected!("neon").then_some(Kind::Neon),
            Some(Kind::Scalar),
        ];
        kinds.into_iter().flatten().map(Self)
    }

    /// Returns the fastest kernel.
    pub fn best() -> Self {
        Self::available().next().unwrap_or(Self(Kind::Scalar))
    }

    /// Returns the cost of a code byte, relative to that of finding the codes of a cell in the
    /// directory.
    pub(crate) fn cost(self) -> f32 {
        match self.0 {
            Kind::Scalar => 0.02,
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => 0.008,
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512Vbmi => 0.0033,
            #[cfg(target_arch = "aarch64")]
            Kind::Neon => 0.008,
        }
    }

    /// Calls `f`, compiled for AVX2 if the kernel has it. `f` must always be inlined.
    pub(crate) fn vectorized(self, f: impl FnOnce()) {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 | Kind::Avx512Vbmi => {
                #[target_feature(enable = "avx2")]
                fn avx2(f: impl FnOnce()) {
                    f();
                }
                #[expect(unsafe_code, reason = "the call is safe only where the CPU has the instructions")]
                // SAFETY: every CPU with AVX-512 has AVX2, and the other kind is made only where
                // AVX2 was found.
                unsafe {
                    avx2(f);
                }
            }
            _ => f(),
        }
    }

    /// Finds the codes at `positions` where the sum over all columns is at most `limit`. Writes
    /// their offsets, ascending, to the front of `survivors`, and returns their number.
    ///
    /// There are at most [`BLOCK`] positions. `limit` is less than 255, where sums may saturate.
    ///
    /// # Panics
    /// If a plane ends before the last position, there are more than [`BLOCK`], or the limit is
    /// 255.
    pub(crate) fn survivors(
        self,
        columns: &[Column],
        positions: Range<usize>,
        limit: u8,
        survivors: &mut Survivors,
    ) -> usize {
        assert!(
            limit < 255
                && positions.len() <= BLOCK
                && columns.iter().all(|column| positions.end <= column.plane.len())
        );
        match self.0 {
            Kind::Scalar => scalar::survivors(columns, positions, limit, survivors),
            #[cfg(target_arch = "x86_64")]
            #[expect(unsafe_code, reason = "the call is safe only where the CPU has the instructions")]
            // SAFETY: this kind is made only where AVX2 was found.
            Kind::Avx2 => unsafe { avx2::survivors(columns, positions, limit, survivors) },
            #[cfg(target_arch = "x86_64")]
            #[expect(unsafe_code, reason = "the call is safe only where the CPU has the instructions")]
            // SAFETY: this kind is made only where these parts of AVX-512 were found.
            Kind::Avx512Vbmi => unsafe { avx512::survivors(columns, positions, limit, survivors) },
            #[cfg(target_arch = "aarch64")]
            #[expect(unsafe_code, reason = "the call is safe only where the CPU has the instructions")]
            // SAFETY: this kind is made only where NEON was found.
            Kind::Neon => unsafe { neon::survivors(columns, positions, limit, survivors) },
        }
    }
}

impl Display for Kernel {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self.0 {
            Kind::Scalar => "scalar",
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512Vbmi => "avx512vbmi",
            #[cfg(target_arch = "aarch64")]
            Kind::Neon => "neon",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn naive(columns: &[Column], positions: Range<usize>, limit: u8) -> Vec<u16> {
        let sum = |position: usize| {
            columns
                .iter()
                .map(|column| u32::from(column.table[usize::from(column.plane[position])]))
                .sum::<u32>()
        };
        let start = positions.start;
        positions.filter(|&at| sum(at) <= limit.into()).map(|at| (at - start) as u16).collect()
    }

    #[test]
    fn every_kernel_finds_what_the_definition_finds() {
        let mut state = 1u64;
        let mut byte = move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        };
        for n_columns in 0..40 {
            let planes: Vec<Vec<u8>> = (0..n_columns).map(|_| (0..1500).map(|_| byte()).collect()).collect();
            // More columns have smaller entries, so that sums are near the limit, and some
            // saturate.
            let tables: Vec<[u8; 256]> = (0..n_columns)
                .map(|level| std::array::from_fn(|_| if byte() < 4 { 255 } else { byte() / (1 + level) }))
                .collect();
            let columns: Vec<Column> =
                planes.iter().zip(&tables).map(|(plane, table)| Column { plane, table }).collect();
            for positions in [0..0, 3..4, 0..31, 7..40, 5..69, 100..1124, 477..1500, 1499..1500, 1437..1500] {
                for limit in [0, 60, 130, 250, 254] {
                    let expected = naive(&columns, positions.clone(), limit);
                    for kernel in Kernel::available() {
                        let mut survivors = [0; BLOCK];
                        let n = kernel.survivors(&columns, positions.clone(), limit, &mut survivors);
                        assert_eq!(
                            survivors[..n],
                            expected,
                            "{kernel}, {n_columns} columns, {positions:?}, {limit}"
                        );
                    }
                }
            }
        }
    }
}
