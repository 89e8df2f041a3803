//! The pruned search. Upper bounds of the scores of rows, cells and single codes decide what is
//! skipped.
//!
//! A search visits rows by descending bound. It skips a row, a cell or a code only if its bound is
//! below the threshold: the minimum score asked for, or the score of the k-th
//! best item so far. Little is skipped before the threshold is high, so a search at three levels or
//! more starts with an estimate of it (`estimate`). If the estimate was too high, fewer than k
//! items are found, and the search runs again without an estimate.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::Error;
use crate::bound::Bound;
use crate::filter::{Filter, ListedItem};
use crate::kernel::{BLOCK, Column, Kernel, Survivors};
use crate::score::Scorer;
use crate::topk::{Candidates, order_key};
use crate::view::View;

/// One query at one length.
#[derive(Clone, Copy)]
pub(crate) struct Query<'a> {
    pub(crate) view: &'a View<'a>,
    /// Gives exact scores, or upper bounds.
    pub(crate) scorer: &'a Scorer<'a>,
    /// Gives lower bounds, unless scores are exact.
    pub(crate) lower: Option<&'a Scorer<'a>>,
    /// The margin of candidates, 0 if scores are exact.
    pub(crate) margin: f32,
    pub(crate) kernel: Kernel,
    pub(crate) filter: Option<&'a Filter>,
    pub(crate) interrupt: Option<&'a AtomicBool>,
}

/// Items that pass a filter are scored one by one if they are at most this many, whatever k is.
const MAX_SCORED_ONE_BY_ONE: usize = 8192;

/// At two levels, the codes of a row with fewer than this are scored one by one.
const MIN_ROW: usize = 128;

/// Items that pass a filter are not listed if they are more than this.
const MAX_LISTED: usize = 1 << 16;

impl<'a> Query<'a> {
    /// Returns the items that pass the filter if it is faster to score each of them than to search.
    pub(crate) fn listed(&self, k: usize) -> Option<&[ListedItem]> {
        let few = |n| n <= MAX_LISTED && (n <= MAX_SCORED_ONE_BY_ONE || n / 16 <= k);
        self.filter.filter(|filter| few(filter.len())).map(|filter| filter.listed(self.view))
    }

    /// Returns the best `k` items whose score is at least `min_score`, and the items that tie with
    /// the last of them; by bounds, all items that may be among them. If these are crowded, some
    /// may be missing.
    pub(crate) fn best(&self, k: usize, min_score: f32) -> Result<Candidates, Error> {
        self.best_from(k, min_score, || self.estimate(k))
    }

    /// Returns the same as [`best`](Self::best) in less time if `min_score` is about that of the
    /// `k`-th best item, so that no estimate of it is needed.
    pub(crate) fn best_above(&self, k: usize, min_score: f32) -> Result<Candidates, Error> {
        self.best_from(k, min_score, || f32::NEG_INFINITY)
    }

    fn best_from(&self, k: usize, min_score: f32, estimate: impl Fn() -> f32) -> Result<Candidates, Error> {
        if self.is_interrupted() {
            return Err(Error::Interrupted);
        }
        if let Some(listed) = self.listed(k) {
            let mut candidates = self.candidates(k, min_score);
            for &ListedItem { first, position, item } in listed {
                let score = |scorer: &Scorer| self.score(scorer, first, position);
                match self.lower {
                    None => candidates.offer(score(self.scorer), item..item + 1),
                    Some(lower) => {
                        candidates.offer_bounds([score(lower), score(self.scorer)], item..item + 1);
                    }
                }
            }
            return Ok(candidates);
        }
        if self.scorer.n_levels() == 1 {
            return self.rows_by_score(k, min_score);
        }
        let estimate = if self.scorer.n_levels() == 2 { f32::NEG_INFINITY } else { estimate() };
        let threshold = min_score.max(estimate);
        let candidates = self.all_rows(k, threshold)?;
        if threshold == min_score || candidates.is_crowded() || candidates.reaches(threshold) {
            return Ok(candidates);
        }
        self.all_rows(k, min_score)
    }

