//! Exact scores of the few codes that a coarse search found.
//!
//! The lookup table of a long code takes most of the time of a search, but the scores of a few
//! codes need only the entries that these codes name. So a search for a query, not for a lookup
//! table, may scan by approximate entries and compute exact ones for the codes that may be among
//! the best.
//!
//! Let no approximate score A differ from the exact score S by more than Δ, and A_k be the k-th
//! best A. The k best by A have S ≥ A_k − Δ, so each of the k best by S has A ≥ A_k − 2Δ. 2Δ is the
//! *margin* by which [`Candidates`] keeps more than the best.

use std::ops::Range;

use dpq_codebook::{Codebooks, Precision, RoundedCodebooks, RoundedQuery};

use crate::norms::Norms;
use crate::score::Scorer;
use crate::topk::Candidates;
use crate::view::View;
use crate::{Error, Index};

/// The codes whose entries are computed together.
const BLOCK: usize = 16;

/// The levels from which on a scan by approximate entries pays.
pub(crate) const MIN_APPROXIMATE: usize = 3;

/// The maximum Δ relative to the standard deviation of scores. With more, a scan by approximate
/// entries finds too much.
const MAX_ERROR: f64 = 2.0;

/// Approximate entries of the lookup table of a query.
pub(crate) struct Approximate<'a> {
    pub(crate) codebooks: &'a RoundedCodebooks,
    pub(crate) query: RoundedQuery,
}

/// Tables of a query, coarse from level `n_exact` on, and where their entries come from.
#[derive(Clone, Copy)]
pub(crate) struct Coarse<'a> {
    pub(crate) approximate: &'a Approximate<'a>,
    pub(crate) scorer: &'a Scorer<'a>,
    pub(crate) n_exact: usize,
}

/// Some entries of the lookup table of a query, computed as far as codes need them.
pub(crate) struct Entries<'a> {
    source: Source<'a>,
    /// Unknown entries are NaN.
    pub(crate) scorer: Scorer<'a>,
}

/// Where missing entries come from.
#[derive(Clone, Copy)]
enum Source<'a> {
    /// No entry is missing.
    None,
    Exact(&'a Codebooks, &'a [f32]),
    /// Coarse entries, which become fine.
    Fine(Coarse<'a>),
}

/// Items that were found and share a code.
pub(crate) struct Listed {
    /// The position of the code.
    pub(crate) position: usize,
    pub(crate) items: Range<usize>,
}

impl<'a> Entries<'a> {
    /// All entries are known.
    pub(crate) fn known(scorer: Scorer<'a>) -> Self {
        Self { source: Source::None, scorer }
    }

    /// Exact entries, none of them known yet.
    pub(crate) fn exact(codebooks: &'a Codebooks, query: &'a [f32]) -> Self {
        Self { source: Source::Exact(codebooks, query), scorer: Scorer { tables: Vec::new(), norms: None } }
    }

    /// Goes on to another length.
    pub(crate) fn set_length(&mut self, n_levels: usize, norms: Option<Norms<'a>>) {
        self.scorer.norms = norms;
        self.scorer.tables.resize(n_levels, [f32::NAN; 256]);
    }

    /// Computes the entries that `codes`, rows of the length, need.
    fn compute(&mut self, codes: &[u8]) -> Result<(), Error> {
        let source = self.source;
        complete(&mut self.scorer.tables, codes, |at, entries| match source {
            Source::None => Ok(()),
            Source::Exact(codebooks, query) => Ok(codebooks.lookup_entries(query, at, entries)?),
            Source::Fine(Coarse { approximate: Approximate { codebooks, query }, scorer, n_exact }) => {
                for (entry, &(level, codeword)) in entries.iter_mut().zip(at) {
                    *entry = scorer.tables[usize::from(level)][usize::from(codeword)];
                }
                // Levels ascend.
                let n_exact = at.partition_point(|&(level, _)| usize::from(level) < n_exact);
                Ok(codebooks.add_remainders(query, &at[n_exact..], &mut entries[n_exact..])?)
            }
        })
    }
}

impl<'a> Approximate<'a> {
    /// Prepares the entries of a query for codes of up to `n_levels`, if there are rounded
    /// codebooks and no entry may overflow.
    pub(crate) fn new(
        codebooks: Option<&'a RoundedCodebooks>,
        query: &[f32],
        n_levels: usize,
    ) -> Result<Option<Self>, Error> {
        let Some(codebooks) = codebooks else { return Ok(None) };
        let query = codebooks.round(query)?;
        let error = codebooks.max_error(&query, n_levels, Precision::Coarse);
        Ok(error.is_finite().then_some(Self { codebooks, query }))
    }

