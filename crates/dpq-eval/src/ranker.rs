//! Rankings from scores in any order, without sorting the irrelevant items.
//!
//! Metrics need the ranks of the relevant items, so only *their* scores are sorted. Every other
//! item is counted between two of them. To find these two, the range of scores is cut into equal
//! steps, a few per relevant item. Nearly all steps contain no relevant item: for items in such a
//! step, the step alone tells the two neighbours.

use std::ops::Range;

use crate::ranking::{Group, QueryRank};
use crate::{Error, Ranking};

/// Steps per run with relevant items. With more, more steps are empty; with fewer, they stay in the
/// cache.
const STEPS_PER_RUN: usize = 4;

/// Ranks a gallery for queries to which the same items are relevant.
///
/// Items come in *runs*. All items of a run have the same score for every query, as items with the
/// same code do. The work per query is proportional to the number of runs. Without such knowledge,
/// make each item a run.
///
/// ```
/// use dpq_eval::{MapRule, Ranker};
///
/// // Two runs, of items 3 and 7 and of item 5.
/// let ranker = Ranker::new(&[0, 2, 3], &[3, 7, 5], &[false, true, true])?;
/// let ranking = ranker.rank(&[0.9, 0.2], None)?;
/// let map = MapRule::dpq().average_precision(&ranking).unwrap();
/// assert!((map - ((1.0 + 1.0 / 2.0) / 2.0 + 2.0 / 3.0) / 2.0).abs() < 1e-12);
/// # Ok::<(), dpq_eval::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Ranker<'a> {
    starts: &'a [u32],
    ids: &'a [u64],
    relevant: &'a [bool],
    /// The relevant items, ascending.
    hits: Vec<u32>,
    /// The runs that contain any of them, ascending.
    runs: Vec<Run>,
    /// Whether each run is among `runs`.
    has_hits: Vec<bool>,
}

/// A run with relevant items, `hits[first_hit..end_hit]`.
#[derive(Debug, Clone, Copy)]
struct Run {
    run: u32,
    first_hit: u32,
    end_hit: u32,
}

impl<'a> Ranker<'a> {
    /// Takes a gallery of N items in U runs.
    ///
    /// Shapes: `starts` `[U + 1]`, the first item of each run, then N; `ids` `[N]`, distinct,
    /// ascending within a run; `relevant` `[N]`.
    ///
    /// # Errors
    /// [`Error::Runs`] if `starts` does not ascend strictly from 0 to N; [`Error::Length`] if
    /// `relevant` has another length than `ids`.
    pub fn new(starts: &'a [u32], ids: &'a [u64], relevant: &'a [bool]) -> Result<Self, Error> {
        let n_items = ids.len();
        if relevant.len() != n_items {
            return Err(Error::Length { what: "relevant", found: relevant.len(), expected: n_items });
        }
        let Some(n_runs) = starts.len().checked_sub(1) else {
            return Err(Error::Length { what: "starts", found: 0, expected: 1 });
        };
        let is_wrong = |run: usize| match run {
            0 => starts[0] != 0 || n_runs == 0 && n_items != 0,
            run => starts[run] <= starts[run - 1] || run == n_runs && starts[run] as usize != n_items,
        };
        if let Some(run) = (0..=n_runs).find(|&run| is_wrong(run)) {
            return Err(Error::Runs { run, start: starts[run], n_items });
        }
        let hits: Vec<u32> = (0..).zip(relevant).filter(|item| *item.1).map(|item| item.0).collect();
        let (mut runs, mut has_hits, mut first_hit) = (Vec::new(), vec![false; n_runs], 0);
        for (run, &end) in starts[1..].iter().enumerate() {
            let end_hit = first_hit + hits[first_hit..].iter().take_while(|&&item| item < end).count();
            if end_hit > first_hit {
                has_hits[run] = true;
                runs.push(Run { run: run as u32, first_hit: first_hit as u32, end_hit: end_hit as u32 });
            }
            first_hit = end_hit;
        }
        Ok(Self { starts, ids, relevant, hits, runs, has_hits })
    }