    /// Returns the same as [`best`](Self::best), at one level.
    fn rows_by_score(&self, k: usize, min_score: f32) -> Result<Candidates, Error> {
        let mut pass = Pass::new(self, self.candidates(k, min_score));
        let mut last_score = f32::INFINITY;
        for first in self.rows() {
            let score = self.scorer.code(|_| first, 0);
            if pass.is_interrupted() || pass.candidates.is_full() && score < last_score {
                break;
            }
            pass.offer(score, self.view.row(first));
            last_score = score;
        }
        pass.finish()
    }

    /// Returns the same as [`best`](Self::best), from one visit of all rows with `threshold` as the
    /// minimum score.
    pub(crate) fn all_rows(&self, k: usize, threshold: f32) -> Result<Candidates, Error> {
        let mut pass = Pass::new(self, self.candidates(k, threshold));
        pass.visit_rows();
        pass.finish()
    }

    /// Starts to collect the best `k` items.
    pub(crate) fn candidates(&self, k: usize, min_score: f32) -> Candidates {
        match self.lower {
            None => Candidates::new(k, min_score, self.margin),
            Some(_) => Candidates::bounded(k, min_score, self.margin),
        }
    }

    fn score(&self, scorer: &Scorer, first: u8, position: usize) -> f32 {
        scorer.code(|level| self.view.code(first, position, level), position)
    }

    pub(crate) fn is_interrupted(&self) -> bool {
        self.interrupt.is_some_and(|interrupt| interrupt.load(Ordering::Relaxed))
    }

    /// Prepares bounds of the scores.
    pub(crate) fn bound(&self) -> Bound<'_> {
        Bound::new(self.kernel, self.scorer, &self.view.planes)
    }

    /// Returns the first bytes by descending score of the first level.
    pub(crate) fn rows(&self) -> [u8; 256] {
        let scorer = self.scorer.shortened(1);
        let mut keys: [u64; 256] =
            std::array::from_fn(|row| u64::from(order_key(scorer.code(|_| row as u8, 0))) << 8 | row as u64);
        keys.sort_unstable();
        keys.map(|key| key as u8)
    }
}

/// A visit of all rows that collects candidates.
pub(crate) struct Pass<'a> {
    pub(crate) query: &'a Query<'a>,
    pub(crate) candidates: Candidates,
    /// The number of items that were not offered yet.
    n_left: usize,
    /// Positions are offered as they are, because all items pass and positions are items, or
    /// because the caller wants positions.
    pub(crate) is_direct: bool,
    /// The search was interrupted, so candidates are missing.
    interrupted: bool,
    scores: [f32; BLOCK],
    survivors: Survivors,
    /// The second bytes of codes in the row that is searched.
    seconds: Survivors,
}

impl<'a> Pass<'a> {
    pub(crate) fn new(query: &'a Query<'a>, candidates: Candidates) -> Self {
        Self {
            query,
            candidates,
            n_left: query.view.layout.n_items,
            is_direct: query.view.starts.is_none() && query.filter.is_none(),
            interrupted: false,
            scores: [0.0; BLOCK],
            survivors: [0; BLOCK],
            seconds: [0; BLOCK],
        }
    }

    /// Returns the candidates of a pass that was not interrupted.
    pub(crate) fn finish(self) -> Result<Candidates, Error> {
        if self.interrupted { Err(Error::Interrupted) } else { Ok(self.candidates) }
    }

    /// Returns true if the search was interrupted now or before.
    fn is_interrupted(&mut self) -> bool {
        self.interrupted = self.interrupted || self.query.is_interrupted();
        self.interrupted
    }

    /// Visits rows by about descending bound.
    pub(crate) fn visit_rows(&mut self) {
        let mut bound = self.query.bound();
        for (first, slack) in bound.rows() {
            if slack < self.candidates.threshold {
                continue;
            }
            if self.candidates.is_crowded() {
                break;
            }
            self.visit_row(first, &mut bound);
        }
    }

    /// Offers the codes that begin with `first` and may be among the best.
    pub(crate) fn visit_row(&mut self, first: u8, bound: &mut Bound) {
        let row = self.query.view.row(first);
        if self.is_interrupted() || row.is_empty() {
            return;
        }
        let slack = bound.enter(first, self.candidates.threshold);
        if slack >= 0.0 {
            self.search_row(first, row, bound, slack);
        }
    }

