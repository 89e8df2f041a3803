//! The properties that codes must have (docs/architecture.md, invariants), against references of a
//! few lines.

#![allow(clippy::unwrap_used, reason = "a test that fails may panic")]

mod beam;
mod encode;
mod file;
mod kmeans;
mod product;

use dpq_codebook::{Assignment, Codebooks};

/// Returns pseudo-random numbers that are the same on every machine.
fn numbers(n: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..n).map(|_| next() + next() + next()).collect()
}

fn codebooks(n_levels: usize, n_codewords: usize, dim: usize, assignment: Assignment) -> Codebooks {
    let mut values = numbers(n_levels * n_codewords * dim, 7);
    let size = n_codewords * dim;
    values.iter_mut().enumerate().for_each(|(i, value)| *value *= 0.5f32.powi((i / size) as i32));
    Codebooks::new(values, n_levels, n_codewords, dim, assignment).unwrap()
}

fn threads<T: Send>(n: usize, work: impl FnOnce() -> T + Send) -> T {
    rayon::ThreadPoolBuilder::new().num_threads(n).build().unwrap().install(work)
}
