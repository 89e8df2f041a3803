//! The pruned search: reads only codes that may be among the best, by bounds of rows, of cells and of single codes.
//!
//! Rows are visited by descending base. A row, a cell of it or a code is left out only if its bound is below the threshold:
//! the least score asked for, or the score of the k-th best item found so far. Since much is left out only once the
//! threshold is high, a search at three levels or more begins with an estimate of it. An estimate that was too high shows
//! in too few items found; then everything is searched again without one.

use std::ops::Range;

use crate::bound::Bound;
use crate::file::View;
use crate::filter::Filter;
use crate::kernel::{BLOCK, Column, Kernel};
use crate::score::Scorer;
use crate::topk::Candidates;

/// One query at one length.
#[derive(Clone, Copy)]
pub(crate) struct Query<'a> {
    pub(crate) view: &'a View<'a>,
    pub(crate) scorer: &'a Scorer<'a>,
    pub(crate) kernel: Kernel,
    pub(crate) filter: Option<&'a Filter>,
}

/// An estimate takes a threshold above which about so many sampled codes lie.
const SAMPLED: f64 = 16.0;

/// What scoring a sampled code costs, relative to one of a block.
const SCATTERED: f64 = 4.0;

/// With fewer positions than this an estimate costs more than it saves.
const FEW_POSITIONS: usize = 4096;

/// Listed items up to this many are scored rather than searched for.
const FEW_ALLOWED: usize = 8192;

impl Query<'_> {
    /// Returns the best `k` items whose score is at least `min_score`, and those that tie with the last of them.
    pub(crate) fn best(&self, k: usize, min_score: f32) -> Candidates {
        if let Some(filter) = self.filter
            && (filter.len() <= FEW_ALLOWED || filter.len() / 16 <= k)
            && let Some(places) = filter.few()
        {
            let mut candidates = Candidates::new(k, min_score);
            for place in places {
                let score = self.scorer.code(|level| self.view.code(place.first, place.position, level));
                candidates.offer(score, place.item..place.item + 1);
            }
            return candidates;
        }
        if self.scorer.n_levels() == 1 {
            let mut pass = Pass::new(self, Candidates::new(k, min_score));
            self.view.rows().for_each(|(first, row)| pass.offer(self.scorer.code(|_| first), row));
            return pass.candidates;
        }
        let estimate = if self.scorer.n_levels() == 2 { f32::NEG_INFINITY } else { self.estimate(k) };
        let mut threshold = min_score.max(estimate);
        loop {
            let mut pass = Pass::new(self, Candidates::new(k, threshold));
            pass.visit_rows();
            if pass.candidates.is_full() || threshold == min_score {
                return pass.candidates;
            }
            threshold = min_score;
        }
    }

    /// Returns a score that about the best `k` items reach, or a little more.
    fn estimate(&self, k: usize) -> f32 {
        let layout = &self.view.layout;
        let n_matches = self.filter.map_or(layout.n_items, Filter::len);
        let n_positions = layout.n_positions();
        if k >= n_matches || n_positions < FEW_POSITIONS {
            return f32::NEG_INFINITY;
        }
        let share = k as f64 / n_matches as f64;
        let n_sampled = (self.view.sample.len() / layout.n_levels) as f64;
        let n_in_cells = (share * n_positions as f64 * SAMPLED).max(FEW_POSITIONS as f64);
        // With fewer than a quarter of `SAMPLED` above it, an estimate from the sample is chance.
        let sample_tells = share * n_sampled >= SAMPLED / 4.0;
        if sample_tells && n_sampled.min(SAMPLED / share) * SCATTERED < n_in_cells {
            self.estimate_from_sample(share)
        } else {
            self.estimate_from_cells(k, n_in_cells as usize)
        }
    }

    /// Returns a score that a `share` of the sampled codes reaches, and some more for chance.
    fn estimate_from_sample(&self, share: f64) -> f32 {
        let n_levels = self.view.layout.n_levels;
        let n_sampled = self.view.sample.len() / n_levels;
        let step = ((share * n_sampled as f64 / SAMPLED) as usize).max(1);
        let expected = share * n_sampled.div_ceil(step) as f64;
        let rank = expected + 3.0 * expected.sqrt() + 2.0;
        let mut candidates = Candidates::new(rank as usize, f32::NEG_INFINITY);
        for (i, code) in self.view.sample.chunks_exact(n_levels).step_by(step).enumerate() {
            candidates.offer(self.scorer.code(|level| code[level]), i..i + 1);
        }
        candidates.cut();
        candidates.threshold()
    }

    /// Returns the score of the `k`-th best item in the best cells, which hold `n_wanted` positions or more.
    fn estimate_from_cells(&self, k: usize, n_wanted: usize) -> f32 {
        let scorer = self.scorer.shortened(2);
        // No matter which items pass: a cell is good or not.
        let by_cell = Query { scorer: &scorer, filter: None, ..*self };
        let mut cells = Pass::new(&by_cell, Candidates::new(n_wanted, f32::NEG_INFINITY));
        cells.in_positions = true;
        cells.visit_rows();
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

/// A visit of all rows, which collects candidates.
struct Pass<'a, I> {
    query: &'a Query<'a>,
    candidates: Candidates,
    items: I,
    /// Candidates are positions instead of items.
    in_positions: bool,
    scores: [f32; BLOCK],
    survivors: [u16; BLOCK],
}