    fn search_row(&mut self, first: u8, row: Range<usize>, bound: &mut Bound, slack: f64) {
        let Query { view, scorer, kernel, .. } = *self.query;
        let limit = bound.limit(slack);
        if scorer.n_levels() == 2 {
            if row.len() < MIN_ROW {
                return self.score(first, row);
            }
            let n = limit.map(|limit| bound.qualifying(limit, 256, &mut self.seconds));
            let mut last = row.start;
            for i in 0..n.unwrap_or(256) {
                let second = n.map_or(i as u8, |_| self.seconds[i] as u8);
                let cell = view.cell(first, second, last);
                last = cell.end;
                if !cell.is_empty() {
                    self.offer(scorer.code(|level| if level == 0 { first } else { second }, 0), cell);
                }
            }
            return;
        }
        let Some(limit) = limit else { return self.score(first, row) };
        let columns = bound.columns();
        // In units of the time that it takes to find a cell.
        let by_byte = row.len() as f32 * kernel.cost();
        let of_cell = 1.0 + by_byte / 256.0 * (columns.len() - 1) as f32;
        let max_cells = (by_byte * columns.len() as f32 / of_cell) as usize;
        let n_cells = bound.qualifying(limit, max_cells, &mut self.seconds);
        if n_cells > max_cells {
            return self.filter(first, row, &columns, limit);
        }
        let mut last = row.start;
        for i in 0..n_cells {
            let second = self.seconds[i] as u8;
            let cell = view.cell(first, second, last);
            last = cell.end;
            if !cell.is_empty() {
                self.filter(first, cell, &columns[1..], limit - columns[0].table[usize::from(second)]);
            }
        }
    }

    /// Scores the codes at `positions` that pass the filter.
    fn filter(&mut self, first: u8, positions: Range<usize>, columns: &[Column], limit: u8) {
        let Query { view, scorer, kernel, filter, .. } = *self.query;
        for start in positions.clone().step_by(BLOCK) {
            if self.is_interrupted() {
                return;
            }
            let block = start..positions.end.min(start + BLOCK);
            let n_found = kernel.survivors(columns, block.clone(), limit, &mut self.survivors);
            if n_found > block.len() / 4 {
                self.score(first, block);
                continue;
            }
            let mut survivors = &mut self.survivors[..n_found];
            // Where positions are items, a look at the filter costs less than a score.
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
                self.offer_code(self.scores[i], first, start + usize::from(self.survivors[i]));
            }
        }
    }

    /// Scores all codes at `positions`.
    pub(crate) fn score(&mut self, first: u8, positions: Range<usize>) {
        let Query { view, scorer, .. } = *self.query;
        for start in positions.clone().step_by(BLOCK) {
            if self.is_interrupted() {
                return;
            }
            let block = start..positions.end.min(start + BLOCK);
            let scores = &mut self.scores[..block.len()];
            scorer.block(first, &view.planes, block.clone(), scores);
            let n_wanted = self.candidates.wanted(scores, &mut self.survivors);
            for i in 0..n_wanted {
                let i = usize::from(self.survivors[i]);
                self.offer_code(self.scores[i], first, start + i);
            }
        }
    }

    #[inline]
    fn offer_code(&mut self, score: f32, first: u8, position: usize) {
        match self.query.lower {
            None => self.offer(score, position..position + 1),
            Some(lower) if self.candidates.wants(score) => {
                let bounds = [self.query.score(lower, first, position), score];
                self.offer_items(position..position + 1, |found, items| found.offer_bounds(bounds, items));
            }
            Some(_) => {}
        }
    }

    #[inline]
    fn offer(&mut self, score: f32, positions: Range<usize>) {
        if self.is_direct {
            self.candidates.offer(score, positions);
        } else if self.candidates.wants(score) {
            self.offer_items(positions, |found, items| found.offer(score, items));
        }
    }

    fn offer_items(&mut self, positions: Range<usize>, offer: impl Fn(&mut Candidates, Range<usize>)) {
        if self.is_direct {
            return offer(&mut self.candidates, positions);
        }
        let items = self.query.view.items(positions, &mut self.n_left);
        match self.query.filter {
            None => offer(&mut self.candidates, items),
            Some(filter) => filter.runs(items).for_each(|run| offer(&mut self.candidates, run)),
        }
    }
}
