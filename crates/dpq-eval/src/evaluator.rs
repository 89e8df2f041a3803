//! Metrics of single queries, and their means.

use std::borrow::Cow;

use crate::{EmptyQuery, Error, MapRule, Ranking};

/// Computes several metrics for one query after another and keeps their sums.
///
/// Precision, recall and the precision-recall curve are expectations over tie orders. In whether the query
/// itself and queries without relevant items count, they follow the first rule.
#[derive(Debug, Clone)]
pub struct Evaluator {
    rules: Vec<MapRule>,
    cutoffs: Vec<usize>,
    recall_steps: usize,
    n_queries: usize,
    n_empty: usize,
    /// One for each rule.
    average_precision: Vec<Mean>,
    /// One for each value of [`QueryResult::curves`].
    curves: Vec<Mean>,
}

/// The metrics of one query, to be given to [`Evaluator::add`].
#[derive(Debug, Clone, PartialEq)]
pub struct QueryResult {
    empty: bool,
    average_precision: Vec<Option<f64>>,
    /// Precision by cut-off, recall by cut-off, precision by recall; `None` if the query is skipped.
    curves: Option<Vec<f64>>,
}

/// Means over all queries, each next to what it means.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// Queries added.
    pub n_queries: usize,
    /// Queries without a relevant item, by the first rule.
    pub n_empty: usize,
    /// Mean average precision under each rule, in the order given.
    pub map: Vec<(MapRule, f64)>,
    /// `(R, precision@R)`: relevant items within the first R ranks, divided by R even where fewer items are
    /// ranked.
    pub precision_at: Vec<(usize, f64)>,
    /// `(k, recall@k)`: the part of all relevant items that lies within the first k ranks.
    pub recall_at: Vec<(usize, f64)>,
    /// `(recall, precision)` at recall 0, 1/steps, …, 1; empty for 0 steps.
    ///
    /// Precision is interpolated as in TREC: the largest at this or any higher recall, 0 for a recall never
    /// reached; averaged over queries at each recall. The curve of one query runs through (expected recall@j,
    /// expected precision@j) of all ranks j, and inside a tie group through all fractions of ranks.
    pub precision_recall: Vec<(f64, f64)>,
}

/// A mean in the making.
#[derive(Debug, Clone, Copy, Default)]
struct Mean {
    sum: f64,
    n: usize,
}

impl Evaluator {
    /// Makes an evaluator of these rules, of precision and recall at these cut-offs, and of precision at
    /// `recall_steps + 1` levels of recall (10 gives TREC's eleven points; 0 no curve).
    ///
    /// # Errors
    /// [`Error::Settings`] if there is no rule, or a cut-off of 0.
    pub fn new(rules: &[MapRule], cutoffs: &[usize], recall_steps: usize) -> Result<Self, Error> {
        if rules.is_empty() {
            return Err(Error::Settings("without a rule; give at least one"));
        }
        if cutoffs.contains(&0) || rules.iter().any(|rule| rule.cutoff == Some(0)) {
            return Err(Error::Settings("the first 0 ranks; a cut-off counts ranks from 1"));
        }
        let n_levels = if recall_steps == 0 { 0 } else { recall_steps + 1 };
        Ok(Self {
            rules: rules.to_vec(),
            cutoffs: cutoffs.to_vec(),
            recall_steps,
            n_queries: 0,
            n_empty: 0,
            average_precision: vec![Mean::default(); rules.len()],
            curves: vec![Mean::default(); 2 * cutoffs.len() + n_levels],
        })
    }

    /// Computes the metrics of one query. Changes nothing, so queries can be worked on in parallel.
    pub fn query(&self, ranking: &Ranking) -> QueryResult {
        let exclude_self = self.rules.iter().any(|rule| rule.exclude_self);
        let rest = if exclude_self { ranking.without_query() } else { Cow::Borrowed(ranking) };
        let view = |rule: &MapRule| if rule.exclude_self { rest.as_ref() } else { ranking };

        let average_precision =
            self.rules.iter().map(|rule| rule.average_precision_as_given(view(rule))).collect();
        let main = &self.rules[0];
        let ranking = view(main);
        let empty = ranking.n_relevant() == 0;
        let curves = (!empty || main.empty == EmptyQuery::Zero).then(|| self.curves(ranking));
        QueryResult { empty, average_precision, curves }
    }

