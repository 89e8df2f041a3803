//! Exact scores of the few codes that a coarse search found.
//!
//! The lookup table of a long code takes most of the time of a search, but the scores of a few
//! codes need only the entries that these codes name. So a search for a query, not for a lookup
//! table, may scan by bounds on entries and compute exact ones for the codes that may be among the
//! best.
//!
//! Let the exact score S of a code lie between L and U, but for rounding by at most r, and L_k be
//! the k-th best L. The k best by L have S ≥ L_k − r, so each of the k best by S has
//! U ≥ L_k − 2r. 2r is the *margin* by which [`Candidates`] keeps more than the bounds say. Where
//! scores are approximate, by at most Δ, they are both bounds, and the margin is 2Δ.

use std::ops::Range;

use dpq_codebook::{CodeLength, Codebooks, LookupTable, RoundedCodebooks, RoundedQuery};

use crate::norms::Norms;
use crate::score::Scorer;
use crate::topk::Candidates;
use crate::view::View;
use crate::{Error, Index};

/// The codes whose entries are computed together.
const BLOCK: usize = 16;

/// The levels from which on a scan by approximate entries pays.
pub(crate) const MIN_APPROXIMATE: usize = 3;

/// The maximum error relative to the standard deviation of scores. With more, a scan by bounds
/// finds too much.
const MAX_ERROR: f64 = 2.0;

/// Approximate entries of the lookup table of a query.
pub(crate) struct Approximate<'a> {
    pub(crate) codebooks: &'a RoundedCodebooks,
    pub(crate) query: RoundedQuery,
}

/// The scores or bounds by which a search scans.
pub(crate) struct Scan<'a> {
    /// Exact scores, or upper bounds.
    pub(crate) scorer: Scorer<'a>,
    /// Lower bounds, unless scores are exact.
    pub(crate) lower: Option<Scorer<'a>>,
    /// 0 if scores are exact.
    pub(crate) margin: f32,
    /// The first levels, whose entries or bounds take the remainders into account already.
    pub(crate) n_fine: usize,
}

/// Bounds of a query, and where their entries come from.
#[derive(Clone, Copy)]
pub(crate) struct Coarse<'a> {
    pub(crate) approximate: &'a Approximate<'a>,
    pub(crate) scan: &'a Scan<'a>,
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

impl<'a> Scan<'a> {
    pub(crate) fn exact(table: &LookupTable, n_levels: usize, norms: Option<Norms<'a>>) -> Self {
        Self { scorer: Scorer::new(table, n_levels, norms), lower: None, margin: 0.0, n_fine: n_levels }
    }

    /// Returns bounds on the score of a code.
    pub(crate) fn bounds(&self, code: impl Fn(usize) -> u8, position: usize) -> [f32; 2] {
        let upper = self.scorer.code(&code, position);
        [self.lower.as_ref().map_or(upper, |lower| lower.code(code, position)), upper]
    }
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
        let tables = &mut self.scorer.tables;
        let at = missing(tables, codes);
        let mut entries = vec![0.0; at.len()];
        match self.source {
            Source::None => {}
            Source::Exact(codebooks, query) => codebooks.lookup_entries(query, &at, &mut entries)?,
            Source::Fine(Coarse { approximate: Approximate { codebooks, query }, scan }) => {
                for (coarse, at) in entries.iter_mut().zip(&at) {
                    let upper = entry(&scan.scorer, at);
                    *coarse = scan.lower.as_ref().map_or(upper, |lower| entry(lower, at).midpoint(upper));
                }
                // Levels ascend.
                let n_fine = at.partition_point(|&(level, _)| usize::from(level) < scan.n_fine);
                codebooks.add_remainders(query, &at[n_fine..], &mut entries[n_fine..])?;
            }
        }
        for ((level, codeword), entry) in at.into_iter().zip(entries) {
            tables[usize::from(level)][usize::from(codeword)] = entry;
        }
        Ok(())
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
        Ok(codebooks.fits(&query, n_levels).then_some(Self { codebooks, query }))
    }

    /// Returns a scan by bounds on entries, or `None` if they are too far apart.
    pub(crate) fn scan<'b>(
        &self,
        bounds: &[LookupTable; 2],
        length: CodeLength,
        norms: Option<Norms<'b>>,
    ) -> Option<Scan<'b>> {
        let [lower, scorer] = bounds.each_ref().map(|table| Scorer::new(table, length.levels(), norms));
        let (mut error, mut variance) = (0.0, 0.0);
        for (lower, upper) in lower.tables.iter().zip(&scorer.tables) {
            let (mut n, mut sum, mut squares) = (0.0, 0.0, 0.0);
            // A quarter of the entries tells enough.
            let entries = lower.iter().zip(upper).step_by(4);
            for (lower, upper) in entries.filter(|(_, upper)| !upper.is_nan()) {
                (n, sum, squares) = (n + 1.0, sum + upper, squares + upper * upper);
                error += (upper - lower) / 128.0;
            }
            variance += if n > 0.0 { (squares - sum * sum / n) / n } else { 0.0 };
        }
        let margin = self.margin(&scorer, 0.0);
        let scan = Scan { scorer, lower: Some(lower), margin, n_fine: self.codebooks.n_fine(length) };
        (f64::from(error) <= MAX_ERROR * f64::from(variance).sqrt()).then_some(scan)
    }

    /// Extends a scan to bounds at a greater length, as far as `codes`, rows of `n_levels`, need
    /// them.
    pub(crate) fn extend<'b>(
        &self,
        Scan { scorer, lower, margin, .. }: &mut Scan<'b>,
        codes: &[u8],
        n_levels: usize,
        norms: Option<Norms<'b>>,
    ) -> Result<(), Error> {
        let lower = lower.get_or_insert_with(|| scorer.shortened(scorer.n_levels()));
        for scorer in [&mut *scorer, &mut *lower] {
            scorer.tables.resize(n_levels, [f32::NAN; 256]);
            scorer.norms = norms;
        }
        let at = missing(&mut scorer.tables, codes);
        let mut bounds = vec![[0.0; 2]; at.len()];
        self.codebooks.lookup_entries(&self.query, &at, &mut bounds)?;
        for ((level, codeword), bounds) in at.into_iter().zip(bounds) {
            for (scorer, bound) in [&mut *lower, &mut *scorer].into_iter().zip(bounds) {
                scorer.tables[usize::from(level)][usize::from(codeword)] = bound;
            }
        }
        *margin = self.margin(scorer, 0.0);
        Ok(())
    }

    /// Returns the margin of scores by entries whose sum has at most this error.
    pub(crate) fn margin(&self, scorer: &Scorer, error: f64) -> f32 {
        let (factor, norm) = scorer.norms.map_or((1.0, 0.0), |norms| (2.0, norms.max()));
        // Each addition of a score, and three for each entry, round by at most 2⁻²⁴ of their
        // results.
        let magnitude = factor * self.codebooks.max_magnitude(&self.query, scorer.n_levels()) + norm;
        let rounding = 4.0 * (scorer.n_levels() + 2) as f64 * magnitude / f64::from(1u32 << 24);
        ((2.0 * (factor * error + rounding)) as f32).next_up()
    }
}

