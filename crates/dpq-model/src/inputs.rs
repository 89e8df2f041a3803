//! What goes into a network: images, or vectors that something else made of whatever it was. How they are scaled, and how
//! many of them pass through at a time.

use std::borrow::Cow;
use std::ops::Range;

use candle_core::{Device, Tensor};
use rayon::prelude::*;

use crate::Error;
use crate::body::layers;
use crate::config::Body;
use crate::model::{Header, Output};
use crate::network::{self, Tensors};

/// A batch of inputs, all of one length.
pub(crate) enum Batch<'a> {
    /// u8 `[n, C, H, W]`.
    Images(Cow<'a, [u8]>),
    /// f32 `[n, D]`.
    Vectors(Cow<'a, [f32]>),
}

/// Images that a thread passes through the network at a time: their activations fit the cache.
const CHUNK: usize = 32;

/// Images that a GPU is given at a time.
const CUDA_CHUNK: usize = 512;

impl<'a> Batch<'a> {
    pub(crate) fn images(images: &'a [u8]) -> Self {
        Self::Images(Cow::Borrowed(images))
    }

    pub(crate) fn vectors(vectors: &'a [f32]) -> Self {
        Self::Vectors(Cow::Borrowed(vectors))
    }

    /// How many numbers it holds.
    fn len(&self) -> usize {
        match self {
            Self::Images(images) => images.len(),
            Self::Vectors(vectors) => vectors.len(),
        }
    }

    /// The numbers of that range, and zeros up to a length of `len`.
    fn padded(&self, range: Range<usize>, len: usize) -> Batch<'static> {
        fn padded<T: Copy + Default>(values: &[T], len: usize) -> Cow<'static, [T]> {
            let mut values = values.to_vec();
            values.resize(len, T::default());
            Cow::Owned(values)
        }
        match self {
            Self::Images(images) => Batch::Images(padded(&images[range], len)),
            Self::Vectors(vectors) => Batch::Vectors(padded(&vectors[range], len)),
        }
    }
}

impl Header {
    /// Runs a batch through the network that `tensors` hold, with mirror images averaged in if the configuration says so.
    pub(crate) fn forward(&self, tensors: &Tensors, batch: &Batch, device: &Device) -> Result<Output, Error> {
        let (layers, _) = layers(&self.train.network.body, self.image_shape)?;
        let [features, logits] = self.in_chunks(batch, device, |x| {
            let heads = network::heads(tensors, &network::body(&layers, tensors, x)?)?;
            Ok([heads.features, heads.logits])
        })?;
        Ok(Output { features, logits })
    }