    /// Adds one query to the means. Added in the same order, results give the same means to the last bit.
    ///
    /// # Panics
    /// If the result comes from an evaluator with other settings.
    pub fn add(&mut self, result: &QueryResult) {
        assert_eq!(self.rules.len(), result.average_precision.len(), "the result has other rules");
        self.n_queries += 1;
        self.n_empty += usize::from(result.empty);
        for (mean, value) in self.average_precision.iter_mut().zip(&result.average_precision) {
            if let Some(value) = value {
                mean.add(*value);
            }
        }
        if let Some(curves) = &result.curves {
            assert_eq!(self.curves.len(), curves.len(), "the result has other cut-offs or recall levels");
            for (mean, value) in self.curves.iter_mut().zip(curves) {
                mean.add(*value);
            }
        }
    }

    /// The means over the queries added so far.
    ///
    /// # Errors
    /// [`Error::NoQueries`] if under one of the rules no query counts.
    pub fn finish(&self) -> Result<Report, Error> {
        let (n_queries, n_empty) = (self.n_queries, self.n_empty);
        if self.average_precision.iter().any(|mean| mean.n == 0) {
            return Err(Error::NoQueries { n_queries, n_empty });
        }
        let means = |means: &[Mean]| means.iter().map(|mean| mean.sum / mean.n as f64).collect::<Vec<_>>();
        let map = self.rules.iter().copied().zip(means(&self.average_precision)).collect();
        let mut curves = means(&self.curves).into_iter();
        let mut at = || self.cutoffs.iter().copied().zip(curves.by_ref()).collect();
        let (precision_at, recall_at) = (at(), at());
        let recall = (0..).map(|level| f64::from(level) / self.recall_steps as f64);
        Ok(Report {
            n_queries,
            n_empty,
            map,
            precision_at,
            recall_at,
            precision_recall: recall.zip(curves).collect(),
        })
    }

    fn curves(&self, ranking: &Ranking) -> Vec<f64> {
        // An empty query that counts finds nothing: its recall is 0.
        let n_relevant = ranking.n_relevant().max(1) as f64;
        let found = self.cutoffs.iter().map(|&cutoff| ranking.expected_relevant_within(cutoff));
        let precision = found.clone().zip(&self.cutoffs).map(|(found, &cutoff)| found / cutoff as f64);
        let recall = found.clone().map(|found| found / n_relevant);
        let mut curves: Vec<f64> = precision.chain(recall).collect();
        if self.recall_steps > 0 {
            curves.extend(precision_by_recall(ranking, self.recall_steps));
        }
        curves
    }
}

impl QueryResult {
    /// The query's average precision under each rule of the evaluator; `None` if the rule skips it.
    pub fn average_precision(&self) -> &[Option<f64>] {
        &self.average_precision
    }
}

impl Mean {
    fn add(&mut self, value: f64) {
        self.sum += value;
        self.n += 1;
    }
}

/// Interpolated precision at recall 0, 1/steps, …, 1, as [`Report::precision_recall`] says.
///
/// Along a tie group precision moves in one direction, so its largest value at or after a point is at that
/// point or at the end of this or a later group. Levels are compared as whole numbers, `level · n_relevant`
/// with `steps · found`: in floating point 0.1 · 30 is more than 3.
fn precision_by_recall(ranking: &Ranking, steps: usize) -> Vec<f64> {
    let mut precision = vec![0.0; steps + 1];
    if ranking.n_relevant() == 0 {
        return precision;
    }
    let wanted = |level: usize| level as u128 * ranking.n_relevant() as u128;
    let scaled = |found: u32| u128::from(found) * steps as u128;
    let mut best = 0.0_f64;
    let mut level = steps;
    let n_found = ranking.relevant_ranks().len() as u32;
    while wanted(level) > scaled(n_found) {
        level -= 1; // A recall that a partial ranking never reaches.
    }
    for group in ranking.groups().iter().rev() {
        let found = group.relevant_before + group.relevant;
        best = best.max(f64::from(found) / f64::from(group.end()));
        while wanted(level) > scaled(group.relevant_before) {
            let found = wanted(level) as f64 / steps as f64;
            let part = (found - f64::from(group.relevant_before)) / f64::from(group.relevant);
            let rank = f64::from(group.n_before) + part * f64::from(group.size);
            precision[level] = best.max(found / rank);
            level -= 1;
        }
    }
    // Recall 0 is met from the first rank on. (A first group that starts the ranking has one precision
    // throughout.)
    precision[0] = best;
    precision
}
