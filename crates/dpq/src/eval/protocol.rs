//! Which items are relevant to a query, and the one place that ranks a gallery and counts.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use dpq_codebook::CodeLength;
use dpq_eval::{Evaluator, Labels, MapRule, QueryResult, Ranker, Report};
use dpq_formats::Matrix;
use dpq_index::Index;
use indicatif::ProgressBar;
use rayon::prelude::*;

/// Cut-offs of precision and recall where classes say what is relevant, and where pairs do: there
/// a query has few relevant items.
const CUTOFFS: [usize; 7] = [1, 10, 100, 500, 1000, 5000, 10_000];
const PAIR_CUTOFFS: [usize; 4] = [1, 10, 50, 100];

/// Cut-offs of the discounted cumulative gain of pairs.
const NDCG_CUTOFFS: [usize; 1] = [10];

/// Recall values of the precision-recall curve: 0, 1/100, …, 1.
const RECALL_STEPS: usize = 100;

/// Queries that share the list of relevant items and are ranked by one thread, at most.
const GROUP: usize = 32;

/// The source of relevance, and the rules of mean average precision.
pub(crate) struct Protocol {
    relevance: Relevance,
    /// The id of each row of the gallery.
    pub(crate) ids: Vec<u64>,
    /// The row of each id.
    rows: HashMap<u64, u32>,
    query_ids: Option<Vec<u64>>,
    rules: Vec<MapRule>,
}

/// Which items are relevant to a query.
pub(crate) enum Relevance {
    /// Those of a class of the query.
    Classes { queries: Labels, gallery: Labels },
    /// The rows of each query.
    Pairs(Vec<Vec<u32>>),
}

/// Items in runs, as [`Ranker`] takes them.
pub(crate) struct Gallery<'a> {
    pub(crate) starts: &'a [u32],
    pub(crate) ids: &'a [u64],
    /// Queries per batch; the results of a batch are in memory until they are added in order.
    pub(crate) batch: usize,
}

/// A report, and the wall-clock time of searching and of counting.
pub(crate) struct Evaluated {
    pub(crate) report: Report,
    pub(crate) seconds: [Duration; 2],
}

impl Protocol {
    /// Takes the id of each gallery item, and of each query that is itself a gallery item to be
    /// left out of its ranking.
    pub(crate) fn new(
        relevance: Relevance,
        ids: Vec<u64>,
        query_ids: Option<Vec<u64>>,
        rules: Vec<MapRule>,
    ) -> Result<Self> {
        let rows: HashMap<u64, u32> = ids.iter().copied().zip(0..).collect();
        ensure!(rows.len() == ids.len(), "the gallery's ids are not unique");
        Ok(Self { relevance, ids, rows, query_ids, rules })
    }

    /// Evaluates codes at `length`, in the order in which [`Index::search`] returns items.
    pub(crate) fn evaluate_codes(
        &self,
        index: &Index,
        length: CodeLength,
        queries: &Matrix<f32>,
        bar: &ProgressBar,
    ) -> Result<Evaluated> {
        let codes = index.distinct_codes(length)?;
        let gallery = Gallery { starts: codes.starts(), ids: codes.ids(), batch: 1024 };
        let score = |(): &(), _, query: &[f32], scores: &mut [f32]| {
            Ok(codes.score(&index.lookup_table_at(query, length)?, scores)?)
        };
        self.evaluate(&gallery, queries, |_| Ok(()), score, bar)
    }

