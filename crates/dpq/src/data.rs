//! `dpq data`, and what the commands share about images.

mod export;
mod get;
mod images;
mod split;
mod verify;

use anyhow::{Result, ensure};
use clap::Subcommand;
use dpq_data::{Dataset, ImageShape};
use dpq_model::Model;
use dpq_model::config::Body;
use rayon::prelude::*;

use crate::output;

/// Work with data sets
#[derive(Subcommand)]
pub(crate) enum Command {
    Get(get::Args),
    Verify(verify::Args),
    Split(split::Args),
    Export(export::Args),
    Images(images::Args),
}

impl Command {
    pub(crate) fn run(self, json: bool) -> Result<()> {
        match self {
            Self::Get(args) => args.run(json),
            Self::Verify(args) => args.run(json),
            Self::Split(args) => args.run(json),
            Self::Export(args) => args.run(json),
            Self::Images(args) => args.run(json),
        }
    }
}

/// Images that could be read.
pub(crate) struct Batch {
    /// Their rows, in the order asked for.
    pub(crate) rows: Vec<u32>,
    /// u8 [n, C, H, W].
    pub(crate) pixels: Vec<u8>,
}

/// Hands images to `work` in the order of `rows`, a batch at a time, while the next batch is read in parallel.
///
/// At most two batches are held. Images that cannot be read are named on stderr and left out, or end it if `strict`.
pub(crate) fn for_each_batch(
    dataset: &Dataset,
    rows: &[u32],
    strict: bool,
    work: impl FnMut(Batch) -> Result<()> + Send,
) -> Result<()> {
    dpq_model::read_ahead(rows.chunks(BATCH), |rows| read_images(dataset, rows, strict), work)
}

/// Items read at a time.
pub(crate) const BATCH: usize = 512;

/// Reads images in parallel, in the order of `rows`; unreadable ones as [`for_each_batch`] does.
pub(crate) fn read_images(dataset: &Dataset, rows: &[u32], strict: bool) -> Result<Batch> {
    let len = dataset.shape().len();
    let mut pixels = vec![0; rows.len() * len];
    let images = pixels.par_chunks_exact_mut(len).zip(rows);
    let read: Vec<_> = images.map(|(image, &row)| dataset.read(row as usize, image)).collect();
    let mut kept = Vec::with_capacity(rows.len());
    for (i, (&row, read)) in rows.iter().zip(read).enumerate() {
        match read {
            Ok(()) => {
                if kept.len() < i {
                    pixels.copy_within(i * len..(i + 1) * len, kept.len() * len);
                }
                kept.push(row);
            }
            Err(error) if strict => return Err(error.into()),
            Err(error) => output::note(&format!("unreadable: {:#}", anyhow::Error::from(error))),
        }
    }
    pixels.truncate(kept.len() * len);
    Ok(Batch { rows: kept, pixels })
}

/// The shape of the images that a model takes.
pub(crate) fn model_shape(model: &Model) -> Result<ImageShape> {
    let body = &model.config().network.body;
    ensure!(*body != Body::Features, "the model takes {}, give --features", model_inputs(model));
    Ok(image_shape(model.image_shape()))
}

/// A shape `[C, H, W]`.
pub(crate) fn image_shape([channels, height, width]: [usize; 3]) -> ImageShape {
    ImageShape { channels, height, width }
}

/// What a model takes, in words.
pub(crate) fn model_inputs(model: &Model) -> String {
    let shape = image_shape(model.image_shape());
    match model.config().network.body {
        Body::Features => format!("features of {} numbers", shape.channels),
        _ => format!("images of {shape}"),
    }
}