impl<'a> Pass<'a, ()> {
    fn new(
        query: &'a Query<'a>,
        candidates: Candidates,
    ) -> Pass<'a, impl FnMut(Range<usize>) -> Range<usize> + 'a> {
        Pass {
            query,
            candidates,
            items: query.view.items(),
            in_positions: false,
            scores: [0.0; BLOCK],
            survivors: [0; BLOCK],
        }
    }
}

impl<I: FnMut(Range<usize>) -> Range<usize>> Pass<'_, I> {
    fn visit_rows(&mut self) {
        let Query { view, scorer, .. } = *self.query;
        let cross = scorer.n_levels().checked_sub(3).and_then(|n| view.cross.get(n)).copied();
        let mut bound = Bound::new(scorer, cross.map(|(_, quantizer)| quantizer));
        let mut planes = view.planes[..scorer.n_levels() - 1].to_vec();
        planes.extend(cross.map(|(plane, _)| plane));
        for first in bound.rows() {
            let row = view.row(first);
            if row.is_empty() {
                continue;
            }
            bound.enter(first);
            let slack = bound.slack(self.candidates.threshold());
            if slack >= 0.0 {
                self.visit_row(first, row, &mut bound, &planes, slack);
            }
        }
    }

    fn visit_row(&mut self, first: u8, row: Range<usize>, bound: &mut Bound, planes: &[&[u8]], slack: f64) {
        let Query { view, scorer, kernel, .. } = *self.query;
        let limit = bound.limit(slack);
        if scorer.n_levels() == 2 {
            if row.len() < 256 {
                return self.score(first, row);
            }
            let qualifies =
                limit.map_or([1; 256], |limit| bound.bytes()[0].map(|byte| u8::from(byte <= limit)));
            let mut last = row.start;
            return each_set(&qualifies, |second| {
                let cell = view.cell(first, second, last);
                last = cell.end;
                if !cell.is_empty() {
                    self.offer(scorer.code(|level| if level == 0 { first } else { second }), cell);
                }
            });
        }
        let Some(limit) = limit else { return self.score(first, row) };
        let columns: Vec<Column> =
            planes.iter().zip(bound.bytes()).map(|(plane, table)| Column { plane, table }).collect();
        let qualifies = columns[0].table.map(|byte| u8::from(byte <= limit));
        let n_cells = qualifies.iter().map(|&byte| u32::from(byte)).sum::<u32>() as f32;
        // In units of the time that finding a cell takes.
        let by_byte = row.len() as f32 * kernel.cost();
        let by_cell = n_cells * (1.0 + by_byte / 256.0 * (columns.len() - 1) as f32);
        if by_byte * columns.len() as f32 <= by_cell {
            return self.filter(first, row, &columns, limit);
        }
        let mut last = row.start;
        each_set(&qualifies, |second| {
            let cell = view.cell(first, second, last);
            last = cell.end;
            if !cell.is_empty() {
                self.filter(first, cell, &columns[1..], limit - columns[0].table[usize::from(second)]);
            }
        });
    }

    /// Scores the codes at `positions` that pass the filter.
    fn filter(&mut self, first: u8, positions: Range<usize>, columns: &[Column], limit: u8) {
        let Query { view, scorer, kernel, filter } = *self.query;
        for start in positions.clone().step_by(BLOCK) {
            let block = start..positions.end.min(start + BLOCK);
            let n_found = kernel.survivors(columns, block.clone(), limit, &mut self.survivors);
            if n_found > block.len() / 4 {
                self.score(first, block);
                continue;
            }
            for i in 0..n_found {
                let position = start + usize::from(self.survivors[i]);
                // Where positions are items, looking at the filter costs less than a score.
                if filter.is_none_or(|filter| view.starts.is_some() || filter.has(position)) {
                    let score = scorer.code(|level| view.code(first, position, level));
                    self.offer(score, position..position + 1);
                }
            }
        }
    }

    /// Scores all codes at `positions`.
    fn score(&mut self, first: u8, positions: Range<usize>) {
        let Query { view, scorer, .. } = *self.query;
        for start in positions.clone().step_by(BLOCK) {
            let block = start..positions.end.min(start + BLOCK);
            let scores = &mut self.scores[..block.len()];
            scorer.block(first, &view.planes, block.clone(), scores);
            // Counting all is faster than stopping at the first, and mostly there is none.
            if scores.iter().filter(|&&score| self.candidates.wants(score)).count() > 0 {
                for (i, position) in block.enumerate() {
                    self.offer(self.scores[i], position..position + 1);
                }
            }
        }
    }

    #[inline]
    fn offer(&mut self, score: f32, positions: Range<usize>) {
        if !self.candidates.wants(score) {
            return;
        }
        if self.in_positions {
            return self.candidates.offer(score, positions);
        }
        let items = (self.items)(positions);
        match self.query.filter {
            None => self.candidates.offer(score, items),
            Some(filter) => filter.runs(items).for_each(|run| self.candidates.offer(score, run)),
        }
    }
}

/// Calls `f` with the index of every byte that is 1; the others are 0.
fn each_set(bytes: &[u8; 256], mut f: impl FnMut(u8)) {
    for (i, eight) in bytes.as_chunks::<8>().0.iter().enumerate() {
        let mut word = u64::from_le_bytes(*eight);
        while word != 0 {
            f((i * 8) as u8 + (word.trailing_zeros() / 8) as u8);
            word &= word - 1;
        }
    }
}
