//! Runs trained networks over any number of inputs.

use std::sync::OnceLock;

use candle_core::{Device, Tensor};
use rayon::prelude::*;

use crate::Error;
use crate::body::{self, Layer, Layers};
use crate::config::{Body, Feature};
use crate::header::Header;
use crate::inputs::Batch;
use crate::network::{self, Heads};
use crate::pass::Pass;
use crate::tensors::Tensors;

/// Maximum number of images that a thread runs at a time. Their activations fit into the cache.
const CHUNK: usize = 32;

/// Number of images that a GPU runs at a time.
const CUDA_CHUNK: usize = 512;

/// The outputs of a network.
#[derive(Clone, Debug, PartialEq)]
pub struct Output {
    /// Features, f32 `[n, D]`.
    pub features: Vec<f32>,
    /// Class logits, f32 `[n, C]`; of a model of pairs C is 0.
    pub logits: Vec<f32>,
}

/// The tensors of a network, prepared for inference when it first runs.
#[derive(Debug, Default)]
pub(crate) struct Folded(OnceLock<Tensors>);

impl Folded {
    fn get(&self, layers: &[Layer], tensors: &Tensors) -> candle_core::Result<&Tensors> {
        match self.0.get() {
            Some(folded) => Ok(folded),
            None => {
                let folded = body::fold(layers, tensors)?;
                Ok(self.0.get_or_init(|| folded))
            }
        }
    }
}

/// Returns the number of images of a chunk on the CPU: of equal chunks, an even number unless one
/// is enough.
fn chunk_of(n_images: usize) -> usize {
    let n_chunks = match n_images.div_ceil(CHUNK) {
        n @ 0..=1 => n,
        n => n.next_multiple_of(2),
    };
    n_images.div_ceil(n_chunks.max(1)).max(1)
}

impl Header {
    /// Runs a batch through the network of `tensors`. Averages over mirror images if the
    /// configuration says so.
    pub(crate) fn forward(
        &self,
        (tensors, folded): (&Tensors, &Folded),
        batch: &Batch,
        device: &Device,
    ) -> Result<Output, Error> {
        let Layers { layers, .. } = Layers::new(&self.train.network, self.image_shape)?;
        let tensors = folded.get(&layers, tensors)?;
        let [features, logits] = self.in_chunks(batch, device, |x| {
            let heads = self.heads(&layers, tensors, x)?;
            Ok([heads.features, heads.logits])
        })?;
        Ok(Output { features, logits })
    }

    fn heads(&self, layers: &[Layer], tensors: &Tensors, x: &Tensor) -> candle_core::Result<Heads> {
        let mut pass = Pass::Inference(tensors);
        let f = body::forward(layers, x, &mut pass)?;
        network::heads(&f, &pass, self.train.network.feature, self.train.unit_parts())
    }

    /// Returns the features of pixels from 0 to 255, `[n, C, H, W]`, with a graph of gradients to
    /// them. Values are those of [`Header::forward`] but for rounding.
    pub(crate) fn features_of_pixels(
        &self,
        (tensors, folded): (&Tensors, &Folded),
        pixels: &Tensor,
    ) -> Result<Tensor, Error> {
        let Layers { layers, .. } = Layers::new(&self.train.network, self.image_shape)?;
        let tensors = folded.get(&layers, tensors)?;
        let channels = |values: &[f32]| Tensor::from_slice(values, (1, values.len(), 1, 1), pixels.device());
        let [mean, deviation] = [channels(&self.mean)?, channels(&self.deviation)?];
        let x = (pixels / 255.0)?.broadcast_sub(&mean)?.broadcast_div(&deviation)?;
        let features = self.heads(&layers, tensors, &x)?.features;
        if !self.train.mirror_average {
            return Ok(features);
        }
        let columns: Vec<u32> = (0..self.image_shape[2] as u32).rev().collect();
        let mirrored = x.index_select(&Tensor::new(columns, pixels.device())?, 3)?;
        Ok(((features + self.heads(&layers, tensors, &mirrored)?.features)? * 0.5)?)
    }

