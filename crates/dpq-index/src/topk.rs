//! Keeps the best items seen and puts them into the total order: score descending (−0.0 equals 0.0), then id ascending.
//!
//! What is kept are runs, ranges of items in file order that share one score, so that a short code, whose few scores each
//! belong to many items, costs a few runs and not many items. Ids are looked at only at the end.

use std::cmp::Reverse;
use std::ops::Range;

use crate::file::View;
use crate::layout::ID_BLOCK;
use crate::sort::scatter;

/// An item that a search found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hit {
    /// The id that the item was built with: its row number, if none was given.
    pub id: u64,
    /// The score at the length searched, larger is nearer; its unit is given by [`Metric`](crate::Metric).
    pub score: f32,
}

/// Items `start..start + len` in file order, all of one score.
#[derive(Clone, Copy)]
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

    fn key(&self) -> u32 {
        order_key(self.score)
    }
}

/// Orders by descending score when sorted by it; −0.0 and 0.0 share a key.
pub(crate) fn order_key(score: f32) -> u32 {
    let bits = (score + 0.0).to_bits();
    // The bits of negative floats grow as they sink, and so do the inverted bits of the others, which come first.
    if bits >> 31 == 1 { bits } else { !bits & (u32::MAX >> 1) }
}

/// Collects the best `k` items, and those that tie with the last of them.
pub(crate) struct Candidates {
    k: usize,
    threshold: f32,
    runs: Vec<Run>,
    n_items: usize,
    /// The number of runs at which those below the best `k` items are dropped.
    limit: usize,
}

/// Fewer runs than this are not worth looking through.
const FEW_RUNS: usize = 64;

impl Candidates {
    /// Starts to collect at most `k` items whose score is at least `min_score`.
    pub(crate) fn new(k: usize, min_score: f32) -> Self {
        Self { k, threshold: min_score, runs: Vec::new(), n_items: 0, limit: FEW_RUNS }
    }

    /// Returns the least score that an item must have to be among the best, as far as is known.
    #[inline]
    pub(crate) fn threshold(&self) -> f32 {
        self.threshold
    }

    /// Tells whether an item of this score may still be among the best; never for NaN.
    #[inline]
    pub(crate) fn wants(&self, score: f32) -> bool {
        score >= self.threshold
    }

    /// Tells whether `k` items were found.
    pub(crate) fn is_full(&self) -> bool {
        self.n_items >= self.k
    }

    /// Yields the items found and their scores, in no order.
    pub(crate) fn found(&self) -> impl Iterator<Item = (f32, Range<usize>)> {
        self.runs.iter().map(|run| (run.score, run.items()))
    }

    /// Takes items that share a score. Ranges come in any order, but no item comes twice.
    #[inline]
    pub(crate) fn offer(&mut self, score: f32, mut items: Range<usize>) {
        if !self.wants(score) || items.is_empty() {
            return;
        }
        self.n_items += items.len();
        if let Some(last) = self.runs.last_mut()
            && last.end() == items.start as u64
            && last.score.to_bits() == score.to_bits()
            && let Ok(len) = u32::try_from(last.len as usize + items.len())
        {
            last.len = len;
            return;
        }
        while !items.is_empty() {
            let len = items.len().min(u32::MAX as usize);
            self.runs.push(Run { start: items.start as u64, len: len as u32, score });
            items.start += len;
        }
        if self.runs.len() >= self.limit {
            self.cut();
        }
    }

    /// Raises the threshold to the score of the `k`-th best item and drops the runs below it.
    pub(crate) fn cut(&mut self) {
        if self.is_full() {
            self.threshold = kth_score(&mut self.runs, self.k);
            let threshold = self.threshold;
            self.runs.retain(|run| run.score >= threshold);
            self.n_items = self.runs.iter().map(|run| run.len as usize).sum();
        }
        self.limit = FEW_RUNS.max(2 * self.runs.len());
    }

    /// Returns the best `k` items in order.
    pub(crate) fn into_hits(self, view: &View) -> Vec<Hit> {
        let (runs, n_items) = (sorted(self.runs), self.n_items);
        let n_groups = groups(&runs).count();
        if self.k >= n_items
            && n_items / 8 >= n_groups.max(view.layout.n_items / 32)
            && let Some(hits) = by_counting(view, &runs, n_items)
        {
            return hits;
        }
        let k = self.k.min(n_items);
        let mut hits = Vec::with_capacity(k);
        for group in groups(&runs) {
            let wanted = k - hits.len();
            if wanted == 0 {
                break;
            }
            if group.iter().map(|run| run.len as usize).sum::<usize>() <= wanted {
                let start = hits.len();
                for run in group {
                    hits.extend(run.items().map(|item| Hit { id: view.ids.get(item), score: run.score }));
                }
                hits[start..].sort_unstable_by_key(|hit| hit.id);
            } else {
                least_ids(view, group, wanted, &mut hits);
            }
        }
        hits
    }
}

