//! Coarse to fine: the best items at a short length are scored again at a longer one.

use dpq_codebook::{CodeLength, Expected, LookupTable, Precision};

use crate::prune::Query;
use crate::refine::{Approximate, Coarse, Entries, MIN_APPROXIMATE, list};
use crate::score::Scorer;
use crate::topk::{Candidates, Hit};
use crate::{Error, Index, SearchOptions};

/// The items to score again, and how they are found.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shortlist {
    pub(crate) n: usize,
    pub(crate) length: CodeLength,
    pub(crate) is_exact: bool,
}

/// The table or the query that a search is for.
#[derive(Clone, Copy)]
pub(crate) enum Subject<'a> {
    Table(&'a LookupTable),
    /// A query `[D]`.
    Query(&'a [f32]),
}

impl Shortlist {
    /// Refuses a shortlist that makes no sense for the best `k` items at `length`.
    pub(crate) fn check(&self, k: usize, length: CodeLength) -> Result<(), Error> {
        Expected::Range(k..=usize::MAX).check("size of the shortlist", self.n)?;
        let expected = Expected::Range(0..=length.bits());
        Ok(expected.check("code length of the shortlist in bits", self.length.bits())?)
    }
}

impl Index {
    /// Returns the best items at `length` among the shortlist. `approximate` belongs to the query,
    /// if there is one.
    pub(crate) fn shortlisted(
        &self,
        subject: Subject,
        approximate: Option<&Approximate>,
        options: &SearchOptions,
        shortlist: Shortlist,
        length: CodeLength,
    ) -> Result<Vec<Hit>, Error> {
        let view = self.view();
        let (n_short, n_levels) = (shortlist.length.levels(), length.levels());
        let (short_norms, norms) = (self.norms(n_short)?, self.norms(n_levels)?);
        let mut entries = match subject {
            Subject::Table(table) => Entries::known(Scorer::new(table, n_levels, norms)),
            Subject::Query(query) => Entries::exact(&self.codebooks, query),
        };
        let for_short = approximate.filter(|_| self.needs_few_entries(shortlist.n));
        let search = |query: &Query| query.best(shortlist.n, f32::NEG_INFINITY);
        let (mut scorer, margin, mut found) =
            self.scan(subject, for_short, options, shortlist.length, search)?;
        let mut n_exact = n_short;
        if let Some(approximate) = for_short.filter(|_| margin > 0.0) {
            n_exact = 0;
            let coarse = Coarse { approximate, scorer: &scorer, n_exact };
            entries.set_length(n_short, short_norms);
            let best = (shortlist.n, f32::NEG_INFINITY);
            found = self.refine(&view, (found, margin), coarse, &mut entries, best)?;
        } else if let Subject::Query(_) = subject {
            entries.scorer.tables.clone_from(&scorer.tables);
        }

        let listed = list(&view, found);
        let mut codes = vec![0; listed.len() * n_levels];
        for (code, listed) in codes.chunks_exact_mut(n_levels).zip(&listed) {
            view.known_code(listed.position, code);
        }
        entries.set_length(n_levels, norms);
        // Approximate scores, where there are any, leave few codes whose exact entries are needed.
        let mut margin = f32::INFINITY;
        if let Some(approximate) = approximate {
            approximate.extend(&mut scorer, &codes, n_levels)?;
            scorer.norms = norms;
            margin = approximate.margin(&scorer, Precision::Coarse);
        }
        let mut found = Candidates::new(options.k, options.min_score, margin);
        for (code, listed) in codes.chunks_exact(n_levels).zip(listed) {
            let score =
                if margin.is_finite() { scorer.code(|level| code[level], listed.position) } else { 0.0 };
            found.offer(score, listed.items);
        }
        let (found, best) = ((found, margin), (options.k, options.min_score));
        let mut best = match approximate {
            Some(approximate) if margin.is_finite() => {
                let coarse = Coarse { approximate, scorer: &scorer, n_exact };
                self.refine(&view, found, coarse, &mut entries, best)?
            }
            _ => self.rescore(&view, found, None, &mut entries, best, 0.0)?,
        };
        if !shortlist.is_exact {
            return Ok(best.into_hits(&view));
        }
        // A search that starts with the threshold of the shortlist skips everything that bounds
        // exclude, the items of the shortlist among them.
        best.cut();
        let best = (options.k, best.threshold);
        let search = |query: &Query| match n_levels {
            1 => query.best(options.k, best.1),
            _ => query.all_rows(options.k, best.1),
        };
        let (scorer, margin, found) = self.scan(subject, approximate, options, length, search)?;
        let found = match approximate {
            Some(approximate) if margin > 0.0 => {
                let coarse = Coarse { approximate, scorer: &scorer, n_exact: 0 };
                self.refine(&view, (found, margin), coarse, &mut entries, best)?
            }
            _ => found,
        };
        Ok(found.into_hits(&view))
    }

    /// Returns the items that `search` finds at `length`, the scorer and its margin, 0 if it is
    /// exact.
    fn scan<'a>(
        &'a self,
        subject: Subject,
        approximate: Option<&Approximate>,
        options: &SearchOptions,
        length: CodeLength,
        search: impl Fn(&Query) -> Result<Candidates, Error>,
    ) -> Result<(Scorer<'a>, f32, Candidates), Error> {
        let (scorer, margin) = self.coarse(subject, approximate, length)?;
        let found = search(&options.query(&scorer, &self.view(), margin))?;
        if !found.is_crowded() {
            return Ok((scorer, margin, found));
        }
        let (scorer, margin) = self.coarse(subject, None, length)?;
        let found = search(&options.query(&scorer, &self.view(), margin))?;
        Ok((scorer, margin, found))
    }

    /// Returns a scorer for a scan at `length` and its margin, 0 if it is exact.
    fn coarse<'a>(
        &'a self,
        subject: Subject,
        approximate: Option<&Approximate>,
        length: CodeLength,
    ) -> Result<(Scorer<'a>, f32), Error> {
        let (n_levels, norms) = (length.levels(), self.norms(length.levels())?);
        let query = match subject {
            Subject::Table(table) => return Ok((Scorer::new(table, n_levels, norms), 0.0)),
            Subject::Query(query) => query,
        };
        let approximate = approximate.filter(|_| n_levels >= MIN_APPROXIMATE);
        let (scorers, margins) = self.scorers(query, &[approximate], length, norms)?;
        Ok(scorers.into_iter().zip(margins).next().expect("one query has one scorer"))
    }
}