    /// Runs queries through the map of queries, f32 `[n, D]`.
    pub(crate) fn queries(
        &self,
        tensors: &Tensors,
        batch: &Batch,
        device: &Device,
    ) -> Result<Vec<f32>, Error> {
        if self.train.network.feature != Feature::Linear {
            let found = "found a model of single items".to_owned();
            return Err(Error::unfit("queries", found, "one of pairs, which maps queries"));
        }
        let pass = Pass::Inference(tensors);
        let [features] = self.in_chunks(batch, device, |x| Ok([pass.linear(x, "queries", false)?]))?;
        Ok(features)
    }

    /// Runs a batch through the body, f32 `[n, F]`.
    pub(crate) fn body(
        &self,
        (tensors, folded): (&Tensors, &Folded),
        batch: &Batch,
        device: &Device,
    ) -> Result<Vec<f32>, Error> {
        let Layers { layers, .. } = Layers::new(&self.train.network, self.image_shape)?;
        let tensors = folded.get(&layers, tensors)?;
        let body = |x: &Tensor| Ok([body::forward(&layers, x, &mut Pass::Inference(tensors))?]);
        let [f] = self.in_chunks(batch, device, body)?;
        Ok(f)
    }

    fn in_chunks<const N: usize>(
        &self,
        batch: &Batch,
        device: &Device,
        network: impl Fn(&Tensor) -> candle_core::Result<[Tensor; N]> + Sync,
    ) -> Result<[Vec<f32>; N], Error> {
        self.check_batch(batch)?;
        let len: usize = self.image_shape.iter().product();
        let n_images = batch.len() / len;
        let chunk = len * if device.is_cpu() { chunk_of(n_images) } else { CUDA_CHUNK };
        let pass = |begin: usize| -> candle_core::Result<[Vec<f32>; N]> {
            let range = begin..(begin + chunk).min(batch.len());
            let n = range.len() / len;
            // On CUDA the rounding of products depends on their size, so every chunk is full.
            let padded_len = if device.is_cpu() { range.len() } else { chunk };
            let inputs = batch.padded(range, padded_len);
            let mut results = network(&self.input(&inputs, false, device)?)?;
            if self.train.mirror_average {
                let mirrored = network(&self.input(&inputs, true, device)?)?;
                for (result, mirrored) in results.iter_mut().zip(mirrored) {
                    *result = ((&*result + mirrored)? * 0.5)?;
                }
            }
            let mut values = [const { Vec::new() }; N];
            for (values, result) in values.iter_mut().zip(results) {
                *values = result.narrow(0, 0, n)?.flatten_all()?.to_vec1()?;
            }
            Ok(values)
        };
        let begins: Vec<usize> = (0..batch.len()).step_by(chunk).collect();
        let chunks: candle_core::Result<Vec<_>> = match device.is_cpu() {
            true => begins.into_par_iter().map(pass).collect(),
            false => begins.into_iter().map(pass).collect(),
        };
        let mut all = [const { Vec::new() }; N];
        for chunk in chunks? {
            all.iter_mut().zip(chunk).for_each(|(all, values)| all.extend(values));
        }
        Ok(all)
    }

    /// Returns an error unless the batch holds whole inputs of the kind that the network takes.
    pub(crate) fn check_batch(&self, batch: &Batch) -> Result<(), Error> {
        let shape @ [c, h, w] = self.image_shape;
        let (found, is_whole) = (batch.len(), batch.len().is_multiple_of(c * h * w));
        match (batch, self.train.network.body == Body::Features) {
            (Batch::Images(_), true) => Err(Error::TakesFeatures(c)),
            (Batch::Vectors(_), false) => Err(Error::TakesImages(shape)),
            (Batch::Images(_), _) if !is_whole => {
                let expected = format!("images of {c}x{h}x{w} bytes");
                Err(Error::unfit("images", format!("found {found} bytes"), expected))
            }
            (Batch::Vectors(_), _) if !is_whole => Err(Error::rows("features", found, c)),
            _ => batch.check_finite("features", c, 0),
        }
    }
}
