//! Search: the best items for one query or for many.

use std::sync::atomic::AtomicBool;

use dpq_codebook::{CodeLength, Expected, LookupTable};
use rayon::prelude::*;

use crate::filter::Filter;
use crate::kernel::Kernel;
use crate::layout::Metric;
use crate::norms::Norms;
use crate::prune::Query;
use crate::refine::{Approximate, Coarse, Entries, Scan};
use crate::score::euclidean;
use crate::shortlist::{Shortlist, Subject};
use crate::topk::{Candidates, Hit};
use crate::view::View;
use crate::{Error, Index};

/// The number of items that a search returns, the code length, and the items to search among.
///
/// ```
/// # use std::sync::atomic::AtomicBool;
/// # use dpq_index::{CodeLength, SearchOptions};
/// let interrupt = AtomicBool::new(false);
/// let options = SearchOptions::new(10).length(CodeLength::from_bits(16)?).min_score(0.5).interrupt(&interrupt);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct SearchOptions<'a> {
    pub(crate) k: usize,
    pub(crate) length: Option<CodeLength>,
    pub(crate) min_score: f32,
    pub(crate) shortlist: Option<Shortlist>,
    pub(crate) filter: Option<&'a Filter>,
    pub(crate) interrupt: Option<&'a AtomicBool>,
    pub(crate) kernel: Kernel,
}

impl<'a> SearchOptions<'a> {
    /// Asks for the best `k` items at the greatest length. A `k` of at least the number of items
    /// gives the whole ranking.
    ///
    /// The first search for three quarters of the items or more makes the index keep 4 bytes per
    /// item in memory: the order of ids.
    pub fn new(k: usize) -> Self {
        let min_score = f32::NEG_INFINITY;
        let kernel = Kernel::best();
        Self { k, length: None, min_score, shortlist: None, filter: None, interrupt: None, kernel }
    }

    /// Searches at `length`. The default is the greatest: that of the index, or of a lookup table
    /// with fewer levels.
    #[must_use]
    pub fn length(self, length: CodeLength) -> Self {
        Self { length: Some(length), ..self }
    }

    /// Scores only the best `n` items at a shorter `length`, and those that tie with the last of
    /// them: the exact top n there, then the best k of these. Items outside this shortlist are
    /// missed, unless [`exact`](Self::exact) is set.
    ///
    /// A search for a query, not for a lookup table, computes only the table entries that the
    /// shortlist needs. Long codes of many dimensions then take a fraction of the time.
    #[must_use]
    pub fn shortlist(self, n: usize, length: CodeLength) -> Self {
        Self {
            shortlist: Some(Shortlist { n, length, min_score: f32::NEG_INFINITY, is_exact: false }),
            ..self
        }
    }

    /// Continues after the shortlist until bounds prove that no other item is among the best. The
    /// hits are those of a search without a shortlist. Has no effect without one.
    #[must_use]
    pub fn exact(self) -> Self {
        let shortlist = self.shortlist.map(|shortlist| Shortlist { is_exact: true, ..shortlist });
        Self { shortlist, ..self }
    }

    /// Leaves out items whose score is below `min_score`; −0.0 equals 0.0.
    #[must_use]
    pub fn min_score(self, min_score: f32) -> Self {
        Self { min_score, ..self }
    }

    /// Leaves out items that do not pass `filter`.
    #[must_use]
    pub fn filter(self, filter: &'a Filter) -> Self {
        Self { filter: Some(filter), ..self }
    }

    /// Ends the search with [`Error::Interrupted`] soon after `interrupt` becomes true.
    ///
    /// A search looks at it before each block of at most 1,024 codes. The sort of the hits at the
    /// end is not interrupted.
    #[must_use]
    pub fn interrupt(self, interrupt: &'a AtomicBool) -> Self {
        Self { interrupt: Some(interrupt), ..self }
    }

    /// Scans codes with `kernel` in place of the fastest that this CPU runs. The hits are the same:
    /// this is for benchmarks.
    #[must_use]
    pub fn kernel(self, kernel: Kernel) -> Self {
        Self { kernel, ..self }
    }

