//! `dpq data export`: pixels as features.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::Result;
use dpq_data::{Dataset, Split};
use rayon::prelude::*;
use serde::Serialize;

use super::for_each_batch;
use crate::{npy, output};

/// Write the pixels of a split as features
///
/// Pixels are centred by the mean image of the training split and scaled to unit length: the features of a network that
/// does nothing, to compare with.
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

impl Args {
    pub(crate) fn run(self, json: bool) -> Result<()> {
        let start = Instant::now();
        let dataset = Dataset::open(&self.data)?;
        let rows = dataset.split(self.split);
        let dim = dataset.shape().len();
        let mean = mean_image(&dataset, dataset.split(Split::Train))?;

        let mut features = Vec::with_capacity(rows.len() * dim);
        for_each_batch(&dataset, rows, true, |batch| {
            features.extend(batch.pixels.into_iter().map(f32::from));
            Ok(())
        })?;
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
