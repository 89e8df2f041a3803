//! The configuration in a model file or a checkpoint.

use candle_core::Device;
use dpq_file::Container;
use serde::{Deserialize, Serialize};

use crate::body::Layers;
use crate::config::Feature;
use crate::network;
use crate::tensors::{self, Shapes, Tensors};
use crate::{Error, TrainConfig};

/// The metadata `config` of a file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Header {
    pub(crate) train: TrainConfig,
    /// `[C, H, W]` of images, `[D, 1, 1]` of stored features.
    pub(crate) image_shape: [usize; 3],
    pub(crate) n_classes: usize,
    /// Mean of each channel over the training inputs, for pixels from 0 to 1.
    pub(crate) mean: Vec<f32>,
    /// Standard deviation of each channel.
    pub(crate) deviation: Vec<f32>,
}

impl Header {
    /// Returns an error for values that no training writes, so that a damaged file cannot ask for
    /// huge tensors.
    pub(crate) fn check(&self) -> Result<(), Error> {
        self.train.check()?;
        let [channels, height, width] = self.image_shape;
        let finite = |values: &[f32]| values.len() == channels && values.iter().all(|x| x.is_finite());
        let feature = &self.train.network.feature;
        let n_classes = if feature.has_classifier() { self.n_classes } else { 1 };
        let sizes = [channels, height, width, n_classes];
        // Pairs have no classes.
        if (self.n_classes == 0 || *feature != Feature::Linear)
            && finite(&self.mean)
            && finite(&self.deviation)
            && self.deviation.iter().all(|&x| x > 0.0)
            && sizes.iter().all(|size| (1..=1 << 16).contains(size))
            && Layers::new(&self.train.network, self.image_shape).is_ok()
        {
            Ok(())
        } else {
            Err(Error::Config { key: "config", expected: "shapes and moments that training writes" })
        }
    }

    pub(crate) fn to_json(&self) -> String {
        serde_json::to_string(self).expect("a configuration is JSON")
    }

    /// Returns the names and shapes of the tensors of the body and of the heads.
    pub(crate) fn shapes(&self) -> Result<[Shapes; 2], Error> {
        network::shapes(&self.train.network, self.image_shape, self.n_classes)
    }

    /// Reads the tensors of the network, each in the shape of the configuration.
    pub(crate) fn read_tensors(
        &self,
        file: &Container,
        prefix: &str,
        device: &Device,
    ) -> Result<Tensors, Error> {
        tensors::read(file, prefix, self.shapes()?.into_iter().flatten().collect(), device)
    }
}