/// Returns the score of the `k`-th best item of runs that hold as many; reorders them.
fn kth_score(runs: &mut [Run], mut k: usize) -> f32 {
    let (mut start, mut end) = (0, runs.len());
    // The k-th best item lies in `runs[start..end]`, where it is the k-th best.
    while end - start > 1 {
        let middle = (end - start) / 2;
        let (better, _, _) = runs[start..end].select_nth_unstable_by_key(middle, Run::key);
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

/// Yields the sorted runs that share a score, whatever the sign of a zero.
fn groups(runs: &[Run]) -> impl Iterator<Item = &[Run]> {
    runs.chunk_by(|a, b| a.score == b.score)
}

/// Sorts runs by descending score.
fn sorted(mut runs: Vec<Run>) -> Vec<Run> {
    if runs.len() < 1024 {
        runs.sort_unstable_by_key(Run::key);
        return runs;
    }
    let mut scratch = runs.clone();
    for shift in [0, 11, 22] {
        let digit = |run: Run| (run.key() >> shift) as usize % 2048;
        let mut counts = [0; 2048];
        runs.iter().for_each(|&run| counts[digit(run)] += 1);
        scatter(&mut runs, &mut scratch, counts, digit);
    }
    runs
}

/// Returns the whole ranking where few scores share many items, so that sorting each group by id would take long.
///
/// Ids are visited in ascending order and put where their group goes on, which takes a table over ids: `None` if they are
/// not dense enough for that, or −0.0 and 0.0 are in one group.
fn by_counting(view: &View, runs: &[Run], n_items: usize) -> Option<Vec<Hit>> {
    const NONE: u32 = u32::MAX;
    let n_ids = view.ids.max()?.checked_add(1)?;
    if n_ids > 2 * view.layout.n_items as u64 || n_ids.max(n_items as u64) > u64::from(NONE) {
        return None;
    }
    let mut group_of_id = vec![NONE; n_ids as usize];
    let mut slots: Vec<u32> = Vec::new();
    let mut n_before = 0;
    for group in groups(runs) {
        if group.iter().any(|run| run.score.to_bits() != group[0].score.to_bits()) {
            return None;
        }
        for item in group.iter().flat_map(Run::items) {
            group_of_id[view.ids.get(item) as usize] = slots.len() as u32;
        }
        slots.push(n_before);
        n_before += group.iter().map(|run| run.len).sum::<u32>();
    }
    let mut ids = vec![NONE; n_items];
    for (id, &group) in (0..).zip(&group_of_id).filter(|&(_, &group)| group != NONE) {
        let slot = &mut slots[group as usize];
        ids[*slot as usize] = id;
        *slot += 1;
    }
    let mut hits = Vec::with_capacity(n_items);
    for (group, end) in groups(runs).zip(slots) {
        let ids = ids[hits.len()..end as usize].iter();
        hits.extend(ids.map(|&id| Hit { id: u64::from(id), score: group[0].score }));
    }
    Some(hits)
}

/// Appends the `wanted` items of least id among runs of equal score, by ascending id.
///
/// `id_min` says where they may lie: blocks are read by ascending least id until that exceeds the ids in hand, so a
/// long range costs little more than the blocks that give a hit.
fn least_ids(view: &View, group: &[Run], wanted: usize, hits: &mut Vec<Hit>) {
    let mut pieces: Vec<(u64, Run)> = Vec::new();
    for run in group {
        let mut items = run.items();
        while !items.is_empty() {
            let block = items.start / ID_BLOCK;
            let end = items.end.min((block + 1) * ID_BLOCK);
            let piece = Run { start: items.start as u64, len: (end - items.start) as u32, score: run.score };
            pieces.push((view.id_min.get(block), piece));
            items.start = end;
        }
    }
    pieces.sort_unstable_by_key(|&(id_min, piece)| (id_min, Reverse(piece.start)));

    let start = hits.len();
    let mut worst = u64::MAX;
    let cut = |hits: &mut Vec<Hit>| -> u64 {
        let (_, last, _) = hits[start..].select_nth_unstable_by_key(wanted - 1, |hit| hit.id);
        let worst = last.id;
        hits.truncate(start + wanted);
        worst
    };
    for (id_min, piece) in pieces {
        if id_min > worst {
            break;
        }
        let found = piece.items().map(|item| Hit { id: view.ids.get(item), score: piece.score });
        hits.extend(found.filter(|hit| hit.id <= worst));
        if hits.len() - start >= 2 * wanted.max(ID_BLOCK) {
            worst = cut(hits);
        }
    }
    if hits.len() - start > wanted {
        cut(hits);
    }
    hits[start..].sort_unstable_by_key(|hit| hit.id);
}
