//! Several queries of one index and length that read each row once for all of them.

use crate::Error;
use crate::kernel::BLOCK;
use crate::prune::{Pass, Query};
use crate::topk::Candidates;

/// Queries share what they read only of planes that caches do not hold: longer than this, in bytes.
const MIN_SHARED_BYTES: usize = 1 << 21;

/// And only if a query reads at least this share of the planes.
const MIN_SHARE_READ: f64 = 0.1;

impl<'a> Query<'a> {
    /// Returns the score that each query starts with as its threshold if it is faster that they
    /// share what they read. The first query decides that for all.
    pub(crate) fn shared_thresholds(queries: &[Self], k: usize, min_score: f32) -> Option<Vec<f32>> {
        let (first, rest) = queries.split_first().filter(|(_, rest)| !rest.is_empty())?;
        let n_levels = first.scorer.n_levels();
        let is_long = first.view.layout.n_positions() * (n_levels - 1) > MIN_SHARED_BYTES;
        if n_levels < 3 || !is_long || first.listed(k).is_some() {
            return None;
        }
        let threshold = |query: &Self| min_score.max(query.estimate(k));
        let threshold_of_first = threshold(first);
        if first.share_read(threshold_of_first) < MIN_SHARE_READ {
            return None;
        }
        Some(std::iter::once(threshold_of_first).chain(rest.iter().map(threshold)).collect())
    }

    /// Returns what [`best`](Self::best) returns for each query, of three levels or more;
    /// `thresholds` are those that they start with.
    pub(crate) fn best_together(
        queries: &'a [Self],
        k: usize,
        min_score: f32,
        thresholds: &[f32],
    ) -> Result<Vec<Candidates>, Error> {
        let visit = |(query, &threshold): (&'a Self, &f32)| {
            (query.bound(), Pass::new(query, query.candidates(k, threshold)))
        };
        let mut visits: Vec<_> = queries.iter().zip(thresholds).map(visit).collect();
        for first in 0..=255 {
            for (bound, pass) in &mut visits {
                pass.visit_row(first, bound);
            }
        }
        let complete = |((_, pass), &threshold): ((_, Pass), &f32)| {
            let query = pass.query;
            let found = pass.finish()?;
            let is_complete = threshold == min_score || found.is_crowded() || found.reaches(threshold);
            if is_complete { Ok(found) } else { query.all_rows(k, min_score) }
        };
        visits.into_iter().zip(thresholds).map(complete).collect()
    }

    /// Returns about the share of the codes that must be read to find those that reach `threshold`.
    fn share_read(&self, threshold: f32) -> f64 {
        let (mut bound, mut seconds) = (self.bound(), [0; BLOCK]);
        let mut n_read = 0.0;
        for (first, row) in self.view.rows() {
            let slack = bound.enter(first, threshold);
            if slack >= 0.0 {
                let limit = bound.limit(slack);
                let n_cells = limit.map_or(256, |limit| bound.qualifying(limit, 0, &mut seconds));
                n_read += row.len() as f64 * n_cells as f64 / 256.0;
            }
        }
        n_read / self.view.layout.n_positions() as f64
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use dpq_codebook::{Assignment, Codebooks, LookupTable};

    use super::*;
    use crate::kernel::Kernel;
    use crate::score::Scorer;
    use crate::{Filter, Hit, Index, Metric};

    const LEVELS: usize = 8;

    fn numbers() -> impl FnMut() -> u64 {
        let mut state = 1u64;
        move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            state >> 33
        }
    }

    /// An index of `n_items`, each of which has one of `n_distinct` random codes.
    fn index(metric: Metric, n_items: usize, n_distinct: usize) -> Index {
        let mut next = numbers();
        let values = (0..LEVELS * 256 * 2).map(|_| next() as f32 / (1u64 << 30) as f32 - 1.0).collect();
        let codebooks = Codebooks::new(values, LEVELS, 256, 2, Assignment::Euclidean).unwrap();
        let pool: Vec<u8> = (0..n_distinct * LEVELS).map(|_| next() as u8).collect();
        let codes: Vec<u8> = (0..n_items)
            .flat_map(|item| {
                let code = if n_distinct == n_items { item } else { next() as usize % n_distinct };
                &pool[code * LEVELS..][..LEVELS]
            })
            .copied()
            .collect();
        Index::builder(&codebooks, &codes).metric(metric).build().unwrap()
    }

    fn tables(index: &Index) -> Vec<LookupTable> {
        (0..5).map(|i| index.lookup_table(&[1.0 - i as f32, 0.5 * i as f32]).unwrap()).collect()
    }

