//! Lloyd's algorithm for many points, in fewer rounds.
//!
//! A codeword moves further than to the mean of its members, in the direction in which it would go
//! on to move. Only the last move is to the mean. The two halves of the points are assigned by
//! turns, and codewords move after each.

use rayon::prelude::*;

use super::{CHUNK, Points, add_rows, assign, members_of, revive};
use crate::Error;

/// How far a codeword moves, as a multiple of its distance from the mean of its members. From 2 on
/// the error need not fall.
const STRIDE: f32 = 1.9;

/// The parts of the points that are assigned by turns: every `PARTS`-th chunk. Four lower the error
/// no further.
const PARTS: usize = 2;

/// Returns the codewords after the work of `n_rounds` rounds of Lloyd's algorithm.
pub(super) fn lloyd(
    points: &Points<'_>,
    mut codewords: Vec<f32>,
    n_rounds: usize,
) -> Result<Vec<f32>, Error> {
    let dim = points.dim;
    let n_codewords = codewords.len() / dim;
    let mut members: Vec<Members> = (0..n_codewords).map(|_| Members::new(dim)).collect();
    let mut owns = vec![None; points.values.len() / dim];
    let n_steps = n_rounds.div_ceil(2).saturating_mul(PARTS);
    let mut n_unchanged = 0;
    for step in 1..=n_steps {
        let part = step % PARTS;
        n_unchanged += 1;
        for (i, nearest) in assign(points, &codewords, part, PARTS)?.into_iter().enumerate() {
            let first = (part + i * PARTS) * CHUNK;
            for (point, codeword) in (first..).zip(nearest) {
                let own = owns[point].replace(codeword);
                if own != Some(codeword) {
                    n_unchanged = 0;
                    members[codeword].joined.push(point);
                    own.into_iter().for_each(|own: usize| members[own].left.push(point));
                }
            }
        }
        let is_last = step == n_steps || n_unchanged == PARTS;
        let stride = if is_last { 1.0 } else { STRIDE };
        codewords
            .par_chunks_exact_mut(dim)
            .zip(&mut members)
            .for_each(|(codeword, members)| members.update(points.values, codeword, stride));
        if is_last {
            break;
        }
        if step >= PARTS && members.iter().any(|members| members.n == 0) {
            let assigned: Vec<usize> = owns.iter().copied().flatten().collect();
            revive(points, &members_of(&assigned, n_codewords), &assigned, &mut codewords);
        }
    }
    Ok(codewords)
}

/// The members of a codeword.
struct Members {
    /// Their sum, f64 [dim].
    sum: Vec<f64>,
    n: usize,
    /// Changes that the sum does not contain yet, in ascending order.
    joined: Vec<usize>,
    left: Vec<usize>,
}

impl Members {
    fn new(dim: usize) -> Self {
        Self { sum: vec![0.0; dim], n: 0, joined: Vec::new(), left: Vec::new() }
    }

    /// Applies the changes and moves the codeword by `stride` times its distance from the mean. A
    /// codeword without members stays.
    fn update(&mut self, points: &[f32], codeword: &mut [f32], stride: f32) {
        self.n = self.n + self.joined.len() - self.left.len();
        add_rows(&mut self.sum, points, &self.joined);
        for &member in &self.left {
            let row = &points[member * codeword.len()..][..codeword.len()];
            self.sum.iter_mut().zip(row).for_each(|(sum, &x)| *sum -= f64::from(x));
        }
        self.joined.clear();
        self.left.clear();
        if self.n > 0 {
            for (c, sum) in codeword.iter_mut().zip(&self.sum) {
                let mean = (sum / self.n as f64) as f32;
                *c = if stride == 1.0 { mean } else { *c + stride * (mean - *c) };
            }
        }
    }
}
