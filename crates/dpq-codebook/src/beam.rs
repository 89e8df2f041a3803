//! Beam search: codes that look ahead, where greedy ones take the nearest codeword level by level.

use rayon::prelude::*;

use crate::error::check_finite;
use crate::{Assignment, CodeLength, Codebooks, Error};
use search::{Memory, Products, Search};

mod search;

/// Features encoded at a time by one thread.
const CHUNK: usize = 60;

/// Codewords of all levels, at most: their inner products with each other take half a GiB then.
const MAX_CODEWORDS: usize = 1 << 14;

/// How codes are searched for, and what they are to be good at.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Beam<'a> {
    /// Codes that are kept from one level to the next. 1 is greedy encoding.
    pub width: usize,
    /// By length `[L]`, how much its squared error ‖x − x̂^l‖² counts, at least 0. All equal is the paper's sum over
    /// lengths; 0 but for the last is the longest code alone, at the expense of its prefixes. The last is not 0: levels that
    /// no length counts would be arbitrary.
    pub weights: &'a [f32],
}

impl Beam<'_> {
    /// Refuses a beam that does not fit codebooks of that many levels and codewords a level.
    pub(crate) fn check(&self, n_levels: usize, n_codewords: usize) -> Result<(), Error> {
        CodeLength::from_levels(n_levels)?;
        if self.width == 0 {
            return Err(Error::Range { what: "beam width", found: 0, expected: "at least 1".to_owned() });
        }
        if self.weights.len() != n_levels {
            return Err(Error::Length {
                what: "weights",
                found: self.weights.len(),
                expected: format!("{n_levels}, one a length"),
            });
        }
        let found = n_levels * n_codewords;
        if self.width > 1 && found > MAX_CODEWORDS {
            let expected = format!("at most {MAX_CODEWORDS} for a beam");
            return Err(Error::Range { what: "number of codewords of all levels", found, expected });
        }
        check_finite("weights", self.weights)?;
        let last = self.weights.len() - 1;
        let is_wrong = |(at, &weight): (usize, &f32)| weight < 0.0 || at == last && weight == 0.0;
        match self.weights.iter().enumerate().position(is_wrong) {
            Some(position) => Err(Error::Weight { value: self.weights[position], position }),
            None => Ok(()),
        }
    }

    /// The weights divided by their sum, as only their ratios count; none that is above 0 becomes 0.
    pub(crate) fn normalized_weights(&self) -> Vec<f32> {
        let sum: f64 = self.weights.iter().map(|&weight| f64::from(weight)).sum();
        let least = |weight: f32| if weight > 0.0 { f32::MIN_POSITIVE } else { 0.0 };
        self.weights.iter().map(|&weight| ((f64::from(weight) / sum) as f32).max(least(weight))).collect()
    }
}

/// By level, the sum of the weights of the lengths that it is part of.
pub(crate) fn weights_from(weights: &[f32]) -> Vec<f32> {
    (0..weights.len()).map(|level| weights[level..].iter().sum()).collect()
}

impl Codebooks {
    /// Encodes features by beam search: of all continuations of the codes kept at a level, those are kept whose weighted
    /// error up to here, with that of the longer codes as if they left as much, is least.
    ///
    /// Source: faiss's residual quantizer, for the weights of the longest code alone. A width of 1 is
    /// [`encode`](Self::encode). Shapes: features [N, D]; returns codes [N, L]. Takes 2·L·(L − 1)·K² bytes beside. Errors are
    /// differences of sums in f32, so that codes whose errors differ by less than about D·2⁻²⁴ of ‖x‖² are not told apart:
    /// centre features far from the origin. Codes are the same on every CPU. Features whose norm is outside 1e-15 to 1e15 get
    /// the code of [`encode`](Self::encode), and so do all where a codeword's is.
    ///
    /// # Errors
    /// As [`encode`](Self::encode); [`Error::Range`], [`Error::Length`], [`Error::NotFinite`] or [`Error::Weight`] if the
    /// beam does not fit, [`Error::Cosine`] for assignment by cosine with a width above 1.
    pub fn encode_beam(&self, features: &[f32], beam: Beam<'_>) -> Result<Vec<u8>, Error> {
        let codes = |codes: &mut Vec<u8>, _: &[f32], kept: &[u8]| {
            codes.extend_from_slice(&kept[..self.n_levels()]);
        };
        Ok(self.fold_beam(features, beam, codes)?.concat())
    }

    /// Hands each feature [D] and the codes [n, L] that a beam search keeps of it, the best first, to `fold`, with a value for
    /// each piece of the features; returns these in the order of the features.
    pub(crate) fn fold_beam<T: Default + Send>(
        &self,
        features: &[f32],
        beam: Beam<'_>,
        fold: impl Fn(&mut T, &[f32], &[u8]) + Sync,
    ) -> Result<Vec<T>, Error> {
        beam.check(self.n_levels(), self.n_codewords())?;
        if self.assignment() == Assignment::Cosine && beam.width > 1 {
            return Err(Error::Cosine);
        }
        self.check_features(features)?;
        let pieces = features.par_chunks(CHUNK * self.dim());
        let Some(search) = Search::new(self, beam) else {
            let codes = self.encode(features)?;
            let pieces = pieces.zip(codes.par_chunks(CHUNK * self.n_levels()));
            let folded = pieces.map(|(features, codes)| {
                let mut folded = T::default();
                let rows = features.chunks_exact(self.dim()).zip(codes.chunks_exact(self.n_levels()));
                rows.for_each(|(x, code)| fold(&mut folded, x, code));
                folded
            });
            return Ok(folded.collect());
        };
        pieces
            .map_init(
                || (Products::default(), Memory::default()),
                |(products, memory), features| {
                    let mut folded = T::default();
                    search.encode(features, products, memory, |x, kept| fold(&mut folded, x, kept))?;
                    Ok(folded)
                },
            )
            .collect()
    }
}
