//! The inputs of a network, images or stored features, and their scaling.

use std::borrow::Cow;
use std::ops::Range;

use candle_core::{Device, Tensor};

use crate::Error;
use crate::header::Header;

/// A batch of inputs.
pub(crate) enum Batch<'a> {
    /// u8 `[n, C, H, W]`.
    Images(Cow<'a, [u8]>),
    /// f32 `[n, D]`.
    Vectors(Cow<'a, [f32]>),
}

impl Batch<'_> {
    /// Returns the number of bytes or numbers.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Images(images) => images.len(),
            Self::Vectors(vectors) => vectors.len(),
        }
    }

    /// Copies a range and appends zeros up to a length of `len`.
    pub(crate) fn padded(&self, range: Range<usize>, len: usize) -> Batch<'static> {
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

    /// Returns an error if a vector of the argument `what` holds a number that is not finite.
    /// `first` is the number of the first row.
    pub(crate) fn check_finite(&self, what: &'static str, dim: usize, first: usize) -> Result<(), Error> {
        let Self::Vectors(vectors) = self else { return Ok(()) };
        match vectors.iter().position(|x| !x.is_finite()) {
            Some(at) => {
                let found = format!("row {}, column {} is {}", first + at / dim, at % dim, vectors[at]);
                Err(Error::unfit(what, found, "finite numbers"))
            }
            None => Ok(()),
        }
    }
}

impl Header {
    /// Scales a batch for the network: images to f32 `[n, C, H, W]` with mean 0 and deviation 1 per
    /// channel over the training images, vectors to `[n, D]` with mean 0 per dimension and
    /// deviation 1 over all. Images are mirrored if `mirror` is set.
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

/// Sums over the training inputs, from which their moments follow.
pub(crate) struct Moments {
    shape: [usize; 3],
    /// Per channel: the sum and the sum of squares of bytes or numbers.
    sums: Vec<[f64; 2]>,
    /// Number of values per channel.
    n: f64,
    /// The divisor of a value: 255 for bytes.
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
                    // Integers below 2⁵³ are exact.
                    (*s, *q) = (*s + sum as f64, *q + squares as f64);
                }
            }
            Batch::Vectors(vectors) => {
                batch.check_finite("features", channels, self.n_rows)?;
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

    /// Returns the mean and the standard deviation of each channel, for pixels from 0 to 1. All
    /// dimensions of vectors have the same deviation, the root of their mean variance, so that they
    /// keep their proportions.
    pub(crate) fn finish(&self) -> [Vec<f32>; 2] {
        let mean = |sum: f64| sum / self.n / self.unit;
        let variance = |&[s, q]: &[f64; 2]| q / self.n / self.unit / self.unit - mean(s).powi(2);
        // A constant channel is not scaled.
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