    /// Ranks the gallery for every query and counts.
    ///
    /// `prepare` takes a batch of queries. `score` takes the result, the place of a query in the
    /// batch and the query, and writes the score of each run.
    pub(crate) fn evaluate<P: Sync>(
        &self,
        gallery: &Gallery<'_>,
        queries: &Matrix<f32>,
        prepare: impl Fn(&[f32]) -> Result<P>,
        score: impl Fn(&P, usize, &[f32], &mut [f32]) -> Result<()> + Sync,
        bar: &ProgressBar,
    ) -> Result<Evaluated> {
        let start = Instant::now();
        let rows: Option<Vec<u32>> = gallery.ids.iter().map(|id| self.rows.get(id).copied()).collect();
        let rows = rows.context(
            "the index has an id that is not among the gallery's ids: give them with --gallery-ids",
        )?;
        let (mut preparing, mut cpu) = (Duration::ZERO, [Duration::ZERO; 2]);
        let mut evaluator = self.evaluator()?;
        let columns = queries.columns;
        for (first, batch) in (0..).step_by(gallery.batch).zip(queries.values.chunks(gallery.batch * columns))
        {
            let begin = Instant::now();
            let prepared = prepare(batch)?;
            preparing += begin.elapsed();
            let query = |q: usize| &batch[(q - first) * columns..][..columns];
            let results = self
                .groups(first..first + batch.len() / columns)?
                .par_iter()
                .map(|group| {
                    let start = Instant::now();
                    let by_row = self.relevant(group[0])?;
                    let relevant: Vec<bool> = rows.iter().map(|&row| by_row[row as usize]).collect();
                    let ranker = Ranker::new(gallery.starts, gallery.ids, &relevant)?;
                    let mut scores = vec![0.0; gallery.starts.len() - 1];
                    let mut searching = Duration::ZERO;
                    let result = |&q: &usize| -> Result<(usize, QueryResult)> {
                        let start = Instant::now();
                        score(&prepared, q - first, query(q), &mut scores)?;
                        searching += start.elapsed();
                        let ranking = ranker.rank(&scores, self.query_ids.as_ref().map(|ids| ids[q]))?;
                        bar.inc(1);
                        Ok((q, evaluator.query(&ranking)))
                    };
                    let results = group.iter().map(result).collect::<Result<Vec<_>>>()?;
                    Ok((results, searching, start.elapsed() - searching))
                })
                .collect::<Result<Vec<_>>>()?;
            let mut in_order = Vec::new();
            for (results, searched, evaluated) in results {
                in_order.extend(results);
                cpu[0] += searched;
                cpu[1] += evaluated;
            }
            in_order.sort_unstable_by_key(|&(q, _)| q);
            in_order.iter().try_for_each(|(_, result)| evaluator.add(result))?;
        }
        // Searching and counting run side by side, so each gets its share of the wall-clock time.
        let share = cpu[0].as_secs_f64() / (cpu[0] + cpu[1]).as_secs_f64().max(f64::MIN_POSITIVE);
        let wall = start.elapsed() - preparing;
        let seconds = [preparing + wall.mul_f64(share), wall.mul_f64(1.0 - share)];
        Ok(Evaluated { report: evaluator.finish()?, seconds })
    }

    fn evaluator(&self) -> Result<Evaluator> {
        Ok(match self.relevance {
            Relevance::Classes { .. } => Evaluator::new(&self.rules, &CUTOFFS, RECALL_STEPS)?,
            Relevance::Pairs(_) => {
                Evaluator::new(&self.rules, &PAIR_CUTOFFS, RECALL_STEPS)?.with_ndcg(&NDCG_CUTOFFS)?
            }
        })
    }

    /// Returns for each row of the gallery whether it is relevant to a query.
    fn relevant(&self, query: usize) -> Result<Vec<bool>> {
        match &self.relevance {
            Relevance::Classes { queries, gallery } => Ok(queries.relevant(query, gallery)?),
            Relevance::Pairs(rows) => {
                let mut relevant = vec![false; self.ids.len()];
                rows[query].iter().for_each(|&row| relevant[row as usize] = true);
                Ok(relevant)
            }
        }
    }

    /// Groups queries of the same classes, which share the list of relevant items.
    fn groups(&self, all: Range<usize>) -> Result<Vec<Vec<usize>>> {
        let Relevance::Classes { queries, .. } = &self.relevance else {
            return Ok(all.map(|query| vec![query]).collect());
        };
        let mut groups: BTreeMap<&[u64], Vec<usize>> = BTreeMap::new();
        for q in all {
            groups.entry(queries.classes(q)?).or_default().push(q);
        }
        Ok(groups.values().flat_map(|group| group.chunks(GROUP)).map(<[usize]>::to_vec).collect())
    }
}

impl From<[Labels; 2]> for Relevance {
    fn from([queries, gallery]: [Labels; 2]) -> Self {
        Self::Classes { queries, gallery }
    }
}

#[cfg(test)]
mod tests {
    use dpq_codebook::{Assignment, Codebooks};
    use dpq_eval::{Ranking, Ties};
    use dpq_index::{Metric, SearchOptions};

    use super::*;

    /// Evaluates whole rankings of [`Index::search`], read hit by hit.
    fn by_search(index: &Index, length: CodeLength, protocol: &Protocol, queries: &Matrix<f32>) -> Report {
        let mut evaluator = protocol.evaluator().unwrap();
        for (q, query) in queries.values.chunks(queries.columns).enumerate() {
            let table = index.lookup_table(query).unwrap();
            let options = SearchOptions::new(index.len()).length(length);
            let hits = index.search_with(&table, &options).unwrap();
            assert_eq!(hits.len(), index.len());
            let by_row = protocol.relevant(q).unwrap();
            let row = |id| protocol.ids.iter().position(|&other| other == id).unwrap();
            let items = hits.iter().map(|hit| (hit.id, hit.score, by_row[row(hit.id)]));
            let n_relevant = by_row.iter().filter(|&&relevant| relevant).count();
            let query_id = protocol.query_ids.as_ref().map(|ids| ids[q]);
            let ranking = Ranking::new(items, n_relevant, query_id).unwrap();
            evaluator.add(&evaluator.query(&ranking)).unwrap();
        }
        evaluator.finish().unwrap()
    }

