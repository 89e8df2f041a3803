//! Adversarial queries: images that differ by a little, and whose features search elsewhere.
//!
//! Source: Feng, Chen, Dai and Xia, *Adversarial Attack on Deep Product Quantization Network for
//! Image Retrieval* (AAAI 2020). The choice of a codeword has no gradient, so the attack follows
//! the distribution of the choice at each level: P_l(x)_k = softmax_k(β · cos(r^l, c_lk)). The
//! paper's codebooks are product codebooks, where r^l is a part of x. In progressive form it is x
//! less the codewords of the unchanged image at the levels before l.

use std::fmt;
use std::str::FromStr;

use candle_core::{D, Result as TensorResult, Tensor, Var};
use rayon::prelude::*;

use crate::Error;
use crate::inputs::Batch;
use crate::model::Model;
use crate::ops::backward;
use crate::quantize::cosines;
use crate::rng::{Stream, mix, rng, uniform};

/// β. The paper does not state it.
const SHARPNESS: f64 = 10.0;

/// The sum of the lengths of all steps, as a multiple of ε (Madry et al. 2018). The paper does not
/// state the length of a step.
const REACH: f32 = 2.5;

/// Number of images that are attacked at a time.
const CHUNK: usize = 32;

/// The quantity that an attack makes large, for an image x and the changed image x'.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttackLoss {
    /// Σ_l KL(P_l(x) ‖ P_l(x')): the whole distribution moves (the paper's AOD).
    Aod,
    /// −Σ_l log P_l(x')_k, where k is the codeword of x: its probability falls (the paper's APD).
    Apd,
    /// ‖f(x') − f(x)‖²: the feature moves, whatever the codewords are.
    Basic,
}

/// An attack by projected gradient signs from a random start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attack {
    /// The loss.
    pub loss: AttackLoss,
    /// The maximum change of a byte of an image, ε.
    pub epsilon: u8,
    /// Number of steps.
    pub steps: usize,
    /// The level, counted from 0, whose choice is attacked; `None` for all.
    pub level: Option<usize>,
    /// Seed of the random start.
    pub seed: u64,
}

impl Attack {
    /// Returns images whose every byte is moved by ε up or down at random: noise as large as the
    /// attack. `rows` tell the images apart, u8 `[n, …]`, and decide the noise of each.
    ///
    /// # Errors
    /// [`Error::Unfit`] unless `images` holds as many images as `rows`.
    pub fn noise(&self, images: &[u8], rows: &[u32]) -> Result<Vec<u8>, Error> {
        let epsilon = f32::from(self.epsilon);
        self.moved(images, rows, 0, |random| if random < 0.5 { -epsilon } else { epsilon })
            .map(|pixels| pixels.into_iter().map(|pixel| pixel as u8).collect())
    }

    /// Adds a function of a random number in [0, 1) to each pixel.
    fn moved(
        &self,
        images: &[u8],
        rows: &[u32],
        use_of: usize,
        change: impl Fn(f32) -> f32 + Sync,
    ) -> Result<Vec<f32>, Error> {
        if rows.is_empty() || !images.len().is_multiple_of(rows.len()) {
            let found = format!("found {} bytes for {} rows", images.len(), rows.len());
            return Err(Error::unfit("images", found, "an image for each row"));
        }
        let mut pixels = vec![0.0; images.len()];
        let len = images.len() / rows.len();
        let pairs = pixels.par_chunks_mut(len.max(1)).zip(images.par_chunks(len.max(1))).zip(rows);
        pairs.for_each(|((pixels, image), &row)| {
            let mut rng = rng(mix(self.seed, &[row as usize, use_of]), Stream::Attack);
            for (pixel, &byte) in pixels.iter_mut().zip(image) {
                *pixel = (f32::from(byte) + change(uniform(&mut rng) as f32)).clamp(0.0, 255.0);
            }
        });
        Ok(pixels)
    }

    /// Moves pixels by a step along the signs of the gradient, no further than ε from the image.
    fn step(&self, pixels: &mut [f32], image: &[u8], gradient: &[f32]) {
        let (epsilon, step) = (f32::from(self.epsilon), REACH * f32::from(self.epsilon) / self.steps as f32);
        for ((pixel, &byte), &slope) in pixels.iter_mut().zip(image).zip(gradient) {
            let sign = f32::from(i8::from(slope > 0.0) - i8::from(slope < 0.0));
            let byte = f32::from(byte);
            *pixel = (*pixel + step * sign).clamp(byte - epsilon, byte + epsilon).clamp(0.0, 255.0);
        }
    }

    fn check(&self, n_levels: usize) -> Result<(), Error> {
        if self.steps == 0 {
            return Err(Error::unfit("steps", "found 0 steps".to_owned(), "at least 1"));
        }
        match (self.level, self.loss) {
            (Some(level), _) if level >= n_levels => Err(Error::unfit(
                "level",
                format!("found level {level}"),
                format!("one of {n_levels} from 0"),
            )),
            (Some(_), AttackLoss::Basic) => {
                let found = "found a level for loss basic, which knows no codewords".to_owned();
                Err(Error::unfit("level", found, "loss aod or apd"))
            }
            _ => Ok(()),
        }
    }
}

/// The images of a batch before the attack.
struct Clean {
    /// f32 `[n, D]`.
    features: Tensor,
    /// u32 `[n]` per level.
    codes: Vec<Tensor>,
    /// f32 `[L, K, D]`, or `[L, K, D/L]` of product codebooks.
    codebook: Tensor,
}

