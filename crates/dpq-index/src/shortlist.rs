//! Coarse to fine: the best items at a short length are scored again at a longer one.
//!
//! The scores of a shortlist need only the entries of the lookup table that its codes name. These
//! are computed for the levels behind the short length, where a whole table would take most of the
//! time of a search.

use std::ops::Range;

use dpq_codebook::{CodeLength, Codebooks, Expected, LookupTable};

use crate::prune::Query;
use crate::score::Scorer;
use crate::topk::{Candidates, Hit};
use crate::view::View;
use crate::{Error, Index, SearchOptions};

/// The items to score again, and how they are found.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shortlist {
    pub(crate) n: usize,
    pub(crate) length: CodeLength,
    pub(crate) is_exact: bool,
}

/// Where the entries of a longer lookup table come from.
#[derive(Clone, Copy)]
pub(crate) enum Entries<'a> {
    Table(&'a LookupTable),
    Query(&'a Codebooks, &'a [f32]),
}

/// Items of the shortlist that share a code.
struct Listed {
    position: usize,
    items: Range<usize>,
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
    /// Returns the best items at `length` among the shortlist of the query that `entries` belong
    /// to; `table` has its levels up to the length of the shortlist.
    pub(crate) fn shortlisted(
        &self,
        table: &LookupTable,
        entries: Entries,
        options: &SearchOptions,
        shortlist: Shortlist,
        length: CodeLength,
    ) -> Result<Vec<Hit>, Error> {
        let (view, n_short) = (self.view(), shortlist.length.levels());
        let scorer = Scorer::new(table, n_short, self.norms(n_short)?);
        let mut found = options.query(&scorer, &view).best(shortlist.n, f32::NEG_INFINITY)?;
        found.cut();
        let listed = list(&view, &found);
        drop(found);

        let n_levels = length.levels();
        let mut codes = vec![0; listed.len() * n_levels];
        for (code, listed) in codes.chunks_exact_mut(n_levels).zip(&listed) {
            view.known_code(listed.position, code);
        }
        let mut scorer = Scorer { norms: self.norms(n_levels)?, ..scorer };
        for level in n_short..n_levels {
            scorer.tables.push(entries.of(level, codes.iter().skip(level).step_by(n_levels).copied())?);
        }
        let mut best = Candidates::new(options.k, options.min_score);
        for (code, Listed { position, items }) in codes.chunks_exact(n_levels).zip(listed) {
            best.offer(scorer.code(|level| code[level], position), items);
        }
        if !shortlist.is_exact {
            return Ok(best.into_hits(&view));
        }
        // A search that starts with the threshold of the shortlist skips everything that bounds
        // exclude, the items of the shortlist among them.
        best.cut();
        let threshold = best.threshold;
        drop(best);
        if let Entries::Query(codebooks, query) = entries {
            scorer = Scorer::new(&codebooks.lookup_table_at(query, length)?, n_levels, scorer.norms);
        }
        let query: Query = options.query(&scorer, &view);
        let found = match n_levels {
            1 => query.best(options.k, threshold)?,
            _ => query.all_rows(options.k, threshold)?,
        };
        Ok(found.into_hits(&view))
    }
}

/// Returns the codes of the items found, in file order.
fn list(view: &View, found: &Candidates) -> Vec<Listed> {
    let mut listed = Vec::new();
    for (_, mut items) in found.found() {
        while !items.is_empty() {
            let position = view.position_of(items.start);
            // The items of one code are neighbours. In a damaged file, a code may have none.
            let end = view.items(position..position + 1, &mut view.layout.n_items.clone()).end;
            let end = end.clamp(items.start + 1, items.end);
            listed.push(Listed { position, items: items.start..end });
            items.start = end;
        }
    }
    listed.sort_unstable_by_key(|listed| listed.items.start);
    listed
}

impl Entries<'_> {
    /// Returns the entries of a level for some codewords, and NaN for the others.
    fn of(self, level: usize, codewords: impl Iterator<Item = u8>) -> Result<[f32; 256], Error> {
        let mut table = [f32::NAN; 256];
        match self {
            Self::Table(from) => table[..from.n_codewords()].copy_from_slice(from.level(level)),
            Self::Query(codebooks, query) => {
                let mut is_needed = [false; 256];
                codewords.for_each(|codeword| is_needed[usize::from(codeword)] = true);
                let needed: Vec<u8> = (0..=255).filter(|&code| is_needed[usize::from(code)]).collect();
                let mut entries = vec![0.0; needed.len()];
                codebooks.lookup_entries(query, level, &needed, &mut entries)?;
                for (codeword, entry) in needed.into_iter().zip(entries) {
                    table[usize::from(codeword)] = entry;
                }
            }
        }
        Ok(table)
    }
}
