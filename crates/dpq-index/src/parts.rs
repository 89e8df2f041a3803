//! Several indexes searched as one.
//!
//! They are searched one after the other. The score of the k-th best item so far is the minimum
//! score in the next one, so most codes are skipped as in a single index of all items.

use dpq_codebook::{CodeLength, Expected, LookupTable};

use crate::filter::Filter;
use crate::search::{SearchOptions, in_chunks};
use crate::shortlist::Subject;
use crate::topk::{Hit, order_key};
use crate::{Error, Index};

/// An index, and the items of it that count: all, or those that pass a filter.
type Part<'a> = (&'a Index, Option<&'a Filter>);

impl Index {
    /// Searches several indexes of the same codebooks and metric as if they were one: returns for
    /// each of many queries, f32 `[Q, D]`, the best `k` items of all `parts` that pass the filter
    /// of their index.
    ///
    /// Hits, their order and the bits of their scores are those of
    /// [`search_batch`](Self::search_batch) of a single index of all these items. No two items may
    /// have the same id.
    ///
    /// # Errors
    /// As [`search_batch`](Self::search_batch), [`Error::ForeignPart`], [`Error::Codebook`] for no
    /// parts, and [`Error::ForeignFilter`] for `options` with a filter: each part has its own.
    pub fn search_parts(
        parts: &[Part<'_>],
        queries: &[f32],
        options: &SearchOptions,
    ) -> Result<Vec<Vec<Hit>>, Error> {
        Expected::Range(1..=usize::MAX).check("number of parts", parts.len())?;
        let (first, _) = parts[0];
        let length = options.length.unwrap_or(first.max_length());
        if options.filter.is_some() {
            return Err(Error::ForeignFilter);
        }
        let expected = (first.fingerprint(), first.metric());
        for &(index, filter) in parts {
            let found = (index.fingerprint(), index.metric());
            if found != expected {
                return Err(Error::ForeignPart { found, expected });
            }
            index.check(&SearchOptions { filter, ..*options }, length)?;
        }
        if let &[(index, filter)] = parts {
            return index.search_batch(queries, &SearchOptions { filter, ..*options });
        }
        let dim = first.codebooks.dim();
        Expected::Rows(dim).check("queries", queries.len())?;
        let search = |queries: &[f32]| -> Result<Vec<Vec<Hit>>, Error> {
            let tables = first.codebooks.lookup_tables(queries, length)?;
            tables.iter().map(|table| best(parts, table, options, length)).collect()
        };
        in_chunks(queries, dim, search)
    }
}

/// Returns the best items of `parts` at `length`, in order.
fn best(
    parts: &[Part],
    table: &LookupTable,
    options: &SearchOptions,
    length: CodeLength,
) -> Result<Vec<Hit>, Error> {
    // A shortlist that is continued has the hits of no shortlist.
    let mut shortlist = options.shortlist.filter(|shortlist| !shortlist.is_exact);
    if let Some(shortlist) = &mut shortlist {
        let (k, min_score) = (shortlist.n, f32::NEG_INFINITY);
        let at_short = SearchOptions { k, min_score, shortlist: None, ..*options };
        let listed = best(parts, table, &at_short, shortlist.length)?;
        shortlist.min_score = listed.get(k - 1).map_or(min_score, |last| last.score);
    }
    let key = |hit: &Hit| (order_key(hit.score), hit.id);
    let (k, mut min_score, mut hits) = (options.k, options.min_score, Vec::new());
    for &(index, filter) in parts {
        let in_part = SearchOptions { min_score, filter, shortlist: None, ..*options };
        hits.extend(match shortlist {
            Some(shortlist) => index.shortlisted(Subject::Table(table), None, &in_part, shortlist, length)?,
            None => {
                let (view, scan) = (index.view(), index.exact_scan(table, length)?);
                let query = in_part.query(&scan, &view);
                if hits.len() < k {
                    in_part.hits(&query, index.items_to_rank(&in_part))?
                } else {
                    query.best_above(k, min_score)?.into_hits(&view)
                }
            }
        });
        if hits.len() >= k {
            min_score = hits.select_nth_unstable_by_key(k - 1, key).1.score;
            hits.truncate(k);
        }
    }
    hits.sort_unstable_by_key(key);
    Ok(hits)
}
