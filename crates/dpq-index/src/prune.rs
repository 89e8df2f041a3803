//! The pruned search: reads only codes that may be among the best, by bounds of rows, of cells and of single codes.
//!
//! Rows are visited by descending base. A row, a cell of it or a code is left out only if its bound is below the threshold:
//! the least score asked for, or the score of the k-th best item found so far. Since much is left out only once the
//! threshold is high, a search at three levels or more begins with an estimate of it. An estimate that was too high shows
//! in too few items found; then everything is searched again without one.

use std::ops::Range;

use crate::block::rows;
use crate::bound::Bound;
use crate::file::View;
use crate::filter::{Filter, Place};
use crate::kernel::{BLOCK, Column, Kernel};
use crate::score::Scorer;
use crate::topk::{Candidates, order_key};

/// One query at one length.
#[derive(Clone, Copy)]
pub(crate) struct Query<'a> {
    pub(crate) view: &'a View<'a>,
    pub(crate) scorer: &'a Scorer<'a>,
    pub(crate) kernel: Kernel,
    pub(crate) filter: Option<&'a Filter>,
}

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

/// Listed items up to this many are scored rather than searched for.
const FEW_ALLOWED: usize = 8192;

/// Rows of all queries are visited by turns where planes are longer than this, in bytes, so that caches do not hold them, and
/// more than this share of them is read.
const LONG: usize = 1 << 21;
const MUCH: f64 = 0.1;

impl<'a> Query<'a> {
    /// Returns what [`best`](Self::best) returns for each of some queries of one index and length; each row is read once for
    /// all of them. `None` where that is not the faster way, which the first query tells for all.
    pub(crate) fn best_of_all(queries: &'a [Query<'a>], k: usize, min_score: f32) -> Option<Vec<Candidates>> {
        let (first, levels) = (queries.first()?, queries.first()?.scorer.n_levels());
        let is_long = first.view.layout.n_positions() * (levels - 1) > LONG;
        if queries.len() == 1 || levels < 3 || !is_long || first.listed(k).is_some() {
            return None;
        }
        let threshold = |query: &Query| min_score.max(query.estimate(k, &query.rows()));
        if first.share_read(threshold(first)) < MUCH {
            return None;
        }
        let visit = |query: &'a Query<'a>| {
            let threshold = threshold(query);
            (threshold, query.bound(), Pass::new(query, Candidates::new(k, threshold)))
        };
        let mut visits: Vec<_> = queries.iter().map(visit).collect();
        for row in 0..=255 {
            for (_, bound, pass) in &mut visits {
                pass.visit_row(row, bound);
            }
        }
        let complete = |(threshold, _, pass): (f32, _, Pass)| {
            let is_complete = pass.candidates.is_full() || threshold == min_score;
            if is_complete { pass.candidates } else { pass.query.best(k, min_score) }
        };
        Some(visits.into_iter().map(complete).collect())
    }

    /// Returns about the share of the codes that must be read to find those that reach `threshold`.
    fn share_read(&self, threshold: f32) -> f64 {
        let mut bound = self.bound();
        let mut n_read = 0.0;
        for (first, row) in self.view.rows() {
            bound.enter(first);
            let slack = bound.slack(threshold);
            if slack >= 0.0 {
                let cells = bound
                    .limit(slack)
                    .map_or(256, |limit| bound.qualifying(limit).iter().map(|&byte| u32::from(byte)).sum());
                n_read += row.len() as f64 * f64::from(cells) / 256.0;
            }
        }
        n_read / self.view.layout.n_positions() as f64
    }

    /// Returns the items that pass the filter, if scoring each of them is faster than a search.
    fn listed(&self, k: usize) -> Option<&[Place]> {
        let few = |filter: &&Filter| filter.len() <= FEW_ALLOWED || filter.len() / 16 <= k;
        self.filter.filter(few)?.few()
    }

    /// Returns the best `k` items whose score is at least `min_score`, and those that tie with the last of them.
    pub(crate) fn best(&self, k: usize, min_score: f32) -> Candidates {
        if let Some(places) = self.listed(k) {
            let mut candidates = Candidates::new(k, min_score);
            for place in places {
                let score = self.scorer.code(|level| self.view.code(place.first, place.position, level));
                candidates.offer(score, place.item..place.item + 1);
            }
            return candidates;
        }
        let rows = self.rows();
        if self.scorer.n_levels() == 1 {
            let mut pass = Pass::new(self, Candidates::new(k, min_score));
            let mut least = f32::INFINITY;
            for first in rows {
                let score = self.scorer.code(|_| first);
                if pass.candidates.is_full() && score < least {
                    break;
                }
                pass.offer(score, self.view.row(first));
                least = score;
            }
            return pass.candidates;
        }
        let estimate = if self.scorer.n_levels() == 2 { f32::NEG_INFINITY } else { self.estimate(k, &rows) };
        let mut threshold = min_score.max(estimate);
        loop {
            let mut pass = Pass::new(self, Candidates::new(k, threshold));
            pass.visit_rows(&rows);
            if pass.candidates.is_full() || threshold == min_score {
                return pass.candidates;
            }
            threshold = min_score;
        }
    }

    /// Prepares bounds of the scores.
    fn bound(&self) -> Bound<'_> {
        let cross = self.scorer.n_levels().checked_sub(3).and_then(|n| self.view.cross.get(n)).copied();
        Bound::new(self.scorer, &self.view.planes, cross)
    }

    /// Returns the first bytes by descending score of the first level: about the order of the best that each row has.
    fn rows(&self) -> [u8; 256] {
        let scorer = self.scorer.shortened(1);
        let mut keys: [u64; 256] =
            std::array::from_fn(|row| u64::from(order_key(scorer.code(|_| row as u8))) << 8 | row as u64);
        keys.sort_unstable();
        keys.map(|key| key as u8)
    }

    /// Returns a score that about the best `k` items reach, or a little more.
    fn estimate(&self, k: usize, rows: &[u8; 256]) -> f32 {
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

/// A visit of all rows, which collects candidates.
struct Pass<'a> {
    query: &'a Query<'a>,
    candidates: Candidates,
    /// Items that were not offered yet.
    n_left: usize,
    /// Positions are offered as they are: because they are items and all pass, or because positions are asked for.
    is_direct: bool,
    scores: [f32; BLOCK],
    survivors: [u16; BLOCK],
}