    /// What the body makes of a batch, likewise: f32 `[n, F]`.
    pub(crate) fn body(&self, tensors: &Tensors, batch: &Batch, device: &Device) -> Result<Vec<f32>, Error> {
        let (layers, _) = layers(&self.train.network.body, self.image_shape)?;
        let [f] = self.in_chunks(batch, device, |x| Ok([network::body(&layers, tensors, x)?]))?;
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
        let chunk = len * if device.is_cpu() { CHUNK } else { CUDA_CHUNK };
        let pass = |begin: usize| -> candle_core::Result<[Vec<f32>; N]> {
            let range = begin..(begin + chunk).min(batch.len());
            let n = range.len() / len;
            // Matrix products of another size may round in another way, so every chunk is a full one.
            let inputs = batch.padded(range, chunk);
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

    /// Refuses what is not whole inputs of the kind that the network takes.
    fn check_batch(&self, batch: &Batch) -> Result<(), Error> {
        let [c, h, w] = self.image_shape;
        let is_whole = batch.len().is_multiple_of(c * h * w);
        match (batch, self.train.network.body == Body::Features) {
            (Batch::Images(_), true) => Err(Error::invalid(
                "images",
                format!("found images, the model takes features of {c} numbers that something else made"),
            )),
            (Batch::Vectors(_), false) => Err(Error::invalid(
                "features",
                format!("found features, the model takes images of {c}x{h}x{w} bytes"),
            )),
            (Batch::Images(images), _) if !is_whole => {
                let reason = format!("found {} bytes, expected images of {c}x{h}x{w} bytes", images.len());
                Err(Error::invalid("images", reason))
            }
            (Batch::Vectors(vectors), _) if !is_whole => {
                let reason = format!("found {} numbers, expected rows of {c}", vectors.len());
                Err(Error::invalid("features", reason))
            }
            (Batch::Vectors(vectors), _) => check_finite(vectors, c, 0),
            _ => Ok(()),
        }
    }

    /// A batch as the network takes it: f32 `[n, C, H, W]` of mean 0 and deviation 1 over the training images, or
    /// `[n, D]`, whose deviation is 1 over all dimensions.
    pub(crate) fn input(&self, batch: &Batch, mirror: bool, device: &Device) -> candle_core::Result<Tensor> {
        let [channels, height, width] = self.image_shape;
        let moments = || self.mean.iter().zip(&self.deviation);
        match batch {
            Batch::Vectors(vectors) => {
                let row = |row: &[f32]| -> Vec<f32> {
                    row.iter().zip(moments()).map(|(x, (mean, deviation))| (x - mean) / deviation).collect()
                };
                let values: Vec<f32> = vectors.chunks_exact(channels).flat_map(row).collect();
                Tensor::from_vec(values, (vectors.len() / channels, channels), device)
            }
            Batch::Images(images) => {
                let tables: Vec<[f32; 256]> = moments()
                    .map(|(mean, deviation)| {
                        std::array::from_fn(|pixel| (pixel as f32 / 255.0 - mean) / deviation)
                    })
                    .collect();
                let mut values = Vec::with_capacity(images.len());
                for (plane, pixels) in images.chunks_exact(height * width).enumerate() {
                    let value = |&pixel: &u8| tables[plane % channels][usize::from(pixel)];
                    for row in pixels.chunks_exact(width) {
                        if mirror {
                            values.extend(row.iter().rev().map(value))
                        } else {
                            values.extend(row.iter().map(value))
                        }
                    }
                }
                let n = images.len() / (channels * height * width);
                Tensor::from_vec(values, (n, channels, height, width), device)
            }
        }
    }
}

/// Refuses vectors with numbers that are not finite. `first` is the number of the first row.
fn check_finite(vectors: &[f32], dim: usize, first: usize) -> Result<(), Error> {
    match vectors.iter().position(|x| !x.is_finite()) {
        Some(at) => {
            let (row, column) = (first + at / dim, at % dim);
            let reason = format!("row {row}, column {column} is {}, expected finite numbers", vectors[at]);
            Err(Error::invalid("features", reason))
        }
        None => Ok(()),
    }
}

/// Sums over training inputs.
pub(crate) struct Moments {
    shape: [usize; 3],
    /// Of each channel: sum and sum of squares of the bytes, or of the numbers.
    sums: Vec<[f64; 2]>,
    /// Numbers of a channel.
    n: f64,
    /// What a number is divided by first.
    unit: f64,
    n_rows: usize,
}

impl Moments {
    pub(crate) fn new(shape: [usize; 3]) -> Self {
        Self { shape, sums: vec![[0.0; 2]; shape[0]], n: 0.0, unit: 1.0, n_rows: 0 }
    }

    /// Adds a batch.
    pub(crate) fn add(&mut self, batch: &Batch) -> Result<(), Error> {
        let [channels, height, width] = self.shape;
        match batch {
            Batch::Images(images) => {
                self.unit = 255.0;
                for (plane, pixels) in images.chunks_exact(height * width).enumerate() {
                    let sum: u64 = pixels.iter().map(|&pixel| u64::from(pixel)).sum();
                    let squares: u64 = pixels.iter().map(|&pixel| u64::from(pixel).pow(2)).sum();
                    let [s, q] = &mut self.sums[plane % channels];
                    // Whole numbers below 2⁵³ are exact.
                    (*s, *q) = (*s + sum as f64, *q + squares as f64);
                }
            }
            Batch::Vectors(vectors) => {
                check_finite(vectors, channels, self.n_rows)?;
                for row in vectors.chunks_exact(channels) {
                    for ([s, q], &x) in self.sums.iter_mut().zip(row) {
                        (*s, *q) = (*s + f64::from(x), *q + f64::from(x).powi(2));
                    }
                }
            }
        }
        let n_rows = batch.len() / (channels * height * width);
        self.n_rows += n_rows;
        self.n += (n_rows * height * width) as f64;
        Ok(())
    }

    /// The mean and the standard deviation of each channel, pixels from 0 to 1. Vectors have one deviation, the root of the mean
    /// variance: their dimensions keep their proportions.
    pub(crate) fn finish(&self) -> [Vec<f32>; 2] {
        let mean = |sum: f64| sum / self.n / self.unit;
        let variance = |&[s, q]: &[f64; 2]| q / self.n / self.unit / self.unit - mean(s).powi(2);
        // A channel of one value is left as it is.
        let deviation = |variance: f64| if variance > 1e-12 { variance.sqrt() as f32 } else { 1.0 };
        let variances: Vec<f64> = self.sums.iter().map(variance).collect();
        let deviations = if self.unit == 1.0 {
            vec![deviation(variances.iter().sum::<f64>() / variances.len() as f64); variances.len()]
        } else {
            variances.into_iter().map(deviation).collect()
        };
        [self.sums.iter().map(|&[sum, _]| mean(sum) as f32).collect(), deviations]
    }
}