    /// Extends approximate tables to a greater length, as far as `codes`, rows of `n_levels`, need
    /// it.
    pub(crate) fn extend(&self, scorer: &mut Scorer, codes: &[u8], n_levels: usize) -> Result<(), Error> {
        scorer.tables.resize(n_levels, [f32::NAN; 256]);
        complete(&mut scorer.tables, codes, |at, entries| {
            Ok(self.codebooks.lookup_entries(&self.query, at, entries)?)
        })
    }

    /// Returns 2Δ for scores of coarse tables, or `None` if that is too much for a scan.
    pub(crate) fn margin_of_scan(&self, scorer: &Scorer) -> Option<f32> {
        let mut variance = 0.0f32;
        for table in &scorer.tables {
            let (mut n, mut sum, mut squares) = (0.0, 0.0, 0.0);
            // A quarter of the entries tells enough.
            for entry in table.iter().step_by(4).filter(|entry| !entry.is_nan()) {
                (n, sum, squares) = (n + 1.0, sum + entry, squares + entry * entry);
            }
            variance += if n > 0.0 { (squares - sum * sum / n) / n } else { 0.0 };
        }
        let error = self.codebooks.max_error(&self.query, scorer.n_levels(), Precision::Coarse);
        (error <= MAX_ERROR * f64::from(variance).sqrt()).then(|| self.margin(scorer, Precision::Coarse))
    }

    /// Returns 2Δ for scores of tables of this precision.
    pub(crate) fn margin(&self, scorer: &Scorer, precision: Precision) -> f32 {
        let error = self.codebooks.max_error(&self.query, scorer.n_levels(), precision);
        let (factor, norm) = scorer.norms.map_or((1.0, 0.0), |norms| (2.0, norms.max()));
        // Each addition of a score rounds by at most 2⁻²⁴ of its result.
        let magnitude = factor * self.codebooks.max_magnitude(&self.query, scorer.n_levels()) + norm;
        let rounding = 4.0 * (scorer.n_levels() + 2) as f64 * magnitude / f64::from(1u32 << 24);
        ((2.0 * (factor * error + rounding)) as f32).next_up()
    }
}

/// Computes the entries of `tables` that are NaN and that `codes`, rows of as many levels, need.
/// `compute` writes the entries of some levels and codewords.
fn complete(
    tables: &mut [[f32; 256]],
    codes: &[u8],
    compute: impl Fn(&[(u8, u8)], &mut [f32]) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut at = Vec::new();
    let n_levels = tables.len();
    for (level, table) in (0..=255).zip(&mut *tables) {
        for &codeword in codes.iter().skip(level.into()).step_by(n_levels) {
            let entry = &mut table[usize::from(codeword)];
            if entry.is_nan() {
                // No longer NaN, so that it is needed once.
                *entry = 0.0;
                at.push((level, codeword));
            }
        }
    }
    let mut entries = vec![0.0; at.len()];
    compute(&at, &mut entries)?;
    for ((level, codeword), entry) in at.into_iter().zip(entries) {
        tables[usize::from(level)][usize::from(codeword)] = entry;
    }
    Ok(())
}

impl Index {
    /// Returns the best `k` of the items found, and those that tie with the last of them, by exact
    /// scores of at least `min_score`. `exact` has the length searched. The tables of `coarse` made
    /// the scores of `found`, with `margin`.
    pub(crate) fn refine(
        &self,
        view: &View,
        (found, margin): (Candidates, f32),
        coarse: Coarse,
        exact: &mut Entries,
        best: (usize, f32),
    ) -> Result<Candidates, Error> {
        let (n_levels, norms) = (exact.scorer.n_levels(), exact.scorer.norms);
        let scorer = Scorer { tables: Vec::new(), norms };
        let mut fine = Entries { source: Source::Fine(coarse), scorer };
        fine.set_length(n_levels, norms);
        let approximate = coarse.approximate;
        let fine_margin = approximate.margin(&fine.scorer, Precision::Fine);
        let found = self.rescore(view, (found, margin), Some(approximate), &mut fine, best, fine_margin)?;
        self.rescore(view, (found, fine_margin), None, exact, best, 0.0)
    }

