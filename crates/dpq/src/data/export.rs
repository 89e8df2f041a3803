//! `dpq data export`: pixels as features.

use std::io;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::Result;
use dpq_data::{Dataset, ImageShape, Split};
use rayon::prelude::*;
use serde::Serialize;

use super::for_each_batch;
use crate::{npy, output};

/// Write the pixels of a split as features
///
/// Pixels are centred by the mean image of the training split and scaled to unit length: the features of a network that
/// does nothing, to compare with. A batch of images is held at a time.
#[derive(clap::Args)]
#[command(
    after_help = "Example:\n  dpq data export --data datasets/fashion-mnist --split gallery --out-dir pixels/gallery"
)]
pub(crate) struct Args {
    /// A data set folder
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Which split: train, query or gallery
    #[arg(long, value_parser = |s: &str| s.parse::<Split>())]
    split: Split,
    /// Halve the sides of images, and again, until they are of N numbers at most
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(3..))]
    at_most: Option<u32>,
    /// Folder for features.npy, ids.npy and labels.npy
    #[arg(long, value_name = "DIR")]
    out_dir: PathBuf,
}

#[derive(Serialize)]
struct Exported {
    items: usize,
    /// Of the images, `[C, H, W]`.
    shape: [usize; 3],
    dim: usize,
    seconds: f64,
}

impl Args {
    pub(crate) fn run(self, json: bool) -> Result<()> {
        let start = Instant::now();
        let dataset = Dataset::open(&self.data)?;
        let shape = at_most(self.at_most.map_or(usize::MAX, |n| n as usize), dataset.shape());
        let dataset = dataset.resized(shape)?;
        let rows = dataset.split(self.split);
        let dim = dataset.shape().len();
        let mean = mean_image(&dataset, dataset.split(Split::Train))?;

        output::create_dir(&self.out_dir)?;
        let bar = output::progress(rows.len(), "exporting");
        dpq_file::write_atomic(&self.out_dir.join("features.npy"), |out| {
            out.write_all(&npy::header_bytes::<f32>(&[rows.len(), dim])?)?;
            let written = for_each_batch(&dataset, rows, true, |batch| {
                let images = batch.pixels.par_chunks_exact(dim);
                let features: Vec<Vec<f32>> = images.map(|image| feature(image, &mean)).collect();
                let bytes: Vec<u8> = features.iter().flatten().flat_map(|x| x.to_le_bytes()).collect();
                bar.inc(batch.rows.len() as u64);
                Ok(out.write_all(&bytes)?)
            });
            written.map_err(io::Error::other)
        })?;
        bar.finish_and_clear();
        let ids: Vec<u64> = rows.iter().map(|&row| row.into()).collect();
        npy::write(&self.out_dir.join("ids.npy"), &[rows.len()], &ids)?;
        npy::write(
            &self.out_dir.join("labels.npy"),
            &[rows.len(), dataset.n_classes()],
            &dataset.multi_hot(rows),
        )?;
        let shape = [shape.channels, shape.height, shape.width];
        let exported = Exported { items: rows.len(), shape, dim, seconds: output::seconds(start) };
        let text = format!("wrote {} features of {dim} pixels to {}", rows.len(), self.out_dir.display());
        output::print(json, &exported, &text)
    }
}

/// The shape after as many halvings as leave at most `n` numbers.
fn at_most(n: usize, shape: ImageShape) -> ImageShape {
    if shape.len() <= n {
        return shape;
    }
    at_most(n, ImageShape { height: shape.height.div_ceil(2), width: shape.width.div_ceil(2), ..shape })
}

/// The pixels of an image less those of the mean image, scaled to unit length.
fn feature(image: &[u8], mean: &[f64]) -> Vec<f32> {
    let mut x: Vec<f32> = image.iter().zip(mean).map(|(&x, mean)| (f64::from(x) - mean) as f32).collect();
    let norm = x.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
    // An image that equals the mean has no direction and stays at the origin.
    if norm > 0.0 {
        x.iter_mut().for_each(|x| *x = (f64::from(*x) / norm) as f32);
    }
    x
}

fn mean_image(dataset: &Dataset, rows: &[u32]) -> Result<Vec<f64>> {
    let mut sum = vec![0u64; dataset.shape().len()];
    for_each_batch(dataset, rows, true, |batch| {
        for image in batch.pixels.chunks_exact(sum.len()) {
            sum.iter_mut().zip(image).for_each(|(sum, &pixel)| *sum += u64::from(pixel));
        }
        Ok(())
    })?;
    Ok(sum.into_iter().map(|sum| sum as f64 / rows.len() as f64).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sides_are_halved_as_often_as_it_takes() {
        let side = |n, side| at_most(n, ImageShape { channels: 3, height: side, width: side }).height;
        assert_eq!([side(4096, 32), side(4096, 64), side(4096, 227), side(3, 227)], [32, 32, 29, 1]);
        assert_eq!(at_most(20, ImageShape { channels: 1, height: 3, width: 40 }).to_string(), "1x1x10");
    }
}