    /// Calls `check` with queries at some lengths of `index`.
    fn with_queries(index: &Index, filter: Option<&Filter>, check: impl Fn(&[Query])) {
        let (view, tables) = (index.view(), tables(index));
        for n_levels in [3, 4, LEVELS] {
            let norms = index.norms(n_levels).unwrap();
            let scorers: Vec<Scorer> =
                tables.iter().map(|table| Scorer::new(table, n_levels, norms)).collect();
            let query = |scorer| Query {
                view: &view,
                scorer,
                lower: None,
                margin: 0.0,
                kernel: Kernel::best(),
                filter,
                interrupt: None,
            };
            check(&scorers.iter().map(query).collect::<Vec<_>>());
        }
    }

    fn bits(hits: &[Hit]) -> Vec<(u64, u32)> {
        hits.iter().map(|hit| (hit.id, hit.score.to_bits())).collect()
    }

    #[test]
    fn queries_together_find_what_each_finds_alone() {
        for metric in [Metric::InnerProduct, Metric::Euclidean] {
            for n_distinct in [6000, 500] {
                let index = index(metric, 6000, n_distinct);
                for filter in [None, Some(index.filter(|id| id % 3 != 0))] {
                    with_queries(&index, filter.as_ref(), |queries| {
                        for (k, min_score) in
                            [(1, f32::NEG_INFINITY), (100, f32::NEG_INFINITY), (100, 1.5), (6000, 0.0)]
                        {
                            // Estimates, none at all, and one that is too high, so that it has to
                            // be mended.
                            let estimate = |query: &Query| min_score.max(query.estimate(k));
                            let estimates: Vec<f32> = queries.iter().map(estimate).collect();
                            for thresholds in [&estimates[..], &[min_score; 5], &[1e6; 5]] {
                                let found = Query::best_together(queries, k, min_score, thresholds).unwrap();
                                for (query, found) in queries.iter().zip(found) {
                                    let expected = query.best(k, min_score).unwrap().into_hits(query.view);
                                    assert_eq!(bits(&found.into_hits(query.view)), bits(&expected));
                                }
                            }
                        }
                    });
                }
            }
        }
    }

    #[test]
    fn an_interrupt_ends_a_visit_of_rows() {
        let index = index(Metric::InnerProduct, 6000, 6000);
        let (view, table, interrupt) = (index.view(), &tables(&index)[0], AtomicBool::new(true));
        for n_levels in [1, 2, 4] {
            let scorer = Scorer::new(table, n_levels, None);
            let (kernel, interrupt) = (Kernel::best(), Some(&interrupt));
            let (lower, margin, filter) = (None, 0.0, None);
            let query = Query { view: &view, scorer: &scorer, lower, margin, kernel, filter, interrupt };
            let min_score = f32::NEG_INFINITY;
            let found = [query.best(10, min_score), query.all_rows(10, min_score)];
            assert!(found.iter().all(|found| matches!(found, Err(Error::Interrupted))));
            let together = Query::best_together(&[query], 10, min_score, &[min_score]).map(|_| ());
            assert!(matches!(together, Err(Error::Interrupted)));
            // In the middle of a row, too.
            let mut pass = Pass::new(&query, Candidates::new(10, min_score, 0.0));
            pass.score(0, view.row(0));
            assert!(matches!(pass.finish(), Err(Error::Interrupted)));
        }
    }

    #[test]
    fn queries_share_only_what_is_long_and_mostly_read() {
        let shares = |index: &Index, min_score| {
            let (view, tables) = (index.view(), tables(index));
            let norms = index.norms(LEVELS).unwrap();
            let scorers: Vec<Scorer> = tables.iter().map(|table| Scorer::new(table, LEVELS, norms)).collect();
            let query = |scorer| Query {
                view: &view,
                scorer,
                lower: None,
                margin: 0.0,
                kernel: Kernel::best(),
                filter: None,
                interrupt: None,
            };
            let queries: Vec<Query> = scorers.iter().map(query).collect();
            assert!(Query::shared_thresholds(&queries[..1], 20_000, min_score).is_none());
            Query::shared_thresholds(&queries, 20_000, min_score).is_some()
        };
        for metric in [Metric::InnerProduct, Metric::Euclidean] {
            let n_items = MIN_SHARED_BYTES / (LEVELS - 1) + 1;
            let long = index(metric, n_items, n_items);
            // No code has a score of 1,000, so that bounds leave out every row.
            assert!(shares(&long, f32::NEG_INFINITY) && !shares(&long, 1000.0), "{metric}");
            assert!(!shares(&index(metric, n_items - 1, n_items - 1), f32::NEG_INFINITY), "{metric}");
        }
    }
}