impl<'a> Pass<'a> {
    fn new(query: &'a Query<'a>, candidates: Candidates) -> Self {
        Self {
            query,
            candidates,
            n_left: query.view.layout.n_items,
            is_direct: query.view.starts.is_none() && query.filter.is_none(),
            scores: [0.0; BLOCK],
            survivors: [0; BLOCK],
        }
    }

    /// Visits rows in the order of [`Query::rows`].
    fn visit_rows(&mut self, rows: &[u8; 256]) {
        let mut bound = self.query.bound();
        for &first in rows {
            // Without norms, bounds descend with the first level's score.
            if !self.visit_row(first, &mut bound) && self.query.scorer.norms().is_none() {
                break;
            }
        }
    }

    /// Offers the codes that begin with `first` and may be among the best; tells whether there may be any.
    fn visit_row(&mut self, first: u8, bound: &mut Bound) -> bool {
        let row = self.query.view.row(first);
        if row.is_empty() {
            return true;
        }
        bound.enter(first);
        let slack = bound.slack(self.candidates.threshold());
        if slack >= 0.0 {
            self.search_row(first, row, bound, slack);
        }
        // NaN is the bound of a byte that is no codeword, which a damaged file may have.
        slack >= 0.0 || slack.is_nan()
    }

    fn search_row(&mut self, first: u8, row: Range<usize>, bound: &mut Bound, slack: f64) {
        let Query { view, scorer, kernel, .. } = *self.query;
        let limit = bound.limit(slack);
        if scorer.n_levels() == 2 {
            if row.len() < 256 {
                return self.score(first, row);
            }
            let qualifies = limit.map_or([1; 256], |limit| bound.qualifying(limit));
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
        let (columns, qualifies) = (bound.columns(), bound.qualifying(limit));
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
            let mut survivors = &mut self.survivors[..n_found];
            // Where positions are items, looking at the filter costs less than a score.
            if let Some(filter) = filter.filter(|_| view.starts.is_none()) {
                let mut n_passing = 0;
                for i in 0..n_found {
                    survivors[n_passing] = survivors[i];
                    n_passing += usize::from(filter.has(start + usize::from(survivors[i])));
                }
                survivors = &mut survivors[..n_passing];
            }
            let scores = &mut self.scores[..survivors.len()];
            scorer.some(first, &view.planes, block, survivors, scores);
            for i in 0..scores.len() {
                let position = start + usize::from(self.survivors[i]);
                self.offer(self.scores[i], position..position + 1);
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
            let n_wanted = self.candidates.wanted(scores, &mut self.survivors);
            for i in 0..n_wanted {
                let i = usize::from(self.survivors[i]);
                self.offer(self.scores[i], start + i..start + i + 1);
            }
        }
    }

    #[inline]
    fn offer(&mut self, score: f32, positions: Range<usize>) {
        if self.is_direct {
            self.candidates.offer(score, positions);
        } else if self.candidates.wants(score) {
            self.offer_items(score, positions);
        }
    }

    fn offer_items(&mut self, score: f32, positions: Range<usize>) {
        let items = self.query.view.items(positions, &mut self.n_left);
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
