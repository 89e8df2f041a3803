//! Collects the best items and sorts them into the total order: score descending (−0.0 equals 0.0),
//! then id ascending.
//!
//! Items are kept as *runs*: ranges in file order that share one score. Short codes have few scores
//! with many items each, and then a few runs stand for many items. Ids are read only at the end.

use std::cell::Cell;
use std::ops::Range;

use crate::layout::ID_BLOCK;
use crate::order::Sorter;
use crate::view::View;

/// An item that a search found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hit {
    /// The id that the item was built with: its row number, if none was given.
    pub id: u64,
    /// The score at the length searched; larger is nearer. [`Metric`](crate::Metric) defines it.
    pub score: f32,
}

/// Items `start..start + len` in file order that share a score.
#[derive(Clone, Copy, Default)]
struct Run {
    start: u64,
    len: u32,
    score: f32,
}

impl Run {
    fn end(&self) -> u64 {
        self.start + u64::from(self.len)
    }

    fn items(&self) -> Range<usize> {
        self.start as usize..self.end() as usize
    }
}

/// Returns a key that ascends where scores descend; −0.0 and 0.0 share a key.
pub(crate) fn order_key(score: f32) -> u32 {
    let bits = (score + 0.0).to_bits();
    // The bits of negative floats ascend as the floats descend. So do the inverted bits of the
    // other floats, which come first.
    if bits >> 31 == 1 { bits } else { !bits & (u32::MAX >> 1) }
}

/// Collects the best `k` items, and those whose score is lower than that of the last of them by at
/// most a margin: 0, where only ties are wanted.
///
/// Where scores are upper bounds, `k` is the maximum, and the k-th best of the lower bounds says
/// which of them are kept.
pub(crate) struct Candidates {
    k: usize,
    margin: f32,
    /// The items of the best lower bounds.
    lower: Option<Box<Self>>,
    /// The minimum score of the best items, as far as is known.
    pub(crate) threshold: f32,
    n_items: usize,
    /// The number of runs at which runs below the best `k` items are dropped.
    limit: usize,
    memory: Memory,
}

/// Memory that the searches of a thread use one after the other. To allocate it each time costs
/// more than a short search.
#[derive(Default)]
struct Memory {
    runs: Vec<Run>,
    run_sorter: Sorter<Run>,
    ids: Vec<u64>,
    id_sorter: Sorter<u64>,
}

thread_local! {
    static MEMORY: Cell<Memory> = Cell::default();
}

/// Memory for more runs or ids than this is not kept for the next search.
const MAX_KEPT: usize = 1 << 16;

impl Drop for Candidates {
    fn drop(&mut self) {
        if self.memory.runs.capacity() <= MAX_KEPT && self.memory.ids.capacity() <= MAX_KEPT {
            MEMORY.set(std::mem::take(&mut self.memory));
        }
    }
}

/// Entries for more codes than this take as long as a whole lookup table.
const MAX_WITHIN_MARGIN: usize = 4096;

/// Runs are first dropped when there are this many.
const MIN_LIMIT: usize = 64;

impl Candidates {
    /// Starts to collect the best `k` items whose score is at least `min_score` less the margin.
    pub(crate) fn new(k: usize, min_score: f32, margin: f32) -> Self {
        let mut memory = MEMORY.take();
        memory.runs.clear();
        let threshold = lower(min_score, margin);
        Self { k, margin, lower: None, threshold, n_items: 0, limit: MIN_LIMIT, memory }
    }

    /// Starts to collect items that may be among the best `k` whose score is at least `min_score`.
    /// Scores are within bounds or less than half of the margin outside.
    pub(crate) fn bounded(k: usize, min_score: f32, margin: f32) -> Self {
        let mut found = Self::new(usize::MAX, min_score, margin);
        found.lower = Some(Box::new(Self::new(k, min_score, margin)));
        found
    }

    /// Returns true if an item of this score may be among the best, and false for NaN.
    #[inline]
    pub(crate) fn wants(&self, score: f32) -> bool {
        score >= self.threshold
    }

    /// Writes the offsets of scores that may be among the best to the front of `offsets`, and
    /// returns their number.
    pub(crate) fn wanted(&self, scores: &[f32], offsets: &mut [u16]) -> usize {
        // To count them is fast, and mostly there are none.
        if scores.iter().filter(|&&score| self.wants(score)).count() == 0 {
            return 0;
        }
        let mut n = 0;
        for (i, &score) in scores.iter().enumerate() {
            offsets[n] = i as u16;
            n += usize::from(self.wants(score));
        }
        n
    }

