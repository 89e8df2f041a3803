//! Metrics of single queries, and their means.

use std::borrow::Cow;

use crate::gain::{Discounts, reciprocal_rank};
use crate::{EmptyQuery, Error, MapRule, Ranking};

/// Computes metrics query by query and averages them.
///
/// All but the average precision are expectations over all orders of tied items. The first rule
/// decides whether they count the query itself and queries without relevant items.
#[derive(Debug, Clone)]
pub struct Evaluator {
    rules: Vec<MapRule>,
    cutoffs: Vec<usize>,
    recall_steps: usize,
    ndcg_cutoffs: Vec<usize>,
    discounts: Discounts,
    n_queries: usize,
    n_empty: usize,
    /// One per value of [`QueryResult`].
    means: Vec<Mean>,
}

/// The metrics of one query, for [`Evaluator::add`].
#[derive(Debug, Clone, PartialEq)]
pub struct QueryResult {
    empty: bool,
    n_rules: usize,
    /// Average precision by rule, precision by cut-off, recall by cut-off, reciprocal rank,
    /// NDCG by cut-off, precision by recall; `None` where the query is skipped.
    values: Vec<Option<f64>>,
}

/// Means over all queries, each beside its rule or cut-off.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// The number of queries added.
    pub n_queries: usize,
    /// The number of queries without a relevant item, under the first rule.
    pub n_empty: usize,
    /// The mean average precision under each rule, in the order of the rules.
    pub map: Vec<(MapRule, f64)>,
    /// `(R, precision@R)`: the number of relevant items within the first R ranks, divided by R even
    /// if fewer items are ranked.
    pub precision_at: Vec<(usize, f64)>,
    /// `(k, recall@k)`: the share of all relevant items that is within the first k ranks.
    pub recall_at: Vec<(usize, f64)>,
    /// The mean reciprocal rank of the first relevant item, 0 if none is ranked.
    pub mrr: f64,
    /// `(k, NDCG@k)`: the gain of the first k ranks over that of a perfect ranking. The gain of a
    /// relevant item at rank i is 1 / log2(1 + i). Empty without [`Evaluator::with_ndcg`].
    pub ndcg_at: Vec<(usize, f64)>,
    /// `(recall, precision)` at recall 0, 1/steps, …, 1; empty for 0 steps.
    ///
    /// Precision is interpolated as in TREC: the maximum at this or any higher recall, 0 for a
    /// recall never reached, averaged over queries at each recall. The curve of one query runs
    /// through (expected recall@j, expected precision@j) of all ranks j, and inside a tie group
    /// through all fractions of ranks.
    pub precision_recall: Vec<(f64, f64)>,
}

/// A running mean.
#[derive(Debug, Clone, Copy, Default)]
struct Mean {
    sum: f64,
    n: usize,
}

impl Evaluator {
    /// Makes an evaluator of mean average precision under each rule, of precision and recall at
    /// each cut-off, and of precision at `recall_steps + 1` values of recall (10 gives TREC's
    /// eleven points, 0 no curve).
    ///
    /// # Errors
    /// [`Error::NoRules`]; [`Error::ZeroCutoff`] for a cut-off of 0, that of a rule included.
    pub fn new(rules: &[MapRule], cutoffs: &[usize], recall_steps: usize) -> Result<Self, Error> {
        if rules.is_empty() {
            return Err(Error::NoRules);
        }
        if cutoffs.contains(&0) || rules.iter().any(|rule| rule.cutoff == Some(0)) {
            return Err(Error::ZeroCutoff);
        }
        let n_levels = if recall_steps == 0 { 0 } else { recall_steps + 1 };
        Ok(Self {
            rules: rules.to_vec(),
            cutoffs: cutoffs.to_vec(),
            recall_steps,
            ndcg_cutoffs: Vec::new(),
            discounts: Discounts::new(0),
            n_queries: 0,
            n_empty: 0,
            means: vec![Mean::default(); rules.len() + 2 * cutoffs.len() + 1 + n_levels],
        })
    }

    /// Adds normalised discounted cumulative gain at each cut-off, see [`Report::ndcg_at`], and
    /// forgets queries that were added.
    ///
    /// # Errors
    /// [`Error::ZeroCutoff`] for a cut-off of 0.
    pub fn with_ndcg(mut self, cutoffs: &[usize]) -> Result<Self, Error> {
        if cutoffs.contains(&0) {
            return Err(Error::ZeroCutoff);
        }
        let n_others = self.means.len() - self.ndcg_cutoffs.len();
        self.means = vec![Mean::default(); n_others + cutoffs.len()];
        (self.n_queries, self.n_empty) = (0, 0);
        self.discounts = Discounts::new(cutoffs.iter().copied().max().unwrap_or(0));
        self.ndcg_cutoffs = cutoffs.to_vec();
        Ok(self)
    }

