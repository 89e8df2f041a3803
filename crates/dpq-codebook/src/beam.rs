//! Beam search: codes that look ahead, where greedy encoding takes the nearest codeword level by
//! level.

use std::sync::atomic::AtomicBool;

use rayon::prelude::*;

use crate::error::{MAX_VALUES, check_finite, check_size};
use crate::norm::squared_norm;
use crate::options::check_interrupt;
use crate::{Assignment, CodeLength, Codebooks, Error, Expected};
use search::{Products, Scratch, Search};

mod search;

/// The number of features that a thread encodes at a time.
const CHUNK: usize = 60;

/// The maximum number of codewords of all levels. Their inner products with each other then take
/// half a GiB.
const MAX_CODEWORDS: usize = 1 << 14;

/// The maximum squared error of a code that a level is fitted to, relative to the best code's. A
/// larger ratio lowers the error at the longest lengths and raises it at short lengths. With few
/// codewords it raises the error at all lengths.
const MAX_ERROR_RATIO: f64 = 1.25;

/// How beam search finds codes, and which errors it minimizes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Beam<'a> {
    /// The number of codes kept from one level to the next. 1 is greedy encoding.
    pub width: usize,
    /// The weight of each length's squared error ‖x − x̂^l‖², f32 `[L]`, at least 0. Only their
    /// ratios count. Equal weights are the paper's sum over lengths. Weights of 0 except for the
    /// last minimize the error of the longest code alone, at the expense of its prefixes. The last
    /// weight must be above 0, or the last levels would be arbitrary.
    pub weights: &'a [f32],
}

impl Beam<'_> {
    /// Refuses a beam that does not fit codebooks of `n_levels` levels and `n_codewords` codewords
    /// per level.
    pub(crate) fn check(&self, n_levels: usize, n_codewords: usize) -> Result<(), Error> {
        CodeLength::from_levels(n_levels)?;
        Expected::Range(1..=usize::MAX).check("beam width", self.width)?;
        Expected::Shape(vec![n_levels]).check("weights", self.weights.len())?;
        if self.width > 1 {
            Expected::Range(0..=MAX_CODEWORDS)
                .check("number of codewords of a beam", n_levels * n_codewords)?;
            // No more codes are kept than there are prefixes, each with the costs of all its
            // continuations.
            let n_prefixes = n_codewords.saturating_pow(n_levels as u32 - 1);
            check_size("the beam", self.width.min(n_prefixes), n_codewords, MAX_VALUES)?;
        }
        check_finite("weights", self.weights)?;
        let last = self.weights.len() - 1;
        let is_wrong = |(at, &weight): (usize, &f32)| weight < 0.0 || at == last && weight == 0.0;
        match self.weights.iter().enumerate().position(is_wrong) {
            Some(position) => Err(Error::Weight(self.weights[position], position)),
            None => Ok(()),
        }
    }

    /// Returns the weights divided by their sum. A weight above 0 stays above 0.
    pub(crate) fn normalized_weights(&self) -> Vec<f32> {
        let sum: f64 = self.weights.iter().map(|&weight| f64::from(weight)).sum();
        let minimum = |weight: f32| if weight > 0.0 { f32::MIN_POSITIVE } else { 0.0 };
        self.weights.iter().map(|&weight| ((f64::from(weight) / sum) as f32).max(minimum(weight))).collect()
    }
}

/// Returns, by level, the sum of the weights of the lengths that include it.
pub(crate) fn weights_from(weights: &[f32]) -> Vec<f32> {
    (0..weights.len()).map(|level| weights[level..].iter().sum()).collect()
}

impl Codebooks {
    /// Encodes features by beam search. At each level it considers all continuations of the codes
    /// kept so far and keeps those of the lowest weighted error, counting longer codes as if they
    /// left the same error.
    ///
    /// Source: faiss's residual quantizer, for the weights of the longest code alone. A width of 1
    /// is [`encode`](Self::encode). Shapes: features [N, D]; returns codes [N, L]. Takes 2·L·(L −
    /// 1)·K² bytes of memory.
    ///
    /// Errors are differences of sums in f32. Codes whose errors differ by less than about D·2⁻²⁴
    /// of ‖x‖² count as equal, so centre features that lie far from the origin. Codes are the same
    /// on every CPU. Features whose norm is outside 1e-15 to 1e15 get the code of
    /// [`encode`](Self::encode). So do all features if a codeword has such a norm.
    ///
    /// # Errors
    /// As [`encode`](Self::encode), also for the beam's width and weights. [`Error::Weight`] for
    /// weights out of range. [`Error::Cosine`] for assignment by cosine and [`Error::Product`] for
    /// product codebooks, with a width above 1.
    pub fn encode_beam(&self, features: &[f32], beam: Beam<'_>) -> Result<Vec<u8>, Error> {
        self.encode_beam_until(features, beam, None)
    }