    /// Ranks all items by descending score, items with the same score by ascending id; `query_id`
    /// is that of [`Ranking::new`].
    ///
    /// Shapes: `scores` `[U]`, one per run.
    ///
    /// # Errors
    /// [`Error::NanScore`]; [`Error::Length`] unless there is one score per run.
    pub fn rank(&self, scores: &[f32], query_id: Option<u64>) -> Result<Ranking, Error> {
        if scores.len() != self.has_hits.len() {
            return Err(Error::Length { what: "scores", found: scores.len(), expected: self.has_hits.len() });
        }
        // Counting all NaNs is vectorised, finding the first is not.
        if scores.iter().filter(|score| score.is_nan()).count() > 0 {
            let run = scores.iter().position(|score| score.is_nan()).expect("one was counted");
            let at = self.starts[run] as usize;
            return Err(Error::NanScore { at, id: self.ids[at] });
        }
        let sorted = Sorted::new(&self.runs, scores);
        let (counts, tied) = self.count(&sorted, scores);

        let mut groups = Vec::with_capacity(sorted.entries.len());
        let mut relevant_ranks = Vec::with_capacity(self.hits.len());
        let (mut n_before, mut at, mut tied) = (0, 0, tied.as_slice());
        for runs in sorted.entries.chunk_by(|a, b| a.score == b.score) {
            let Count { before, within } = counts[at];
            let (others, rest) = tied.split_at(tied.partition_point(|&(group, _)| group as usize == at));
            tied = rest;
            at += runs.len();
            n_before += before;
            let relevant_before = relevant_ranks.len() as u32;
            self.push_ranks(runs, others, n_before, &mut relevant_ranks);
            let relevant = relevant_ranks.len() as u32 - relevant_before;
            groups.push(Group { n_before, size: within, relevant_before, relevant });
            n_before += within;
        }
        let query = query_id.and_then(|id| self.query_rank(scores, id));
        Ok(Ranking {
            n_items: self.ids.len() as u32,
            n_relevant: self.hits.len(),
            relevant_ranks,
            groups,
            query,
        })
    }

    /// Counts items by the first entry of `sorted` that they precede or share a score with. Lists
    /// the runs without a relevant item that share one, by entry.
    fn count(&self, sorted: &Sorted, scores: &[f32]) -> (Vec<Count>, Vec<(u32, u32)>) {
        let mut counts = vec![Count::default(); sorted.entries.len() + 1];
        // Most runs are in a step without an entry, where no score is compared.
        let (mut open, mut n_open) = (vec![0; scores.len()], 0);
        for ((run, bounds), &step) in (0..).zip(self.starts.windows(2)).zip(&sorted.steps) {
            let [first, end] = sorted.bounds(step);
            let is_open = first != end;
            counts[first].before += if is_open { 0 } else { bounds[1] - bounds[0] };
            open[n_open] = run;
            n_open += usize::from(is_open);
        }
        let mut tied = Vec::new();
        for &run in &open[..n_open] {
            let score = scores[run as usize];
            let [first, end] = sorted.bounds(sorted.steps[run as usize]);
            let at = first + sorted.entries[first..end].partition_point(|entry| entry.score > score);
            let size = self.starts[run as usize + 1] - self.starts[run as usize];
            if at < end && sorted.entries[at].score == score {
                counts[at].within += size;
                if !self.has_hits[run as usize] {
                    tied.push((at as u32, run));
                }
            } else {
                counts[at].before += size;
            }
        }
        tied.sort_unstable();
        (counts, tied)
    }

    /// Appends the ranks of the relevant items of `runs`, which share a score with each other and
    /// with the runs in `others`; `n_before` items precede them.
    fn push_ranks(&self, runs: &[Entry], others: &[(u32, u32)], n_before: u32, ranks: &mut Vec<u32>) {
        if let ([entry], []) = (runs, others) {
            let Run { run, first_hit, end_hit } = self.runs[entry.at as usize];
            let start = self.starts[run as usize];
            let hits = &self.hits[first_hit as usize..end_hit as usize];
            return ranks.extend(hits.iter().map(|item| item - start + n_before));
        }
        let others = others.iter().map(|&(_, run)| run);
        let runs = runs.iter().map(|entry| self.runs[entry.at as usize].run).chain(others);
        let mut items: Vec<(u64, bool)> = runs
            .flat_map(|run| self.items(run as usize))
            .map(|item| (self.ids[item], self.relevant[item]))
            .collect();
        items.sort_unstable();
        ranks.extend((n_before..).zip(items).filter(|(_, (_, relevant))| *relevant).map(|(rank, _)| rank));
    }

