//! `dpq data`, and what the commands share about images.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::Result;
use clap::Subcommand;
use dpq_data::{Dataset, ImageShape, Split};
use dpq_model::Model;
use rayon::prelude::*;
use serde::Serialize;

use crate::{npy, output};

/// Work with data sets
#[derive(Subcommand)]
pub(crate) enum Command {
    Export(ExportArgs),
}

/// Write the pixels of a split as features
///
/// Pixels are centred by the mean image of the training split and scaled to unit length: the features of a network that
/// does nothing, to compare with.
#[derive(clap::Args)]
#[command(
    after_help = "Example:\n  dpq data export --data datasets/fashion-mnist --split gallery --out-dir pixels/gallery"
)]
pub(crate) struct ExportArgs {
    /// A data set folder
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Which split: train, query or gallery
    #[arg(long, value_parser = |s: &str| s.parse::<Split>())]
    split: Split,
    /// Folder for features.npy, ids.npy and labels.npy
    #[arg(long, value_name = "DIR")]
    out_dir: PathBuf,
}

#[derive(Serialize)]
struct Exported {
    items: usize,
    dim: usize,
    seconds: f64,
}

impl Command {
    pub(crate) fn run(self, json: bool) -> Result<()> {
        let Self::Export(args) = self;
        args.run(json)
    }
}

impl ExportArgs {
    fn run(self, json: bool) -> Result<()> {
        let start = Instant::now();
        let dataset = Dataset::open(&self.data)?;
        let rows = dataset.split(self.split);
        let dim = dataset.shape().len();
        let mean = mean_image(&dataset, dataset.split(Split::Train))?;

        let mut features = Vec::with_capacity(rows.len() * dim);
        for batch in rows.chunks(BATCH) {
            features.extend(read_images(&dataset, batch)?.into_iter().map(f32::from));
        }
        features.par_chunks_exact_mut(dim).for_each(|x| {
            x.iter_mut().zip(&mean).for_each(|(x, mean)| *x = (f64::from(*x) - mean) as f32);
            let norm = x.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
            // An image that equals the mean has no direction and stays at the origin.
            if norm > 0.0 {
                x.iter_mut().for_each(|x| *x = (f64::from(*x) / norm) as f32);
            }
        });

        let ids: Vec<u64> = rows.iter().map(|&row| row.into()).collect();
        output::create_dir(&self.out_dir)?;
        npy::write(&self.out_dir.join("features.npy"), &[rows.len(), dim], &features)?;
        npy::write(&self.out_dir.join("ids.npy"), &[rows.len()], &ids)?;
        npy::write(
            &self.out_dir.join("labels.npy"),
            &[rows.len(), dataset.n_classes()],
            &dataset.multi_hot(rows),
        )?;
        let exported = Exported { items: rows.len(), dim, seconds: output::seconds(start) };
        let text = format!("wrote {} features of {dim} pixels to {}", rows.len(), self.out_dir.display());
        output::print(json, &exported, &text)
    }
}

/// Images read in parallel at a time.
const BATCH: usize = 1024;

/// Reads images in parallel: u8 [n, C, H, W].
pub(crate) fn read_images(dataset: &Dataset, rows: &[u32]) -> Result<Vec<u8>> {
    let len = dataset.shape().len();
    let mut images = vec![0; rows.len() * len];
    images
        .par_chunks_exact_mut(len)
        .zip(rows)
        .try_for_each(|(image, &row)| dataset.read(row as usize, image))?;
    Ok(images)
}

fn mean_image(dataset: &Dataset, rows: &[u32]) -> Result<Vec<f64>> {
    let mut sum = vec![0u64; dataset.shape().len()];
    for batch in rows.chunks(BATCH) {
        for image in read_images(dataset, batch)?.chunks_exact(sum.len()) {
            sum.iter_mut().zip(image).for_each(|(sum, &pixel)| *sum += u64::from(pixel));
        }
    }
    Ok(sum.into_iter().map(|sum| sum as f64 / rows.len() as f64).collect())
}

/// The shape of the images that a model takes.
pub(crate) fn model_shape(model: &Model) -> ImageShape {
    let [channels, height, width] = model.image_shape();
    ImageShape { channels, height, width }
}