    /// Computes the metrics of one query. Takes `&self`, so that queries can be evaluated in
    /// parallel.
    pub fn query(&self, ranking: &Ranking) -> QueryResult {
        let exclude_self = self.rules.iter().any(|rule| rule.exclude_self);
        let rest = if exclude_self { ranking.without_query() } else { Cow::Borrowed(ranking) };
        let view = |rule: &MapRule| if rule.exclude_self { rest.as_ref() } else { ranking };

        let mut values: Vec<_> =
            self.rules.iter().map(|rule| rule.average_precision_as_given(view(rule))).collect();
        let main = &self.rules[0];
        let empty = view(main).n_relevant() == 0;
        let counts = !empty || main.empty == EmptyQuery::Zero;
        values.extend(self.curves(view(main)).into_iter().map(|value| counts.then_some(value)));
        QueryResult { empty, n_rules: self.rules.len(), values }
    }

    /// Adds one query to the means. The same results in the same order give the same means to the
    /// last bit.
    ///
    /// # Errors
    /// [`Error::OtherEvaluator`] if the result comes from an evaluator with other settings.
    pub fn add(&mut self, result: &QueryResult) -> Result<(), Error> {
        if (result.n_rules, result.values.len()) != (self.rules.len(), self.means.len()) {
            return Err(Error::OtherEvaluator);
        }
        self.n_queries += 1;
        self.n_empty += usize::from(result.empty);
        for (mean, value) in self.means.iter_mut().zip(&result.values) {
            if let Some(value) = value {
                mean.sum += value;
                mean.n += 1;
            }
        }
        Ok(())
    }

    /// Returns the means over the queries added so far.
    ///
    /// # Errors
    /// [`Error::NoQueries`] if no query counts under one of the rules.
    pub fn finish(&self) -> Result<Report, Error> {
        let (n_queries, n_empty) = (self.n_queries, self.n_empty);
        let (maps, curves) = self.means.split_at(self.rules.len());
        if maps.iter().any(|mean| mean.n == 0) {
            return Err(Error::NoQueries { n_queries, n_empty });
        }
        let means = |means: &[Mean]| means.iter().map(|mean| mean.sum / mean.n as f64).collect::<Vec<_>>();
        let map = self.rules.iter().copied().zip(means(maps)).collect();
        let mut curves = means(curves).into_iter();
        let at = |cutoffs: &[usize], curves: &mut std::vec::IntoIter<f64>| {
            cutoffs.iter().copied().zip(curves).collect()
        };
        let precision_at = at(&self.cutoffs, &mut curves);
        let recall_at = at(&self.cutoffs, &mut curves);
        let mrr = curves.next().expect("each query has a reciprocal rank");
        let ndcg_at = at(&self.ndcg_cutoffs, &mut curves);
        let recall = (0..).map(|level| f64::from(level) / self.recall_steps as f64);
        Ok(Report {
            n_queries,
            n_empty,
            map,
            precision_at,
            recall_at,
            mrr,
            ndcg_at,
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
        curves.push(reciprocal_rank(ranking));
        curves.extend(self.ndcg_cutoffs.iter().map(|&cutoff| self.discounts.ndcg(ranking, cutoff)));
        if self.recall_steps > 0 {
            curves.extend(precision_by_recall(ranking, self.recall_steps));
        }
        curves
    }
}

impl QueryResult {
    /// Returns the average precision under each rule of the evaluator; `None` if the rule skips the
    /// query.
    pub fn average_precision(&self) -> &[Option<f64>] {
        &self.values[..self.n_rules]
    }
}

/// Interpolated precision at recall 0, 1/steps, …, 1: see [`Report::precision_recall`].
///
/// Precision is monotonic within a tie group, so its maximum at or after a point is at that point
/// or at the end of this or a later group. Recall values are compared as whole numbers, `level ·
/// n_relevant` with `steps · found`: in floating point 0.1 · 30 is more than 3.
fn precision_by_recall(ranking: &Ranking, steps: usize) -> Vec<f64> {
    let mut precision = vec![0.0; steps + 1];
    if ranking.n_relevant() == 0 {
        return precision;
    }
    let wanted = |level: usize| level as u128 * ranking.n_relevant() as u128;
    let scaled = |found: u32| u128::from(found) * steps as u128;
    let mut best = 0.0_f64;
    let mut level = steps;
    let n_found = ranking.relevant_ranks.len() as u32;
    while wanted(level) > scaled(n_found) {
        level -= 1; // A recall that a partial ranking never reaches.
    }
    for group in ranking.groups.iter().rev() {
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
    // Recall 0 is reached from the first rank on. (A group that starts the ranking has the same
    // precision throughout.)
    precision[0] = best;
    precision
}
