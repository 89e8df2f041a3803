//! How all commands read images.

use anyhow::{Result, ensure};
use dpq_codebook::Codebooks;
use dpq_data::{Dataset, ImageShape};
use dpq_model::config::Body;
use dpq_model::{Model, read_ahead};
use rayon::prelude::*;

use crate::output;

pub(crate) struct Batch {
    /// The rows of the images, in the requested order.
    pub(crate) rows: Vec<u32>,
    /// u8 `[n, C, H, W]`.
    pub(crate) pixels: Vec<u8>,
}

/// Calls `work` with batches of images in the order of `rows`. The next batch is read in parallel
/// meanwhile.
///
/// At most two batches are in memory. Images that cannot be read are reported on stderr and left
/// out. If `strict`, the first of them is an error.
pub(crate) fn for_each_batch(
    dataset: &Dataset,
    rows: &[u32],
    strict: bool,
    work: impl FnMut(Batch) -> Result<()> + Send,
) -> Result<()> {
    read_ahead(rows.chunks(BATCH), |rows| read_images(dataset, rows, strict), work)
}

pub(crate) const BATCH: usize = 512;

/// Reads images in parallel, in the order of `rows`. Unreadable images are treated as by
/// [`for_each_batch`].
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

/// Reports on stderr how many files of an image folder are not images, by extension.
pub(crate) fn report_skipped(dataset: &Dataset) {
    if let Some(skipped) = skipped_text(dataset) {
        output::note(&format!("{}: {skipped}", dataset.name()));
    }
}

pub(crate) fn skipped_text(dataset: &Dataset) -> Option<String> {
    let kinds: Vec<_> = dataset.skipped().iter().map(|(kind, n)| format!("{n} {kind}")).collect();
    (!kinds.is_empty()).then(|| {
        format!("skipped files that are not PNG, JPEG, WebP, GIF, BMP or TIFF: {}", kinds.join(", "))
    })
}

/// Refuses a model that did not make the codes of an index with these codebooks.
pub(crate) fn check_model(model: &Model, codebooks: &Codebooks) -> Result<()> {
    let (found, expected) = (model.codebooks().fingerprint(), codebooks.fingerprint());
    ensure!(
        found == expected,
        "the model has codebooks {found}, the index was built with {expected}: give the model that made its codes"
    );
    Ok(())
}

pub(crate) fn model_shape(model: &Model) -> Result<ImageShape> {
    let body = &model.config().network.body;
    ensure!(*body != Body::Features, "the model takes {}, give --features", model_inputs(model));
    Ok(image_shape(model.image_shape()))
}

pub(crate) fn image_shape([channels, height, width]: [usize; 3]) -> ImageShape {
    ImageShape { channels, height, width }
}

pub(crate) fn model_inputs(model: &Model) -> String {
    let shape = image_shape(model.image_shape());
    match model.config().network.body {
        Body::Features => format!("features of {} numbers", shape.channels),
        _ => format!("images of {shape}"),
    }
}