    pub(crate) fn query<'q>(&'q self, scan: &'q Scan<'q>, view: &'q View<'q>) -> Query<'q> {
        let Self { kernel, filter, interrupt, .. } = *self;
        let Scan { scorer, lower, margin, .. } = scan;
        Query { scorer, lower: lower.as_ref(), view, margin: *margin, kernel, filter, interrupt }
    }

    /// Returns the hits of one query. `by_id` are all items by ascending id, if they are to be
    /// ranked.
    pub(crate) fn hits(&self, query: &Query, by_id: Option<&[u32]>) -> Result<Vec<Hit>, Error> {
        if query.is_interrupted() {
            return Err(Error::Interrupted);
        }
        match by_id.and_then(|by_id| query.ranking(by_id, self.k)) {
            Some(ranking) => Ok(ranking),
            None => Ok(query.best(self.k, self.min_score)?.into_hits(query.view)),
        }
    }
}

impl Index {
    /// Returns the best `k` items for a query `[D]` at the greatest code length, or all items if
    /// there are fewer.
    ///
    /// Hits come in the order score descending, then id ascending. They are exact: the same as if
    /// every code were scored and sorted. [`search_with`](Self::search_with) searches at other
    /// lengths and with filters.
    ///
    /// # Errors
    /// [`Error::Codebook`] for k = 0, and for a query with another dimension or with values that
    /// are not finite.
    pub fn search(&self, query: &[f32], k: usize) -> Result<Vec<Hit>, Error> {
        Expected::Shape(vec![self.codebooks.dim()]).check("query", query.len())?;
        Ok(self.search_batch(query, &SearchOptions::new(k))?.remove(0))
    }

    /// Returns the best items for the query of `table`, as `options` say, in the order of
    /// [`search`](Self::search).
    ///
    /// [`lookup_table`](Self::lookup_table) makes the table, which serves searches at any length.
    /// The score of a code at n levels is `table[0][c_0] + … + table[n−1][c_{n−1}]`, f32, from left
    /// to right. For the Euclidean metric it is twice that minus ‖x̂‖², in f64, rounded to f32
    /// once; for codes of product codebooks, the sum of twice an entry minus ‖c‖². By inner
    /// product, a table may also hold any other scores that add up over levels
    /// ([`LookupTable::new`]).
    ///
    /// Shapes: table `[l, K]` with K as the codebooks of the index, and from n to L levels.
    ///
    /// # Errors
    /// [`Error::Codebook`] for k = 0, for a length that codes do not have, and if twice an entry
    /// overflows f32 where a score needs it, [`Error::NanMinScore`], [`Error::Table`] and
    /// [`Error::ForeignTable`] for a table of another shape or of other codebooks,
    /// [`Error::ForeignFilter`], [`Error::Interrupted`].
    pub fn search_with(&self, table: &LookupTable, options: &SearchOptions) -> Result<Vec<Hit>, Error> {
        let length = options.length.map_or_else(|| CodeLength::from_levels(table.n_levels()), Ok)?;
        self.check(options, length)?;
        self.check_table(table, length)?;
        if let Some(shortlist) = options.shortlist {
            return self.shortlisted(Subject::Table(table), None, options, shortlist, length);
        }
        let view = self.view();
        let scan = self.exact_scan(table, length)?;
        options.hits(&options.query(&scan, &view), self.items_to_rank(options))
    }

