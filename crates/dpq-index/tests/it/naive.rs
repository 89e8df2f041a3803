//! The definition of a search, in a few lines: score everything, sort everything.

use dpq_index::{Codebooks, Form, Hit, LookupTable, Metric};

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

/// Returns the score of `code` at `n_levels` levels, as the documentation defines it, with norms in
/// units of `unit`.
pub(crate) fn score(
    codebooks: &Codebooks,
    unit: f64,
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
    let square = |x: &[f32]| {
        let mut sums = [0.0f32; 16];
        for (i, x) in x.iter().enumerate() {
            sums[i % 16] = x.mul_add(*x, sums[i % 16]);
        }
        for half in [8, 4, 2, 1] {
            for lane in 0..half {
                sums[lane] += sums[lane + half];
            }
        }
        f64::from(sums[0])
    };
    let word = |level: usize| codebooks.codeword(level, usize::from(code[level]));
    if codebooks.form() == Form::Product {
        let term = |level: usize| (2.0 * f64::from(entry(level)) - square(word(level))) as f32;
        return (1..n_levels).fold(term(0), |sum, level| sum + term(level));
    }
    let decoded = (1..n_levels)
        .fold(word(0).to_vec(), |x, level| x.iter().zip(word(level)).map(|(x, c)| x + c).collect());
    let norm = (square(&decoded) / unit).round() * unit;
    (2.0 * f64::from(inner_product) - norm) as f32
}
