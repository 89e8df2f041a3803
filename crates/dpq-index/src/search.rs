//! Search: one function for the top k, everything above a score, and the whole ranking, with or without a filter.

use dpq_codebook::{CodeLength, LookupTable};
use rayon::prelude::*;

use crate::filter::Filter;
use crate::kernel::Kernel;
use crate::prune::Query;
use crate::score::Scorer;
use crate::topk::Hit;
use crate::view::View;
use crate::{Error, Index};

/// What a search returns: at most k items, at a code length, optionally only those above a score or in a filter.
#[derive(Clone, Copy)]
pub struct SearchOptions<'a> {
    k: usize,
    length: CodeLength,
    min_score: Option<f32>,
    filter: Option<&'a Filter>,
    kernel: Option<Kernel>,
}

impl<'a> SearchOptions<'a> {
    /// Asks for the best `k` items at `length`. A `k` of the number of items or more gives the whole ranking.
    pub fn new(k: usize, length: CodeLength) -> Self {
        Self { k, length, min_score: None, filter: None, kernel: None }
    }

    /// Leaves out items whose score is below `min_score`; −0.0 equals 0.0.
    #[must_use]
    pub fn min_score(self, min_score: f32) -> Self {
        Self { min_score: Some(min_score), ..self }
    }

    /// Leaves out items that do not pass `filter`, which must come from the index searched.
    #[must_use]
    pub fn filter(self, filter: &'a Filter) -> Self {
        Self { filter: Some(filter), ..self }
    }

    /// Scans codes with `kernel` instead of the fastest that this CPU can run; the hits are the same.
    #[must_use]
    pub fn kernel(self, kernel: Kernel) -> Self {
        Self { kernel: Some(kernel), ..self }
    }
}

impl SearchOptions<'_> {
    fn query<'a>(&'a self, scorer: &'a Scorer<'a>, view: &'a View<'a>) -> Query<'a> {
        let kernel = self.kernel.unwrap_or_else(Kernel::best);
        Query { scorer, view, kernel, filter: self.filter }
    }

    fn least(&self) -> f32 {
        self.min_score.unwrap_or(f32::NEG_INFINITY)
    }

    /// Returns the hits of one query; with all items by ascending id, those of a ranking of them.
    fn hits(&self, query: &Query, by_id: Option<&[u32]>) -> Vec<Hit> {
        let ranking = by_id.and_then(|by_id| query.ranking(by_id, self.k));
        ranking.unwrap_or_else(|| query.best(self.k, self.least()).into_hits(query.view))
    }
}

impl Index {
    /// Returns the best items for the query of `table`, min(k, number that match), in the order score descending, then id
    /// ascending. The result is exact: what it would be if every code were scored and sorted.
    ///
    /// Shapes: table `[L, K]` as the index's codebooks; levels beyond the length searched may be missing. Any table of inner
    /// products will do, as from [`lookup_table`](Self::lookup_table); the score of a code at n levels is
    /// `table[0][c_0] + … + table[n−1][c_{n−1}]`, f32, from left to right, and for the Euclidean metric twice that less
    /// ‖x̂‖², in f64, rounded to f32 once.
    ///
    /// # Errors
    /// [`Error::Search`] for k = 0, a length above that of the codes, a `min_score` that is NaN, a table of another shape, or
    /// a filter of another index.
    pub fn search(&self, table: &LookupTable, options: &SearchOptions) -> Result<Vec<Hit>, Error> {
        self.check(table, options)?;
        let view = self.view();
        let scorer = Scorer::new(table, options.length.levels(), view.norms);
        Ok(options.hits(&options.query(&scorer, &view), self.to_rank(options)))
    }

    /// Searches for many queries at once, on the threads of the current rayon pool. Returns what single searches return,
    /// sooner where each of them would read a tenth of a large index or more: then several share what they read.
    ///
    /// # Errors
    /// As [`search`](Self::search).
    pub fn search_batch(
        &self,
        tables: &[LookupTable],
        options: &SearchOptions,
    ) -> Result<Vec<Vec<Hit>>, Error> {
        const SHARING: usize = 16;
        tables.iter().try_for_each(|table| self.check(table, options))?;
        let by_id = self.to_rank(options);
        let n_sharing = (tables.len() / rayon::current_num_threads()).clamp(1, SHARING);
        let search = |tables: &[LookupTable]| -> Vec<Vec<Hit>> {
            let view = self.view();
            let scorer = |table| Scorer::new(table, options.length.levels(), view.norms);
            let scorers: Vec<Scorer> = tables.iter().map(scorer).collect();
            let queries: Vec<Query> = scorers.iter().map(|scorer| options.query(scorer, &view)).collect();
            let (k, min_score) = (options.k, options.least());
            match by_id.is_none().then(|| Query::shared_thresholds(&queries, k, min_score)).flatten() {
                Some(thresholds) => Query::best_together(&queries, k, min_score, &thresholds)
                    .into_iter()
                    .map(|found| found.into_hits(&view))
                    .collect(),
                None => queries.iter().map(|query| options.hits(query, by_id)).collect(),
            }
        };
        Ok(tables.par_chunks(n_sharing).map(search).collect::<Vec<_>>().into_iter().flatten().collect())
    }

    /// Returns all items by ascending id if ranking them is faster than looking for the best.
    fn to_rank(&self, options: &SearchOptions) -> Option<&[u32]> {
        let are_most = options.k >= self.len() / 4 * 3 && u32::try_from(self.len()).is_ok();
        (are_most && options.min_score.is_none() && options.filter.is_none()).then(|| self.by_id())
    }

    pub(crate) fn check_length(&self, length: CodeLength) -> Result<(), Error> {
        if length <= self.max_length() {
            return Ok(());
        }
        let reason =
            format!("the length is {length}, but the codes of this index have {}", self.max_length());
        Err(Error::Search { reason })
    }

    fn check(&self, table: &LookupTable, options: &SearchOptions) -> Result<(), Error> {
        self.check_length(options.length)?;
        let reason = if options.k == 0 {
            "k is 0, expected at least 1"
        } else if options.min_score.is_some_and(f32::is_nan) {
            "the least score is NaN, expected a number"
        } else {
            self.check_table(table, options.length)?;
            return options.filter.map_or(Ok(()), |filter| filter.check(&self.identity));
        };
        Err(Error::Search { reason: reason.to_owned() })
    }

    /// Refuses a table that does not serve searches at `length`.
    pub(crate) fn check_table(&self, table: &LookupTable, length: CodeLength) -> Result<(), Error> {
        let (n_levels, n_codewords) = (self.layout.n_levels, self.layout.n_codewords);
        if table.n_codewords() == n_codewords && (length.levels()..=n_levels).contains(&table.n_levels()) {
            return Ok(());
        }
        let reason = format!(
            "the lookup table has {} levels of {} codewords, the index {n_levels} of {n_codewords}, and the search is at \
             {length}: make it with the index's codebooks, for this length or more",
            table.n_levels(),
            table.n_codewords(),
        );
        Err(Error::Search { reason })
    }
}