    /// Returns for each of many queries, f32 `[Q, D]`, what [`search_with`](Self::search_with)
    /// returns for its table.
    ///
    /// Queries run in parallel on the current rayon pool; a single one runs on the calling thread.
    /// Queries that would each read a tenth of a large index or more read it together.
    ///
    /// # Errors
    /// As [`search_with`](Self::search_with), and [`Error::Codebook`] for values that are not whole
    /// queries or not finite.
    pub fn search_batch(&self, queries: &[f32], options: &SearchOptions) -> Result<Vec<Vec<Hit>>, Error> {
        let length = options.length.unwrap_or(self.max_length());
        self.check(options, length)?;
        let dim = self.codebooks.dim();
        Expected::Rows(dim).check("queries", queries.len())?;
        let (by_id, norms) = (self.items_to_rank(options), self.norms(length.levels())?);
        let rounded = match by_id {
            Some(_) => None,
            None => self.rounded(options.k, length, queries.len() / dim)?,
        };
        let search = |queries: &[f32]| -> Result<Vec<Vec<Hit>>, Error> {
            let rows = queries.chunks_exact(dim);
            let approximate = |query| Approximate::new(rounded, query, length.levels());
            let approximate: Vec<_> = rows.clone().map(approximate).collect::<Result<_, Error>>()?;
            if let Some(shortlist) = options.shortlist {
                let hits = |(query, approximate): (_, &Option<Approximate>)| {
                    self.shortlisted(Subject::Query(query), approximate.as_ref(), options, shortlist, length)
                };
                return rows.zip(&approximate).map(hits).collect();
            }
            let view = self.view();
            let approximate: Vec<_> = approximate.iter().map(Option::as_ref).collect();
            let scans = self.scans(queries, &approximate, length, norms)?;
            let queries: Vec<Query> = scans.iter().map(|scan| options.query(scan, &view)).collect();
            let (k, min_score) = (options.k, options.min_score);
            let shared = || Query::shared_thresholds(&queries, k, min_score);
            let found = match by_id.is_none().then(shared).flatten() {
                Some(thresholds) => Query::best_together(&queries, k, min_score, &thresholds)?,
                None if by_id.is_some() => {
                    return queries.iter().map(|query| options.hits(query, by_id)).collect();
                }
                None => queries.iter().map(|query| query.best(k, min_score)).collect::<Result<_, _>>()?,
            };
            let refined = |(((found, scan), vector), approximate): (((Candidates, &Scan), _), Option<_>)| {
                let Some(approximate) = approximate.filter(|_| scan.lower.is_some()) else {
                    return Ok(found.into_hits(&view));
                };
                if found.is_crowded() {
                    let table = self.codebooks.lookup_table_at(vector, length)?;
                    return self.search_with(&table, &options.length(length));
                }
                let coarse = Coarse { approximate, scan };
                let mut exact = Entries::exact(&self.codebooks, vector);
                exact.set_length(length.levels(), norms);
                Ok(self.refine(&view, found, coarse, &mut exact, (k, min_score))?.into_hits(&view))
            };
            found.into_iter().zip(&scans).zip(rows).zip(approximate).map(refined).collect()
        };
        in_chunks(queries, dim, search)
    }

