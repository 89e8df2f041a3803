//! Scores of codes that lie elsewhere, for those who scan them on their own.

use dpq_codebook::{CodeLength, LookupTable};

use crate::Error;
use crate::score::Scorer;

/// Codes that lie somewhere else than in an index.
#[derive(Clone, Copy, Debug)]
pub enum Codes<'a> {
    /// Row-major, u8 `[N, L]`, as encoding gives them.
    Rows(&'a [u8]),
    /// One u8 `[N]` a level.
    Planes(&'a [&'a [u8]]),
}

/// Writes the inner products of a query and N codes at `length`, the very scores that searching an index gives them.
///
/// Shapes: table `[L, K]`, with L the levels of [`Codes::Rows`]; `scores` `[N]`. [`Codes::Planes`] are as many as `length` has
/// levels, or more.
///
/// ```
/// use dpq_codebook::{CodeLength, LookupTable};
/// use dpq_index::{Codes, score_block};
///
/// let table = LookupTable::new(vec![1.0, 2.0, /* level 1 */ 0.25, 0.5], 2, 2)?;
/// let mut scores = [0.0; 2];
/// score_block(&table, Codes::Rows(&[0, 1, 1, 0]), CodeLength::from_bits(16)?, &mut scores)?;
/// assert_eq!(scores, [1.5, 2.25]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`Error::Search`] if a shape does not fit, or a byte is no codeword.
pub fn score_block(
    table: &LookupTable,
    codes: Codes,
    length: CodeLength,
    scores: &mut [f32],
) -> Result<(), Error> {
    let (levels, n) = (length.levels(), scores.len());
    let error = |reason: String| Err(Error::Search { reason });
    if levels > table.n_levels() {
        return error(format!(
            "the length is {length}, but the lookup table has {} levels",
            table.n_levels()
        ));
    }
    let scorer = Scorer::new(table, levels, None);
    match codes {
        Codes::Rows(codes) => {
            if codes.len() != n * table.n_levels() {
                return error(format!(
                    "there are {} bytes of codes, expected {n} rows of {}",
                    codes.len(),
                    table.n_levels()
                ));
            }
            scorer.strided(&rows(codes, levels), table.n_levels(), scores);
        }
        Codes::Planes(planes) => {
            if planes.len() < levels || planes[..levels].iter().any(|plane| plane.len() != n) {
                let found: Vec<usize> = planes.iter().map(|plane| plane.len()).collect();
                return error(format!("there are planes of {found:?} codes, expected {levels} of {n}"));
            }
            scorer.strided(&planes[..levels], 1, scores);
        }
    }
    // Entries of a table are finite, so only the padding behind the codewords makes a sum NaN.
    match scores.iter().position(|score| score.is_nan()) {
        None => Ok(()),
        Some(at) => error(format!(
            "code {at} has a byte that is no codeword, the lookup table has {} codewords",
            table.n_codewords()
        )),
    }
}

/// Returns the levels of row-major codes, each from its first byte on.
pub(crate) fn rows(codes: &[u8], n_levels: usize) -> Vec<&[u8]> {
    (0..n_levels).map(|level| codes.get(level..).unwrap_or_default()).collect()
}
