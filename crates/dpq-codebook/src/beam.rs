//! Beam search: codes that look ahead, where greedy ones take the nearest codeword level by level.

use rayon::prelude::*;

use crate::error::check_finite;
use crate::norm::{is_ordinary, squared_norm};
use crate::{Assignment, Codebooks, Error};
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

    /// By level, the sum of the weights of the lengths that it is part of.
    pub(crate) fn weights_from(&self) -> Vec<f32> {
        weights_from(self.weights)
    }

    /// The weights for codes that end with `level`, as if the longer ones left as much.
    pub(crate) fn weights_up_to(&self, level: usize) -> Vec<f32> {
        let last = self.weights[level..].iter().sum();
        self.weights[..level].iter().copied().chain([last]).collect()
    }
}

fn weights_from(weights: &[f32]) -> Vec<f32> {
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
        self.encode_kept(features, beam, 1)
    }

    /// The codes that a beam search keeps, the `n_kept` best of them, the best first: [N, n_kept, L]. Where there are fewer,
    /// the best stands in for those missing.
    pub(crate) fn encode_kept(
        &self,
        features: &[f32],
        beam: Beam<'_>,
        n_kept: usize,
    ) -> Result<Vec<u8>, Error> {
        beam.check(self.n_levels(), self.n_codewords())?;
        if self.assignment() == Assignment::Cosine && beam.width > 1 {
            return Err(Error::Cosine);
        }
        let are_ordinary = self.values().chunks_exact(self.dim()).map(squared_norm).all(is_ordinary);
        if beam.width == 1 || !are_ordinary {
            let codes = self.encode(features)?;
            return Ok(codes.chunks_exact(self.n_levels()).flat_map(|code| code.repeat(n_kept)).collect());
        }
        let n = self.check_features(features)?;
        let search = Search::new(self, beam);
        let mut codes = vec![0; n * n_kept * self.n_levels()];
        codes
            .par_chunks_mut(CHUNK * n_kept * self.n_levels())
            .zip(features.par_chunks(CHUNK * self.dim()))
            .try_for_each_init(
            || (Products::default(), Memory::default()),
            |(products, memory), (codes, features)| search.encode(features, n_kept, products, memory, codes),
        )?;
        Ok(codes)
    }
}
