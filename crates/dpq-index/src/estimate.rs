//! Estimates of the threshold that a search ends with: the score of the k-th best item.

use crate::block::rows;
use crate::filter::Filter;
use crate::kernel::BLOCK;
use crate::prune::{Pass, Query};
use crate::topk::Candidates;

/// An estimate from the sample needs about so many sampled codes above it, else it is chance.
const SAMPLED: f64 = 10.0;

/// What an item above the threshold that is not among the best costs, relative to scoring a sampled code without norms.
const SURPLUS: f64 = 10.0;

/// An estimate from cells looks at so many times more codes than are asked for.
const IN_CELLS: f64 = 6.0;

/// And at no fewer.
const LEAST_IN_CELLS: f64 = 256.0;

/// With fewer positions than this an estimate costs more than it saves.
const FEW_POSITIONS: usize = 4096;

impl Query<'_> {
    /// Returns a score that about the best `k` items reach, or a little more.
    pub(crate) fn estimate(&self, k: usize, rows: &[u8; 256]) -> f32 {
        let layout = &self.view.layout;
        let n_matches = self.filter.map_or(layout.n_items, Filter::len);
        let n_positions = layout.n_positions();
        if k >= n_matches || n_positions < FEW_POSITIONS {
            return f32::NEG_INFINITY;
        }
        let share = k as f64 / n_matches as f64;
        let n_sampled = (self.view.sample.len() / layout.n_levels) as f64;
        if share * n_sampled >= SAMPLED {
            // The surplus is about 3k/√(share·n) with n of the sampled codes, and this n makes the sum of costs least.
            let surplus = if self.scorer.norms().is_some() { SURPLUS / 8.0 } else { SURPLUS };
            let n = (1.5 * surplus * k as f64 / share.sqrt()).powf(2.0 / 3.0).max(SAMPLED / share);
            self.estimate_from_sample(share, (n_sampled / n) as usize)
        } else {
            let n_in_cells = (share * n_positions as f64 * IN_CELLS).max(LEAST_IN_CELLS);
            self.estimate_from_cells(k, n_in_cells as usize, rows)
        }
    }

    /// Returns a score that a `share` of every `step`-th sampled code reaches, and some more for chance.
    fn estimate_from_sample(&self, share: f64, step: usize) -> f32 {
        let n_levels = self.view.layout.n_levels;
        let step = step.max(1);
        let n = (self.view.sample.len() / n_levels).div_ceil(step);
        let expected = share * n as f64;
        let rank = expected + 3.0 * expected.sqrt() + 2.0;
        let mut candidates = Candidates::new(rank as usize, f32::NEG_INFINITY);
        let (mut scores, mut wanted) = ([0.0; BLOCK], [0; BLOCK]);
        for start in (0..n).step_by(BLOCK) {
            let scores = &mut scores[..BLOCK.min(n - start)];
            let planes = rows(&self.view.sample[start * step * n_levels..], self.scorer.n_levels());
            self.scorer.strided(&planes, step * n_levels, scores);
            let n_wanted = candidates.wanted(scores, &mut wanted);
            for &i in &wanted[..n_wanted] {
                let i = usize::from(i);
                candidates.offer(scores[i], start + i..start + i + 1);
            }
        }
        candidates.cut();
        candidates.threshold()
    }

    /// Returns the score of the `k`-th best item in the best cells, which hold `n_wanted` positions or more.
    fn estimate_from_cells(&self, k: usize, n_wanted: usize, rows: &[u8; 256]) -> f32 {
        let scorer = self.scorer.shortened(2);
        // No matter which items pass: a cell is good or not.
        let by_cell = Query { scorer: &scorer, filter: None, ..*self };
        let mut cells = Pass::new(&by_cell, Candidates::new(n_wanted, f32::NEG_INFINITY));
        cells.is_direct = true;
        cells.visit_rows(rows);
        let mut pass = Pass::new(self, Candidates::new(k, f32::NEG_INFINITY));
        for (_, mut positions) in cells.candidates.found() {
            // A run of equal scores may go on in the next row.
            while !positions.is_empty() {
                let (first, row) = self.view.row_of(positions.start);
                let end = positions.end.min(row.end);
                pass.score(first, positions.start..end);
                positions.start = end;
            }
        }
        pass.candidates.cut();
        pass.candidates.threshold()
    }
}
