//! Features of images without labels: those of pretrained weights, or pixels.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use dpq_codebook::{Codebooks, FitOptions, ResidualKMeans};
use dpq_data::{Dataset, ImageShape};
use dpq_model::Weights;
use dpq_server::Features;

use crate::{images, output, weights};

/// The side of images of a pretrained network: a quarter of the work of 224 pixels.
const SIDE: usize = 112;

/// The shape in which images are compared by their pixels.
const PIXELS: ImageShape = ImageShape { channels: 3, height: 16, width: 16 };

/// The maximum number of images that codewords are fitted to.
const MAX_FIT: usize = 20_000;

#[derive(Clone)]
pub(super) struct Plain(Option<std::sync::Arc<Weights>>);

/// Images that could be read.
pub(super) struct Encoded {
    pub(super) codebooks: Codebooks,
    pub(super) codes: Vec<u8>,
    pub(super) names: Vec<String>,
}

impl Plain {
    pub(super) fn new(path: Option<&Path>) -> Result<Self> {
        let open = |path| anyhow::Ok(weights::open(path)?.with_input(SIDE)?);
        Ok(Self(path.map(open).transpose()?.map(std::sync::Arc::new)))
    }

    pub(super) fn name(&self) -> String {
        match &self.0 {
            Some(_) => "without classes: compared by the features of the pretrained network".to_owned(),
            None => "without classes: compared by their pixels, give --weights for better results".to_owned(),
        }
    }

    pub(super) fn shape(&self) -> ImageShape {
        self.0.as_ref().map_or(PIXELS, |weights| images::image_shape(weights.image_shape()))
    }

    fn of(&self, pixels: &[u8]) -> Result<Vec<f32>> {
        Ok(match &self.0 {
            Some(weights) => weights.body(pixels)?,
            None => pixels.iter().map(|&pixel| f32::from(pixel) / 255.0).collect(),
        })
    }

    /// Returns the function that makes features of images.
    pub(super) fn features(&self, max_pixels: u64) -> Box<Features> {
        let plain = self.clone();
        Box::new(move |bytes| {
            let pixels = dpq_data::read_image_bytes(bytes, plain.shape(), max_pixels);
            let features = pixels.map_err(anyhow::Error::from).and_then(|pixels| plain.of(&pixels));
            features.map_err(|error| format!("{error:#}"))
        })
    }

    /// Fits codebooks to the images and encodes them. `dataset` has the shape of this.
    pub(super) fn encode(&self, dataset: Dataset) -> Result<Encoded> {
        let (rows, stop): (Vec<u32>, _) = ((0..dataset.len() as u32).collect(), output::stop_flag()?);
        let (mut features, mut names) = (Vec::new(), Vec::new());
        let bar = output::progress(rows.len(), "features");
        images::for_each_batch(&dataset, &rows, false, |batch| {
            ensure!(!stop.load(std::sync::atomic::Ordering::Relaxed), "interrupted");
            features.extend(self.of(&batch.pixels)?);
            for row in batch.rows {
                let path = dataset.path(row as usize).context("images of a folder have paths")?;
                names.push(path.display().to_string());
            }
            bar.set_position(names.len() as u64);
            Ok(())
        })?;
        bar.finish_and_clear();
        ensure!(!names.is_empty(), "none of the images of {} can be read", dataset.name());
        let (n, dim) = (names.len(), features.len() / names.len());
        let fitted: Vec<f32> = (0..n.min(MAX_FIT))
            .map(|i| i * n / n.min(MAX_FIT))
            .flat_map(|row| &features[row * dim..][..dim])
            .copied()
            .collect();
        let kmeans = ResidualKMeans { n_levels: 4, n_codewords: n.min(256), n_iterations: 25 };
        let options = FitOptions { interrupt: Some(&stop), ..FitOptions::default() };
        let codebooks = kmeans.train_with(&fitted, dim, options)?;
        let codes = codebooks.encode(&features)?;
        Ok(Encoded { codebooks, codes, names })
    }
}