    /// Scores the items found again, by `entries`, whose scores have `new_margin`, as far as they
    /// may be among the best `k`. `coarse` made the scores of `found`, if they are coarse.
    pub(crate) fn rescore(
        &self,
        view: &View,
        (mut found, margin): (Candidates, f32),
        coarse: Option<&Approximate>,
        entries: &mut Entries,
        (k, min_score): (usize, f32),
        new_margin: f32,
    ) -> Result<Candidates, Error> {
        let n_levels = entries.scorer.n_levels();
        // How much less Δ is for a code than for all codes of its length.
        let factor = if entries.scorer.norms.is_some() { 2.0 } else { 1.0 };
        let max_error =
            coarse.map_or(0.0, |of| of.codebooks.max_error(&of.query, n_levels, Precision::Coarse));
        let surplus =
            |code: &[u8]| coarse.map_or(0.0, |of| factor * (max_error - of.codebooks.error(&of.query, code)));
        found.cut();
        let mut runs: Vec<(f32, Range<usize>)> = found.found().collect();
        runs.sort_unstable_by(|a, b| b.0.total_cmp(&a.0));
        let mut best = Candidates::new(k, min_score, new_margin);
        let (mut codes, mut block) = (Vec::new(), Vec::new());
        for (i, (score, items)) in runs.iter().enumerate() {
            // Half of the margin is Δ.
            let max = f64::from(*score) + f64::from(margin) / 2.0;
            // If it does not, none that follows does.
            let reaches = max >= best.threshold.into();
            for listed in split(view, items.clone()).take_while(|_| reaches) {
                let start = codes.len();
                codes.resize(start + n_levels, 0);
                view.known_code(listed.position, &mut codes[start..]);
                if max - surplus(&codes[start..]) >= best.threshold.into() {
                    block.push(listed);
                } else {
                    codes.truncate(start);
                }
            }
            let is_last = !reaches || i + 1 == runs.len();
            if block.len() < BLOCK && !is_last {
                continue;
            }
            entries.compute(&codes)?;
            for (code, Listed { position, items }) in codes.chunks_exact(n_levels).zip(block.drain(..)) {
                best.offer(entries.scorer.code(|level| code[level], position), items);
            }
            codes.clear();
            best.cut();
            if is_last {
                break;
            }
        }
        Ok(best)
    }
}

/// Returns the codes of the items found, without those below the best.
pub(crate) fn list(view: &View, mut found: Candidates) -> Vec<Listed> {
    found.cut();
    found.found().flat_map(|(_, items)| split(view, items)).collect()
}

/// Splits items by their codes. The items of one code are neighbours.
fn split(view: &View, mut items: Range<usize>) -> impl Iterator<Item = Listed> {
    std::iter::from_fn(move || {
        if items.is_empty() {
            return None;
        }
        let position = view.position_of(items.start);
        // In a damaged file, a code may have no items.
        let end = view.items(position..position + 1, &mut view.layout.n_items.clone()).end;
        let end = end.clamp(items.start + 1, items.end);
        let listed = Listed { position, items: items.start..end };
        items.start = end;
        Some(listed)
    })
}

#[cfg(test)]
mod tests {
    use dpq_codebook::{Assignment, CodeLength};

    use super::*;
    use crate::{Metric, SearchOptions};

    #[test]
    fn many_queries_are_scanned_by_approximate_entries() {
        let dim = 128;
        let value =
            |i: u64| (i.wrapping_mul(6_364_136_223_846_793_005) >> 40) as f32 / (1 << 23) as f32 - 1.0;
        let values = (0..4 * 256 * dim as u64).map(|i| value(i * i + 1)).collect();
        let codebooks = Codebooks::new(values, 4, 256, dim, Assignment::Euclidean).unwrap();
        let index =
            Index::builder(&codebooks, &[1, 2, 3, 4].repeat(8)).metric(Metric::Euclidean).build().unwrap();
        let query: Vec<f32> = (0..dim).map(|i| (i as f32).sin()).collect();
        let length = CodeLength::from_levels(4).unwrap();
        assert!(index.rounded(10, length, 1).unwrap().is_none());
        index.search_batch(&query.repeat(20), &SearchOptions::new(1)).unwrap();
        for (k, levels, pays) in [(10, 4, true), (65, 4, false), (10, 2, false)] {
            let length = CodeLength::from_levels(levels).unwrap();
            assert_eq!(index.rounded(k, length, 1).unwrap().is_some(), pays, "k = {k}, {levels} levels");
        }
        let rounded = index.rounded(10, length, 1).unwrap();
        let approximate = Approximate::new(rounded, &query, 4).unwrap().unwrap();
        let table = approximate.codebooks.lookup_tables(&[&approximate.query], length).unwrap().remove(0);
        let norms = index.norms(4).unwrap();
        let margin = approximate.margin_of_scan(&Scorer::new(&table, 4, norms)).unwrap();
        assert!(margin > 0.0 && margin < 10.0, "{margin}");
        // A constant table says that scores do not differ by more than rounding.
        let constant = Scorer { tables: vec![[1.0; 256]; 4], norms };
        assert_eq!(approximate.margin_of_scan(&constant), None);
    }
}