    #[test]
    fn ids_lead_to_rows_and_repeated_ids_are_refused() {
        let protocol = |ids: &[u64]| {
            Protocol::new([classes(1, 0), classes(ids.len(), 0)].into(), ids.to_vec(), None, vec![])
        };
        for ids in [&[][..], &[0, 1, 2], &[5, 0, 7], &[u64::MAX, 3, 1 << 40]] {
            let rows = protocol(ids).unwrap().rows;
            assert!(ids.iter().zip(0..).all(|(id, row)| rows[id] == row));
            assert_eq!((rows.get(&6), rows.get(&(1 << 50))), (None, None));
        }
        assert!(protocol(&[1, 0, 1]).is_err() && protocol(&[1 << 60, 1 << 60]).is_err());
    }

    fn every_rule() -> Vec<MapRule> {
        let by_id = MapRule { ties: Ties::ById, ..MapRule::dpq() };
        let without_self = MapRule { exclude_self: true, ..by_id };
        vec![by_id, MapRule::dpq(), MapRule::standard(), without_self, MapRule { cutoff: Some(7), ..by_id }]
    }

    fn classes(n: usize, seed: usize) -> Labels {
        let one_hot = (0..n).flat_map(|i| (0..3).map(move |class| u8::from((i * 7 + seed) % 5 % 3 == class)));
        Labels::from_multi_hot(&one_hot.collect::<Vec<_>>(), 3).unwrap()
    }

    #[test]
    fn whole_rankings_are_those_of_search_ties_included() {
        let (n, n_levels, n_codewords, dim) = (300, 3, 4, 5);
        let number = |i: usize| ((i * 7919) % 1013) as f32 / 506.0 - 1.0;
        let codewords = (0..n_levels * n_codewords * dim).map(number).collect();
        let codebooks = Codebooks::new(codewords, n_levels, n_codewords, dim, Assignment::Euclidean).unwrap();
        // 64 codes for 300 items: many items have the same code, more have the same prefix.
        let codes: Vec<u8> = (0..n * n_levels).map(|i| ((i * 131 + i / 7) % n_codewords) as u8).collect();
        let ids: Vec<u64> = (0..n as u64).map(|i| i * 17 % 1009).collect();
        let queries = Matrix { rows: 9, columns: dim, values: (3..3 + 9 * dim).map(number).collect() };
        let query_ids = Some(ids[..9].to_vec());
        let labels = Relevance::from([classes(9, 0), classes(n, 2)]);
        // The fifth query has no relevant item.
        let pairs =
            Relevance::Pairs((0..9).map(|q| (0..(q + 6) % 10).map(|i| i * 29 + q).collect()).collect());
        let protocols = [labels, pairs]
            .map(|relevance| Protocol::new(relevance, ids.clone(), query_ids.clone(), every_rule()).unwrap());
        let metrics = [Metric::InnerProduct, Metric::Euclidean];
        for (protocol, metric) in protocols.iter().flat_map(|p| metrics.map(|metric| (p, metric))) {
            let index = Index::builder(&codebooks, &codes).ids(&ids).metric(metric).build().unwrap();
            for levels in 1..=n_levels {
                let length = CodeLength::from_levels(levels).unwrap();
                let bar = ProgressBar::hidden();
                let found = protocol.evaluate_codes(&index, length, &queries, &bar).unwrap().report;
                assert_eq!(found, by_search(&index, length, protocol, &queries), "{metric} {length}");
            }
        }
    }

    /// f32 adds 1 to 2²⁴ twice and stays there, but adds 2 at once. A table's sum does the first,
    /// so that items 0 and 1 tie; the inner product with the decoded vector does the second, which
    /// puts item 1 first.
    #[test]
    fn codes_tie_where_sums_over_levels_do() {
        let large = 16_777_216.0;
        let codewords = vec![large, 0.0, 0.0, 0.0, /* level 1 */ 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0];
        let codebooks = Codebooks::new(codewords, 3, 2, 2, Assignment::Euclidean).unwrap();
        let codes = [0, 0, 0, 0, 1, 1];
        let index = Index::builder(&codebooks, &codes).build().unwrap();
        let labels = [&[1, 0][..], &[1, 0, 0, 1]].map(|values| Labels::from_multi_hot(values, 2).unwrap());
        let protocol = Protocol::new(labels.into(), vec![0, 1], None, vec![MapRule::dpq()]).unwrap();
        let queries = Matrix { rows: 1, columns: 2, values: vec![1.0, 1.0] };
        let bar = ProgressBar::hidden();
        let found = protocol.evaluate_codes(&index, index.max_length(), &queries, &bar).unwrap().report;
        assert_eq!(found, by_search(&index, index.max_length(), &protocol, &queries));
        assert_eq!(found.map[0].1, 0.75);
    }
}