    /// Returns what to scan by for each of `queries` `[n, D]`: bounds, if all have some that are
    /// close, or else exact scores.
    pub(crate) fn scans<'a>(
        &'a self,
        queries: &[f32],
        approximate: &[Option<&Approximate>],
        length: CodeLength,
        norms: Option<Norms<'a>>,
    ) -> Result<Vec<Scan<'a>>, Error> {
        if let Some(approximate) = approximate.iter().copied().collect::<Option<Vec<_>>>()
            && let Some(Approximate { codebooks, .. }) = approximate.first()
        {
            let queries: Vec<_> = approximate.iter().map(|approximate| &approximate.query).collect();
            let bounds = codebooks.lookup_bounds(&queries, length)?;
            let scan = |(bounds, of): (_, &&Approximate)| of.scan(bounds, length, norms);
            if let Some(scans) = bounds.iter().zip(&approximate).map(scan).collect() {
                return Ok(scans);
            }
        }
        let tables = self.codebooks.lookup_tables(queries, length)?;
        tables.iter().map(|table| self.exact_scan(table, length)).collect()
    }

    /// Returns a scan by the exact scores of a table of inner products. Euclidean scores of product
    /// codes are sums over levels, so its entries become their terms.
    pub(crate) fn exact_scan(&self, table: &LookupTable, length: CodeLength) -> Result<Scan<'_>, Error> {
        let norms = self.norms(length.levels())?;
        if self.codeword_norms.is_empty() {
            return Ok(Scan::exact(table, length.levels(), norms));
        }
        let terms = table.values().iter().zip(&self.codeword_norms);
        let terms = terms.map(|(&entry, &norm)| euclidean(entry, norm.into())).collect();
        let table = LookupTable::new(terms, table.n_levels(), table.n_codewords())?;
        Ok(Scan::exact(&table, length.levels(), norms))
    }

    /// Returns the squared Euclidean distance ‖q − x̂‖² = ‖q‖² − score for each of the `hits` of a
    /// query `[D]`, at the length that was searched.
    ///
    /// # Errors
    /// [`Error::NoDistance`] unless the metric is Euclidean, [`Error::Codebook`] if the query has
    /// another dimension.
    pub fn squared_distances(&self, query: &[f32], hits: &[Hit]) -> Result<Vec<f32>, Error> {
        if self.metric() != Metric::Euclidean {
            return Err(Error::NoDistance);
        }
        Expected::Shape(vec![self.codebooks.dim()]).check("query", query.len())?;
        let norm: f64 = query.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
        // Rounding can make the distance of a query from itself negative.
        Ok(hits.iter().map(|hit| (norm - f64::from(hit.score)).max(0.0) as f32).collect())
    }

    /// Returns all items by ascending id if ranking them is faster than a search for the best.
    pub(crate) fn items_to_rank(&self, options: &SearchOptions) -> Option<&[u32]> {
        let ranks_most = options.k >= self.len() / 4 * 3 && u32::try_from(self.len()).is_ok();
        let ranks_any = options.min_score == f32::NEG_INFINITY && options.filter.is_none();
        (ranks_most && ranks_any).then(|| self.by_id())
    }

    /// Refuses options that make no sense for this index.
    pub(crate) fn check(&self, options: &SearchOptions, length: CodeLength) -> Result<(), Error> {
        self.check_length(length)?;
        Expected::Range(1..=usize::MAX).check("k", options.k)?;
        if options.min_score.is_nan() {
            return Err(Error::NanMinScore);
        }
        if let Some(shortlist) = options.shortlist {
            shortlist.check(options.k, length)?;
            self.check_length(shortlist.length)?;
        }
        options.filter.map_or(Ok(()), |filter| filter.check(&self.identity))
    }

    pub(crate) fn check_length(&self, length: CodeLength) -> Result<(), Error> {
        Ok(self.codebooks.check_length(length)?)
    }

    /// Refuses a table that does not serve searches at `length`.
    pub(crate) fn check_table(&self, table: &LookupTable, length: CodeLength) -> Result<(), Error> {
        let (found, max) =
            ([table.n_levels(), table.n_codewords()], [self.layout.n_levels, self.layout.n_codewords]);
        if found[1] != max[1] || !(length.levels()..=max[0]).contains(&found[0]) {
            return Err(Error::Table { found, max, length });
        }
        if table.fits(&self.codebooks) { Ok(()) } else { Err(Error::ForeignTable) }
    }
}

/// Searches for queries f32 `[Q, D]` in parallel, in chunks of queries that share what they read.
pub(crate) fn in_chunks(
    queries: &[f32],
    dim: usize,
    search: impl Fn(&[f32]) -> Result<Vec<Vec<Hit>>, Error> + Sync,
) -> Result<Vec<Vec<Hit>>, Error> {
    const MAX_SHARING: usize = 16;
    // Waking another thread takes longer than one search.
    if queries.len() == dim {
        return search(queries);
    }
    let n_sharing = (queries.len() / dim / rayon::current_num_threads()).clamp(1, MAX_SHARING);
    let hits = queries.par_chunks(n_sharing * dim).map(&search).collect::<Result<Vec<_>, _>>()?;
    Ok(hits.into_iter().flatten().collect())
}