    fn items(&self, run: usize) -> Range<usize> {
        self.starts[run] as usize..self.starts[run + 1] as usize
    }

    /// The rank of the item `id`, if there is such an item.
    fn query_rank(&self, scores: &[f32], id: u64) -> Option<QueryRank> {
        let item = self.ids.iter().position(|&other| other == id)?;
        let score = scores[self.starts.partition_point(|&start| start as usize <= item) - 1];
        let before = |run: usize| match scores[run] {
            other if other > score => self.items(run).len(),
            other if other == score => self.ids[self.items(run)].partition_point(|&other| other < id),
            _ => 0,
        };
        let rank = (0..scores.len()).map(before).sum::<usize>() as u32;
        Some(QueryRank { rank, relevant: self.relevant[item] })
    }
}

/// The number of items between two entries, and of items with the second entry's score.
#[derive(Clone, Copy, Default)]
struct Count {
    before: u32,
    within: u32,
}

/// Runs in the order of their scores, and an index to find a score among them.
struct Sorted {
    entries: Vec<Entry>,
    /// The step of every score.
    steps: Vec<u32>,
    /// The first entry at or after each step, then the number of entries.
    firsts: Vec<u32>,
}

/// A run, by its position among the runs to sort.
#[derive(Clone, Copy)]
struct Entry {
    score: f32,
    at: u32,
}

impl Sorted {
    fn new(runs: &[Run], scores: &[f32]) -> Self {
        let score = |run: &Run| scores[run.run as usize];
        let (min, max) = runs
            .iter()
            .map(score)
            .fold((f32::INFINITY, f32::NEG_INFINITY), |(min, max), score| (min.min(score), max.max(score)));
        let n_steps = (STEPS_PER_RUN * runs.len()).clamp(1, Steps::MAX);
        let cut = Steps::new(min, max, n_steps);
        let steps: Vec<u32> = scores.iter().map(|&score| cut.step(score)).collect();
        let step = |run: &Run| steps[run.run as usize] as usize;

        // Entries of a step are counted two places further on. Placing them moves the counts to
        // where `firsts` belong.
        let mut firsts = vec![0; n_steps + 2];
        runs.iter().for_each(|run| firsts[step(run) + 2] += 1);
        let mut end = 0;
        for slot in &mut firsts {
            end += *slot;
            *slot = end;
        }
        let mut entries = vec![Entry { score: 0.0, at: 0 }; runs.len()];
        for (at, run) in (0..).zip(runs) {
            let slot = &mut firsts[step(run) + 1];
            entries[*slot as usize] = Entry { score: score(run), at };
            *slot += 1;
        }
        let mut start = 0;
        while start < entries.len() {
            let end = firsts[step(&runs[entries[start].at as usize]) + 1] as usize;
            if end - start > 1 {
                entries[start..end].sort_unstable_by(|a, b| b.score.total_cmp(&a.score));
            }
            start = end;
        }
        Self { entries, steps, firsts }
    }

    /// The first entry of a step, and the first after it.
    #[inline]
    fn bounds(&self, step: u32) -> [usize; 2] {
        [self.firsts[step as usize] as usize, self.firsts[step as usize + 1] as usize]
    }
}

/// Cuts a range of scores into equal steps, from the greatest down.
#[derive(Clone, Copy)]
struct Steps {
    max: f32,
    scale: f32,
    last: f32,
}

impl Steps {
    const MAX: usize = 1 << 22;

    fn new(min: f32, max: f32, n: usize) -> Self {
        let last = (n - 1) as f32;
        let scale = last / (max - min);
        // A single score, or a difference beyond f32: all scores are in one step.
        let scale = if scale.is_finite() { scale } else { 0.0 };
        Self { max, scale, last }
    }

    /// The step of a score. It never falls as scores fall.
    #[inline]
    fn step(self, score: f32) -> u32 {
        let step = (self.max - score) * self.scale;
        let step = if step > self.last { self.last } else { step };
        // Infinite scores may make the step NaN.
        let step = if step > 0.0 { step } else { 0.0 };
        // Above 2²³ the spacing of f32 is 1, so adding 2²³ rounds and leaves the whole number in
        // the lowest bits.
        (step + (1u32 << 23) as f32).to_bits() & ((1 << 23) - 1)
    }
}