    /// Returns true if bounds keep so many items that it is faster to search without them.
    pub(crate) fn is_crowded(&self) -> bool {
        self.lower.is_some() && self.memory.runs.len() > MAX_WITHIN_MARGIN
    }

    /// Returns true if at least `k` items were found.
    pub(crate) fn is_full(&self) -> bool {
        self.n_items >= self.k
    }

    /// Returns true if at least `k` items of a score of at least `score` were found.
    pub(crate) fn reaches(&self, score: f32) -> bool {
        if let Some(lower) = &self.lower {
            return lower.reaches(score);
        }
        let reaching = self.memory.runs.iter().filter(|run| run.score >= score);
        reaching.map(|run| run.len as usize).sum::<usize>() >= self.k
    }

    /// Yields the items found and their scores, in any order.
    pub(crate) fn found(&self) -> impl Iterator<Item = (f32, Range<usize>)> {
        self.memory.runs.iter().map(|run| (run.score, run.items()))
    }

    /// Adds items whose score is within `bounds`, for [`bounded`](Self::bounded) candidates.
    pub(crate) fn offer_bounds(&mut self, bounds: [f32; 2], items: Range<usize>) {
        let [lower, upper] = bounds;
        if let Some(of_lower) = &mut self.lower {
            of_lower.offer(lower, items.clone());
            self.threshold = of_lower.threshold;
        }
        self.offer(upper, items);
    }

    /// Adds items that share a score. Ranges come in any order, and each item at most once.
    #[inline(always)]
    pub(crate) fn offer(&mut self, score: f32, mut items: Range<usize>) {
        if !self.wants(score) || items.is_empty() {
            return;
        }
        self.n_items += items.len();
        if let Some(last) = self.memory.runs.last_mut()
            && last.end() == items.start as u64
            && last.score.to_bits() == score.to_bits()
            && let Ok(len) = u32::try_from(last.len as usize + items.len())
        {
            last.len = len;
            return;
        }
        while items.len() > u32::MAX as usize {
            self.memory.runs.push(Run { start: items.start as u64, len: u32::MAX, score });
            items.start += u32::MAX as usize;
        }
        self.memory.runs.push(Run { start: items.start as u64, len: items.len() as u32, score });
        if self.memory.runs.len() >= self.limit {
            self.cut();
        }
    }

    /// Raises the threshold to the score of the `k`-th best item, less the margin, and drops the
    /// runs below it.
    #[cold]
    pub(crate) fn cut(&mut self) {
        if let Some(lower) = &mut self.lower {
            lower.cut();
            self.threshold = lower.threshold;
        } else if self.is_full() {
            let kth_score = kth_score(&mut self.memory.runs, self.k);
            self.threshold = self.threshold.max(lower(kth_score, self.margin));
        }
        let threshold = self.threshold;
        self.memory.runs.retain(|run| run.score >= threshold);
        self.n_items = self.memory.runs.iter().map(|run| run.len as usize).sum();
        self.limit = MIN_LIMIT.max(2 * self.memory.runs.len());
    }

    /// Returns the best `k` items in order.
    pub(crate) fn into_hits(mut self, view: &View) -> Vec<Hit> {
        let Memory { runs, run_sorter, ids, id_sorter } = &mut self.memory;
        sort_runs(runs, run_sorter);
        let k = self.k.min(self.n_items);
        let mut hits = Vec::with_capacity(k);
        for group in runs.chunk_by(|a, b| a.score == b.score) {
            let wanted = k - hits.len();
            if wanted == 0 {
                break;
            }
            if let [Run { len: 1, start, score }] = *group {
                hits.push(Hit { id: view.ids.get(start as usize), score });
                continue;
            }
            if group.iter().any(|run| run.score.to_bits() != group[0].score.to_bits()) {
                // Both −0.0 and 0.0: each id keeps its own. This is rare enough for a plain sort.
                let item =
                    |run: Run| run.items().map(move |item| Hit { id: view.ids.get(item), score: run.score });
                let mut zeros: Vec<Hit> = group.iter().copied().flat_map(item).collect();
                zeros.sort_unstable_by_key(|hit| hit.id);
                hits.extend_from_slice(&zeros[..wanted.min(zeros.len())]);
                continue;
            }
            smallest_ids(view, group, wanted, ids);
            id_sorter.sort(ids, |&id| id, |&id| id);
            hits.extend(ids.iter().take(wanted).map(|&id| Hit { id, score: group[0].score }));
        }
        hits
    }
}

