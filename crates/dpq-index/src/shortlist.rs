//! Coarse to fine: the best items at a short length are scored again at a longer one.

use dpq_codebook::{CodeLength, Expected, LookupTable};

use crate::prune::Query;
use crate::refine::{Approximate, Coarse, Entries, Listed, MIN_APPROXIMATE, Scan, list};
use crate::topk::{Candidates, Hit};
use crate::{Error, Index, SearchOptions};

/// The items to score again, and how they are found.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shortlist {
    pub(crate) n: usize,
    pub(crate) length: CodeLength,
    /// The minimum score at this length.
    pub(crate) min_score: f32,
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
            Subject::Table(table) => Entries::known(self.exact_scan(table, length)?.scorer),
            Subject::Query(query) => Entries::exact(&self.codebooks, query),
        };
        let for_short = approximate.filter(|_| self.needs_few_entries(shortlist.n));
        let search = |query: &Query| query.best(shortlist.n, shortlist.min_score);
        let (mut scan, mut found) = self.scan(subject, for_short, options, shortlist.length, search)?;
        if let Some(approximate) = for_short.filter(|_| scan.lower.is_some()) {
            let coarse = Coarse { approximate, scan: &scan };
            entries.set_length(n_short, short_norms);
            let best = (shortlist.n, shortlist.min_score);
            found = self.refine(&view, found, coarse, &mut entries, best)?;
        } else if let Subject::Query(_) = subject {
            entries.scorer.tables.clone_from(&scan.scorer.tables);
        }

        let listed = list(&view, found);
        entries.set_length(n_levels, norms);
        let best = (options.k, options.min_score);
        // Bounds, where there are any, leave few codes whose exact entries are needed.
        let mut best = if let Some(approximate) = approximate {
            let mut codes = vec![0; listed.len() * n_levels];
            for (code, listed) in codes.chunks_exact_mut(n_levels).zip(&listed) {
                view.known_code(listed.position, code);
            }
            approximate.extend(&mut scan, &codes, n_levels, norms)?;
            let mut found = Candidates::bounded(options.k, options.min_score, scan.margin);
            for (code, Listed { position, items }) in codes.chunks_exact(n_levels).zip(listed) {
                found.offer_bounds(scan.bounds(|level| code[level], position), items);
            }
            let coarse = Coarse { approximate, scan: &scan };
            self.refine(&view, found, coarse, &mut entries, best)?
        } else {
            let mut found = Candidates::new(options.k, options.min_score, f32::INFINITY);
            listed.into_iter().for_each(|listed| found.offer(0.0, listed.items));
            self.rescore(&view, (found, f32::INFINITY), &mut entries, best, 0.0)?
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
        let (scan, found) = self.scan(subject, approximate, options, length, search)?;
        let found = match approximate {
            Some(approximate) if scan.lower.is_some() => {
                let coarse = Coarse { approximate, scan: &scan };
                self.refine(&view, found, coarse, &mut entries, best)?
            }
            _ => found,
        };
        Ok(found.into_hits(&view))
    }

    /// Returns the items that `search` finds at `length`, and by what.
    fn scan<'a>(
        &'a self,
        subject: Subject,
        approximate: Option<&Approximate>,
        options: &SearchOptions,
        length: CodeLength,
        search: impl Fn(&Query) -> Result<Candidates, Error>,
    ) -> Result<(Scan<'a>, Candidates), Error> {
        let scan = self.prepared(subject, approximate, length)?;
        let found = search(&options.query(&scan, &self.view()))?;
        if !found.is_crowded() {
            return Ok((scan, found));
        }
        let scan = self.prepared(subject, None, length)?;
        let found = search(&options.query(&scan, &self.view()))?;
        Ok((scan, found))
    }

    /// Returns what to scan by at `length`.
    fn prepared<'a>(
        &'a self,
        subject: Subject,
        approximate: Option<&Approximate>,
        length: CodeLength,
    ) -> Result<Scan<'a>, Error> {
        let (n_levels, norms) = (length.levels(), self.norms(length.levels())?);
        match subject {
            Subject::Table(table) => self.exact_scan(table, length),
            Subject::Query(query) => {
                let approximate = approximate.filter(|_| n_levels >= MIN_APPROXIMATE);
                Ok(self.scans(query, &[approximate], length, norms)?.remove(0))
            }
        }
    }
}