    pub(crate) fn encode_beam_until(
        &self,
        features: &[f32],
        beam: Beam<'_>,
        interrupt: Option<&AtomicBool>,
    ) -> Result<Vec<u8>, Error> {
        let codes = |codes: &mut Vec<u8>, _: &[f32], kept: &[u8]| {
            codes.extend_from_slice(&kept[..self.n_levels()]);
        };
        Ok(self.fold_beam(features, beam, interrupt, &mut Vec::new(), codes)?.concat())
    }

    /// Returns the sum of squared errors of the best code of each feature, and the residuals [m,
    /// D], by feature, of each code that is among the first `n_kept` and nearly as good as the
    /// best.
    ///
    /// `gram` holds the products of the first levels, which a caller who adds levels keeps.
    pub(crate) fn beam_residuals(
        &self,
        features: &[f32],
        beam: Beam<'_>,
        n_kept: usize,
        gram: &mut Vec<Vec<f32>>,
        interrupt: Option<&AtomicBool>,
    ) -> Result<(f64, Vec<f32>), Error> {
        let fold = |(sum, residuals): &mut (f64, Vec<f32>), x: &[f32], codes: &[u8]| {
            let mut best = f64::INFINITY;
            for (i, code) in codes.chunks_exact(self.n_levels()).take(n_kept).enumerate() {
                let at = residuals.len();
                residuals.extend_from_slice(x);
                for (level, &codeword) in code.iter().enumerate() {
                    self.subtract(&mut residuals[at..], level, codeword);
                }
                let error = squared_norm(&residuals[at..]);
                if i == 0 {
                    best = error;
                    *sum += error;
                } else if error > MAX_ERROR_RATIO * best {
                    residuals.truncate(at);
                }
            }
        };
        let (sums, residuals): (Vec<f64>, Vec<Vec<f32>>) =
            self.fold_beam(features, beam, interrupt, gram, fold)?.into_iter().unzip();
        Ok((sums.iter().sum(), residuals.concat()))
    }

    /// Calls `fold` with each feature [D] and the codes [n, L] that a beam search keeps of it, best
    /// first, and with a value per chunk of features. Returns these values in the order of the
    /// features.
    pub(crate) fn fold_beam<T: Default + Send>(
        &self,
        features: &[f32],
        beam: Beam<'_>,
        interrupt: Option<&AtomicBool>,
        gram: &mut Vec<Vec<f32>>,
        fold: impl Fn(&mut T, &[f32], &[u8]) + Sync,
    ) -> Result<Vec<T>, Error> {
        beam.check(self.n_levels(), self.n_codewords())?;
        if beam.width > 1 {
            self.check_progressive()?;
        }
        if self.assignment() == Assignment::Cosine && beam.width > 1 {
            return Err(Error::Cosine);
        }
        self.check_features(features)?;
        let chunks = features.par_chunks(CHUNK * self.dim());
        let Some(search) = Search::new(self, beam, gram) else {
            let codes = self.encode_until(features, interrupt)?;
            let chunks = chunks.zip(codes.par_chunks(CHUNK * self.n_levels()));
            let folded = chunks.map(|(features, codes)| {
                let mut folded = T::default();
                let rows = features.chunks_exact(self.dim()).zip(codes.chunks_exact(self.n_levels()));
                rows.for_each(|(x, code)| fold(&mut folded, x, code));
                folded
            });
            return Ok(folded.collect());
        };
        chunks
            .map_init(
                || (Products::default(), Scratch::default()),
                |(products, scratch), features| {
                    check_interrupt(interrupt)?;
                    let mut folded = T::default();
                    search.encode(features, products, scratch, |x, kept| fold(&mut folded, x, kept))?;
                    Ok(folded)
                },
            )
            .collect()
    }
}