/// Returns at most `score` − `margin`, or `score` if the margin is 0.
fn lower(score: f32, margin: f32) -> f32 {
    if margin == 0.0 { score } else { (score - margin).next_down() }
}

/// Returns the score of the `k`-th best item of runs with at least `k` items, and reorders them.
fn kth_score(runs: &mut [Run], mut k: usize) -> f32 {
    let (mut start, mut end) = (0, runs.len());
    // The k-th best item lies in `runs[start..end]`, where it is the k-th best.
    while end - start > 1 {
        let middle = (end - start) / 2;
        let (better, _, _) = runs[start..end].select_nth_unstable_by_key(middle, |run| order_key(run.score));
        let n_better: usize = better.iter().map(|run| run.len as usize).sum();
        if n_better >= k {
            end = start + middle;
        } else {
            k -= n_better;
            start += middle;
        }
    }
    runs[start].score
}

/// Sorts runs by descending score.
fn sort_runs(runs: &mut [Run], sorter: &mut Sorter<Run>) {
    let key = |run: &Run| u64::from(order_key(run.score));
    let (min, max) = runs
        .iter()
        .fold((f32::INFINITY, f32::NEG_INFINITY), |(min, max), run| (min.min(run.score), max.max(run.score)));
    // Scores are spread more evenly than their keys, which grow like logarithms.
    let (max, scale) = (f64::from(max), f64::from(u32::MAX) / (f64::from(max) - f64::from(min)));
    if scale.is_normal() {
        sorter.sort(runs, key, |run| ((max - f64::from(run.score)) * scale) as u64);
    } else {
        sorter.sort(runs, key, key);
    }
}

/// Writes the `wanted` smallest ids of `group` to `ids` in any order, perhaps with some more; all
/// ids if there are fewer.
fn smallest_ids(view: &View, group: &[Run], wanted: usize, ids: &mut Vec<u64>) {
    let n_items: usize = group.iter().map(|run| run.len as usize).sum();
    if n_items <= 2 * wanted {
        ids.clear();
        return group.iter().for_each(|run| view.ids.each_at_most(u64::MAX, run.items(), |id| ids.push(id)));
    }
    let mut max_id = estimated_max_id(view, group, n_items, wanted, ids);
    loop {
        ids.clear();
        for items in group.iter().flat_map(|run| blocks(run.items())) {
            if view.id_min.get(items.start / ID_BLOCK) <= max_id {
                view.ids.each_at_most(max_id, items, |id| ids.push(id));
            }
        }
        if ids.len() >= wanted || max_id == u64::MAX {
            return;
        }
        max_id = u64::MAX;
    }
}

/// Returns an id that the ids of `wanted` items of `group` probably do not exceed, and not many
/// more.
fn estimated_max_id(view: &View, group: &[Run], n_items: usize, wanted: usize, ids: &mut Vec<u64>) -> u64 {
    const SAMPLED: usize = 512;
    // `wanted` whole blocks hold `wanted` ids up to the maximum of their minima.
    let inside = |items: &Range<usize>| items.len() == ID_BLOCK;
    let min_id = |items: Range<usize>| view.id_min.get(items.start / ID_BLOCK);
    ids.clear();
    ids.extend(group.iter().flat_map(|run| blocks(run.items()).filter(inside).map(min_id)));
    if ids.len() >= wanted {
        return *ids.select_nth_unstable(wanted - 1).1;
    }
    ids.clear();
    let step = n_items.div_ceil(SAMPLED);
    ids.extend(group.iter().flat_map(Run::items).step_by(step).map(|item| view.ids.get(item)));
    let expected = wanted as f64 / step as f64;
    let rank = (expected + 3.0 * expected.sqrt() + 1.0) as usize;
    if rank < ids.len() { *ids.select_nth_unstable(rank).1 } else { u64::MAX }
}

/// Splits items where blocks of `id_min` end.
fn blocks(mut items: Range<usize>) -> impl Iterator<Item = Range<usize>> {
    std::iter::from_fn(move || {
        let start = items.start;
        items.start = items.end.min((start / ID_BLOCK + 1) * ID_BLOCK);
        Some(start..items.start).filter(|block| !block.is_empty())
    })
}