/// Returns the levels and codewords whose entries in `tables` are NaN and that `codes`, rows of as
/// many levels, need. They become 0, so that each is named once.
fn missing(tables: &mut [[f32; 256]], codes: &[u8]) -> Vec<(u8, u8)> {
    let mut at = Vec::new();
    let n_levels = tables.len();
    for (level, table) in (0..=255).zip(tables) {
        for &codeword in codes.iter().skip(level.into()).step_by(n_levels) {
            let entry = &mut table[usize::from(codeword)];
            if entry.is_nan() {
                *entry = 0.0;
                at.push((level, codeword));
            }
        }
    }
    at
}

fn entry(scorer: &Scorer, &(level, codeword): &(u8, u8)) -> f32 {
    scorer.tables[usize::from(level)][usize::from(codeword)]
}

impl Index {
    /// Returns the best `k` of the items found, and those that tie with the last of them, by exact
    /// scores of at least `min_score`. `exact` has the length searched. `found` are upper bounds
    /// by `coarse`.
    pub(crate) fn refine(
        &self,
        view: &View,
        found: Candidates,
        coarse: Coarse,
        exact: &mut Entries,
        best: (usize, f32),
    ) -> Result<Candidates, Error> {
        let (n_levels, norms) = (exact.scorer.n_levels(), exact.scorer.norms);
        let scorer = Scorer { tables: Vec::new(), norms };
        let mut fine = Entries { source: Source::Fine(coarse), scorer };
        fine.set_length(n_levels, norms);
        let Approximate { codebooks, query } = coarse.approximate;
        let margin = coarse.approximate.margin(&fine.scorer, codebooks.max_error(query, n_levels));
        let found = self.rescore(view, (found, coarse.scan.margin), &mut fine, best, margin)?;
        self.rescore(view, (found, margin), exact, best, 0.0)
    }

    /// Scores the items found again, by `entries`, whose scores have `new_margin`, as far as they
    /// may be among the best `k`.
    pub(crate) fn rescore(
        &self,
        view: &View,
        (mut found, margin): (Candidates, f32),
        entries: &mut Entries,
        (k, min_score): (usize, f32),
        new_margin: f32,
    ) -> Result<Candidates, Error> {
        let n_levels = entries.scorer.n_levels();
        found.cut();
        let mut runs: Vec<(f32, Range<usize>)> = found.found().collect();
        runs.sort_unstable_by(|a, b| b.0.total_cmp(&a.0));
        let mut best = Candidates::new(k, min_score, new_margin);
        let (mut codes, mut block) = (Vec::new(), Vec::new());
        for (i, (score, items)) in runs.iter().enumerate() {
            // Half of the margin is the error. If this code does not reach the threshold, none that
            // follows does.
            let reaches = f64::from(*score) + f64::from(margin) / 2.0 >= best.threshold.into();
            for listed in split(view, items.clone()).take_while(|_| reaches) {
                let start = codes.len();
                codes.resize(start + n_levels, 0);
                view.known_code(listed.position, &mut codes[start..]);
                block.push(listed);
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
    use dpq_codebook::Assignment;

    use super::*;
    use crate::{Metric, SearchOptions};

    #[test]
    fn many_queries_are_scanned_by_approximate_entries() {
        let dim = 512;
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
        let mut bounds =
            approximate.codebooks.lookup_bounds(&[&approximate.query], length).unwrap().remove(0);
        let norms = index.norms(4).unwrap();
        let scan = approximate.scan(&bounds, length, norms).unwrap();
        assert!(scan.margin > 0.0 && scan.margin < 0.1, "{}", scan.margin);
        // Tables without variance say that scores do not differ by more than rounding.
        for (table, entry) in bounds.iter_mut().zip([0.9, 1.0]) {
            *table = LookupTable::new(vec![entry; 4 * 256], 4, 256).unwrap();
        }
        assert!(approximate.scan(&bounds, length, norms).is_none());
    }
}
