//! The definition of a search, in a few lines: score everything, sort everything.

use dpq_index::{Codebooks, Hit, LookupTable, Metric};

/// Returns all items that `passes` lets through in the order score descending (−0.0 equals 0.0),
/// then id ascending.
pub(crate) fn ranking(
    score: impl Fn(&[u8]) -> f32,
    codes: &[u8],
    n_levels: usize,
    ids: &[u64],
    passes: impl Fn(&Hit) -> bool,
) -> Vec<Hit> {
    let hit = |(code, &id)| Hit { id, score: score(code) };
    let mut hits: Vec<Hit> = codes.chunks(n_levels).zip(ids).map(hit).filter(passes).collect();
    hits.sort_by(|a, b| b.score.partial_cmp(&a.score).unwrap().then(a.id.cmp(&b.id)));
    hits
}

/// Returns the score of `code` at `n_levels` levels, as the documentation defines it.
pub(crate) fn score(
    codebooks: &Codebooks,
    metric: Metric,
    table: &LookupTable,
    code: &[u8],
    n_levels: usize,
) -> f32 {
    let entry = |level: usize| table.level(level)[usize::from(code[level])];
    let inner_product = (1..n_levels).fold(entry(0), |sum, level| sum + entry(level));
    if metric == Metric::InnerProduct {
        return inner_product;
    }
    let word = |level: usize| codebooks.codeword(level, usize::from(code[level]));
    let product = |i: usize, j: usize| -> f64 {
        let sum = word(i).iter().zip(word(j)).fold(0.0, |sum, (&a, &b)| sum + f64::from(a) * f64::from(b));
        f64::from(sum as f32)
    };
    let norm = (0..n_levels).fold(0.0, |norm, j| {
        let cross = (0..j).fold(0.0, |sum, i| sum + product(i, j));
        norm + (product(j, j) + 2.0 * cross)
    });
    (2.0 * f64::from(inner_product) - norm) as f32
}