impl Clean {
    /// Returns log P_l(x), `[n, K]` per level.
    fn log_probabilities(&self, x: &Tensor) -> TensorResult<Vec<Tensor>> {
        let (_, _, width) = self.codebook.dims3()?;
        let is_product = width != x.dim(1)?;
        let mut residual = x.clone();
        let mut levels = Vec::new();
        for (level, codes) in self.codes.iter().enumerate() {
            let codewords = self.codebook.get(level)?;
            if is_product {
                residual = x.narrow(1, level * width, width)?.contiguous()?;
            }
            levels.push(log_softmax(&(cosines(&residual, &codewords)? * SHARPNESS)?)?);
            if !is_product {
                residual = (residual - codewords.index_select(codes, 0)?)?;
            }
        }
        Ok(levels)
    }

    /// Returns the loss of an attack that has moved the features to `x`, a scalar: the sum over the
    /// batch.
    fn loss(&self, x: &Tensor, loss: AttackLoss, level: Option<usize>) -> TensorResult<Tensor> {
        if loss == AttackLoss::Basic {
            return (x - &self.features)?.sqr()?.sum_all();
        }
        let (before, after) = (self.log_probabilities(&self.features)?, self.log_probabilities(x)?);
        let mut sum = Tensor::zeros((), x.dtype(), x.device())?;
        for (at, (before, after)) in before.iter().zip(&after).enumerate() {
            if level.is_some_and(|level| level != at) {
                continue;
            }
            let term = match loss {
                AttackLoss::Apd => after.gather(&self.codes[at].unsqueeze(1)?, 1)?.neg()?,
                _ => (before.exp()? * (before - after)?)?,
            };
            sum = (sum + term.sum_all()?)?;
        }
        Ok(sum)
    }
}

fn log_softmax(logits: &Tensor) -> TensorResult<Tensor> {
    let logits = logits.broadcast_sub(&logits.detach().max_keepdim(D::Minus1)?)?;
    logits.broadcast_sub(&logits.exp()?.sum_keepdim(D::Minus1)?.log()?)
}

impl Model {
    /// Changes images u8 `[n, C, H, W]` so that their features search elsewhere. No byte changes by
    /// more than ε. `rows` tell the images apart and decide the random start of each.
    ///
    /// # Errors
    /// Those of [`Model::forward`], and [`Error::Unfit`] unless `images` holds as many images as
    /// `rows`, and unless the steps and the level exist.
    pub fn attack(&self, images: &[u8], rows: &[u32], attack: &Attack) -> Result<Vec<u8>, Error> {
        attack.check(self.codebooks.n_levels())?;
        self.header.check_batch(&Batch::Images(images.into()))?;
        // The start: anywhere within ε.
        let epsilon = f32::from(attack.epsilon);
        let mut pixels = attack.moved(images, rows, 1, |random| epsilon * (2.0 * random - 1.0))?;
        let len = images.len() / rows.len();
        let attack = |(pixels, images): (&mut [f32], &[u8])| self.attack_chunk(pixels, images, attack);
        if self.device.is_cpu() {
            let chunks = pixels.par_chunks_mut(CHUNK * len).zip(images.par_chunks(CHUNK * len));
            chunks.try_for_each(attack)?;
        } else {
            pixels.chunks_mut(CHUNK * len).zip(images.chunks(CHUNK * len)).try_for_each(attack)?;
        }
        // Rounding keeps to ε, which is a whole number.
        Ok(pixels.into_iter().map(|pixel| pixel.round() as u8).collect())
    }

    fn attack_chunk(&self, pixels: &mut [f32], images: &[u8], attack: &Attack) -> Result<(), Error> {
        let clean = self.clean(images)?;
        let [channels, height, width] = self.header.image_shape;
        let n = clean.features.dim(0)?;
        for _ in 0..attack.steps {
            let values = Tensor::from_slice(pixels, (n, channels, height, width), &self.device)?;
            let changed = Var::from_tensor(&values)?;
            let features = self.header.features_of_pixels((&self.tensors, &self.folded), &changed)?;
            let loss = clean.loss(&features, attack.loss, attack.level)?;
            let gradients = backward(&loss)?;
            let Some(gradient) = gradients.get(&changed) else { continue };
            let gradient: Vec<f32> = gradient.flatten_all()?.to_vec1()?;
            attack.step(pixels, images, &gradient);
        }
        Ok(())
    }

    fn clean(&self, images: &[u8]) -> Result<Clean, Error> {
        let features = self.forward(images)?.features;
        let (n_levels, dim) = (self.codebooks.n_levels(), self.codebooks.dim());
        let codes = self.encode(&features)?;
        let n = codes.len() / n_levels;
        let level = |level: usize| -> TensorResult<Tensor> {
            let codes: Vec<u32> =
                codes.iter().skip(level).step_by(n_levels).map(|&code| code.into()).collect();
            Tensor::from_vec(codes, n, &self.device)
        };
        let codes = (0..n_levels).map(level).collect::<TensorResult<_>>()?;
        let codebook = Tensor::from_slice(self.codebooks.values(), &self.codebooks.shape(), &self.device)?;
        Ok(Clean { features: Tensor::from_vec(features, (n, dim), &self.device)?, codes, codebook })
    }
}

impl FromStr for AttackLoss {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match text {
            "aod" => Ok(Self::Aod),
            "apd" => Ok(Self::Apd),
            "basic" => Ok(Self::Basic),
            _ => Err(Error::unfit("loss", format!("found `{text}`"), "aod, apd or basic")),
        }
    }
}

impl fmt::Display for AttackLoss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Aod => "aod",
            Self::Apd => "apd",
            Self::Basic => "basic",
        })
    }
}

#[cfg(test)]
mod tests;
