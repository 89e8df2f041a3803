//! `dpq data export`: writes pixels as features.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Result, ensure};
use dpq_data::{Dataset, ImageShape, Split};
use rayon::prelude::*;
use serde::Serialize;

use crate::features::write_features;
use crate::images::{for_each_batch, report_skipped};
use crate::inputs::Source;
use crate::output;

/// Write the pixels of a split as features
///
/// Subtracts the mean image of the training split and scales each image to unit length. The result
/// is a baseline to compare learned features with. Two batches of images are in memory at a time.
/// An interrupted run resumes.
#[derive(clap::Args)]
#[command(
    after_help = "Example:\n  dpq data export --data datasets/fashion-mnist --split gallery --out-dir pixels/gallery"
)]
pub(crate) struct Args {
    /// Data set folder
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Split: train, query or gallery
    #[arg(long, value_parser = |s: &str| s.parse::<Split>())]
    split: Split,
    /// Halve the sides of images until each has at most N values: channels × height × width
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(3..))]
    max_values: Option<u32>,
    /// Stop at the first image that cannot be read, training images included. By default unreadable
    /// images are reported and left out
    #[arg(long)]
    strict: bool,
    /// Output folder for features.npy, ids.npy and labels.npy
    #[arg(long, value_name = "DIR")]
    out_dir: PathBuf,
}

#[derive(Serialize)]
struct Exported {
    items: usize,
    /// Images that could not be read.
    left_out: usize,
    /// The shape of the images, `[C, H, W]`.
    shape: [usize; 3],
    dim: usize,
    seconds: f64,
}

impl Args {
    pub(crate) fn run(self, json: bool) -> Result<()> {
        let start = Instant::now();
        let dataset = Dataset::open(&self.data)?;
        report_skipped(&dataset);
        let shape = at_most(self.max_values.map_or(usize::MAX, |n| n as usize), dataset.shape());
        let dataset = dataset.resized(shape)?;
        let rows = dataset.split(self.split).to_vec();
        let dim = dataset.shape().len();
        let mean = mean_image(&dataset, dataset.split(Split::Train), self.strict)?;

        let _dir = output::ResultDir::create(&self.out_dir)?;
        let mean_bytes: Vec<u8> = mean.iter().flat_map(|x| x.to_le_bytes()).collect();
        let key = format!("pixels {shape} of {:?}, less {:08x}", self.data, dpq_file::crc32c(&mean_bytes));
        let source = Source::Images { dataset: Box::new(dataset), rows, has_names: false };
        let written = write_features(&self.out_dir, &key, &source, dim, self.strict, None, |_, items| {
            let images = items.pixels()?.par_chunks_exact(dim);
            Ok(images.flat_map_iter(|image| feature(image, &mean)).collect())
        })?;
        let exported = Exported {
            items: written.items,
            left_out: written.left_out,
            shape: [shape.channels, shape.height, shape.width],
            dim,
            seconds: output::seconds(start),
        };
        output::print(json, &exported, &exported.text(&self.out_dir))
    }
}

impl Exported {
    fn text(&self, dir: &Path) -> String {
        let text = format!("wrote {} features of {} pixels to {}", self.items, self.dim, dir.display());
        match self.left_out {
            0 => text,
            n => format!("{text}\nleft out {n} unreadable images"),
        }
    }
}

/// Halves the sides of a shape until at most `n` numbers remain.
fn at_most(n: usize, shape: ImageShape) -> ImageShape {
    if shape.len() <= n {
        return shape;
    }
    at_most(n, ImageShape { height: shape.height.div_ceil(2), width: shape.width.div_ceil(2), ..shape })
}

/// Subtracts the mean image from an image and scales the result to unit length.
fn feature(image: &[u8], mean: &[f64]) -> Vec<f32> {
    let mut x: Vec<f32> = image.iter().zip(mean).map(|(&x, mean)| (f64::from(x) - mean) as f32).collect();
    let norm = x.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
    // An image that equals the mean has no direction and stays at the origin.
    if norm > 0.0 {
        x.iter_mut().for_each(|x| *x = (f64::from(*x) / norm) as f32);
    }
    x
}

fn mean_image(dataset: &Dataset, rows: &[u32], strict: bool) -> Result<Vec<f64>> {
    let mut sum = vec![0u64; dataset.shape().len()];
    let mut n = 0;
    for_each_batch(dataset, rows, strict, |batch| {
        n += batch.rows.len();
        for image in batch.pixels.chunks_exact(sum.len()) {
            sum.iter_mut().zip(image).for_each(|(sum, &pixel)| *sum += u64::from(pixel));
        }
        Ok(())
    })?;
    ensure!(n > 0, "none of the {} training images of {} can be read", rows.len(), dataset.name());
    Ok(sum.into_iter().map(|sum| sum as f64 / n as f64).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sides_are_halved_until_the_shape_is_small_enough() {
        let side = |n, side| at_most(n, ImageShape { channels: 3, height: side, width: side }).height;
        assert_eq!([side(4096, 32), side(4096, 64), side(4096, 227), side(3, 227)], [32, 32, 29, 1]);
        assert_eq!(at_most(20, ImageShape { channels: 1, height: 3, width: 40 }).to_string(), "1x1x10");
    }
}
