//! Lloyd's algorithm for many points, in fewer rounds.
//!
//! A codeword moves further than to the mean of its members, in the direction in which it would go
//! on to move. Only the last move is to the mean.

use rayon::prelude::*;

use super::{Points, add_rows, assign, members_of, revive};
use crate::Error;

/// How far a codeword moves, as a multiple of its distance from the mean of its members. From 2 on
/// the error need not fall.
const STRIDE: f32 = 1.9;

/// Returns the codewords after the work of `n_rounds` rounds of Lloyd's algorithm.
pub(super) fn lloyd(
    points: &Points<'_>,
    mut codewords: Vec<f32>,
    n_rounds: usize,
) -> Result<Vec<f32>, Error> {
    let dim = points.dim;
    let (n, n_codewords) = (points.values.len() / dim, codewords.len() / dim);
    let n_rounds = n_rounds.saturating_mul(2).div_ceil(5);
    // Members are summed once. A point that changes its codeword is subtracted and added.
    let mut members: Vec<Members> = (0..n_codewords).map(|_| Members::new(dim)).collect();
    let mut previous = vec![None; n];
    for round in 1..=n_rounds {
        let assigned = assign(points, &codewords)?;
        let mut changes = 0;
        for (i, (own, &codeword)) in previous.iter_mut().zip(&assigned).enumerate() {
            if *own != Some(codeword) {
                changes += 1;
                members[codeword].joined.push(i);
                if let Some(own) = own.replace(codeword) {
                    members[own].left.push(i);
                }
            }
        }
        let is_last = round == n_rounds || changes == 0;
        let stride = if is_last { 1.0 } else { STRIDE };
        codewords
            .par_chunks_exact_mut(dim)
            .zip(&mut members)
            .for_each(|(codeword, members)| members.update(points.values, codeword, stride));
        if is_last {
            break;
        }
        if members.iter().any(|members| members.n == 0) {
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
