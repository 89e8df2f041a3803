//! Estimates of the score of the k-th best item, which is the threshold at the end of a search.

use crate::filter::Filter;
use crate::kernel::BLOCK;
use crate::prune::{Pass, Query};
use crate::topk::Candidates;

/// An estimate from the sample needs about this many sampled codes above it; with fewer it is
/// chance.
const MIN_SAMPLED: f64 = 10.0;

/// The maximum share of the positions that is sampled: scoring more of them takes as long as a
/// search.
const MAX_SAMPLED: f64 = 0.02;

/// The cost of an item above the threshold that is not among the best, relative to that of scoring
/// a sampled code by inner product.
const SURPLUS_COST: f64 = 10.0;

/// An estimate from cells scores this many times k codes,
const CELL_CODES_PER_HIT: f64 = 6.0;

/// and at least this many.
const MIN_CELL_CODES: f64 = 256.0;

/// With fewer positions than this, an estimate costs more than it saves.
const MIN_POSITIONS: usize = 4096;

impl Query<'_> {
    /// Returns a score that the best `k` items and a few more probably reach; by bounds, a lower
    /// bound that they do.
    pub(crate) fn estimate(&self, k: usize) -> f32 {
        let scorer = self.lower.unwrap_or(self.scorer);
        Query { scorer, lower: None, margin: 0.0, ..*self }.estimate_by_scores(k)
    }

    fn estimate_by_scores(&self, k: usize) -> f32 {
        let layout = &self.view.layout;
        let n_matches = self.filter.map_or(layout.n_items, Filter::len);
        let n_positions = layout.n_positions();
        if k >= n_matches || n_positions < MIN_POSITIONS {
            return f32::NEG_INFINITY;
        }
        let share = k as f64 / n_matches as f64;
        let n_sampled = layout.n_sampled() as f64;
        let n_needed = MIN_SAMPLED / share;
        if n_needed <= n_sampled.min(MAX_SAMPLED * n_positions as f64) {
            // With n sampled codes the surplus is about 3k/√(share·n) items. This n minimizes the
            // sum of both costs.
            // Norms of sampled codes lie far apart.
            let surplus = if self.scorer.norms.is_some() { SURPLUS_COST / 8.0 } else { SURPLUS_COST };
            let n = (1.5 * surplus * k as f64 / share.sqrt()).powf(2.0 / 3.0).max(n_needed);
            self.estimate_from_sample(share, (n_sampled / n) as usize)
        } else {
            let n_in_cells = (share * n_positions as f64 * CELL_CODES_PER_HIT).max(MIN_CELL_CODES);
            self.estimate_from_cells(k, n_in_cells as usize)
        }
    }

    /// Returns a score that a `share` of every `step`-th sampled code reaches, with a margin for
    /// chance.
    fn estimate_from_sample(&self, share: f64, step: usize) -> f32 {
        let Self { view, scorer, .. } = *self;
        let step = step.max(1);
        let n = view.layout.n_sampled().div_ceil(step);
        let expected = share * n as f64;
        let rank = expected + 3.0 * expected.sqrt() + 2.0;
        let mut candidates = Candidates::new(rank as usize, f32::NEG_INFINITY, 0.0);
        let (mut scores, mut wanted) = ([0.0; BLOCK], [0; BLOCK]);
        let (planes, stride) = view.sample();
        for start in (0..n).step_by(BLOCK) {
            let scores = &mut scores[..BLOCK.min(n - start)];
            let planes: Vec<&[u8]> =
                planes[..scorer.n_levels()].iter().map(|plane| &plane[start * step * stride..]).collect();
            let norm = |i: usize| {
                let code = |level: usize| planes[level][i * step * stride];
                let position = view.layout.sample((start + i) * step);
                scorer.norms.map_or(0.0, |norms| norms.squared(scorer.n_levels(), code, position))
            };
            scorer.strided(&planes, step * stride, norm, scores);
            let n_wanted = candidates.wanted(scores, &mut wanted);
            for &i in &wanted[..n_wanted] {
                let i = usize::from(i);
                candidates.offer(scores[i], start + i..start + i + 1);
            }
        }
        candidates.cut();
        candidates.threshold
    }

    /// Returns the score of the `k`-th best item in the best cells, which hold at least `n_wanted`
    /// positions.
    fn estimate_from_cells(&self, k: usize, n_wanted: usize) -> f32 {
        let scorer = self.scorer.shortened(2);
        // The filter does not matter for which cells are the best.
        let by_cell = Query { scorer: &scorer, filter: None, ..*self };
        let mut cells = Pass::new(&by_cell, Candidates::new(n_wanted, f32::NEG_INFINITY, 0.0));
        cells.is_direct = true;
        cells.visit_rows();
        let mut pass = Pass::new(self, Candidates::new(k, f32::NEG_INFINITY, 0.0));
        for (_, mut positions) in cells.candidates.found() {
            // A run of equal scores may continue in the next row.
            while !positions.is_empty() {
                let (first, row) = self.view.row_of(positions.start);
                let end = positions.end.min(row.end);
                pass.score(first, positions.start..end);
                positions.start = end;
            }
        }
        pass.candidates.cut();
        pass.candidates.threshold
    }
}
