//! What training learns from: inputs and labels, checked against the configuration and read by rows.

use std::borrow::Cow;

use candle_core::{DType, Device};
use rayon::prelude::*;

use crate::body::layers;
use crate::config::{Body, Start, TrainConfig};
use crate::inputs::Batch;
use crate::loss::Labels;
use crate::{BoxError, Error, Weights};

/// Inputs and labels to learn from. The caller reads and augments; this crate says what and with which seed.
pub struct TrainSet<'a> {
    /// Training items.
    pub n_items: usize,
    /// Their classes, multi-hot u8 `[n_items, n_classes]`.
    pub labels: &'a [u8],
    /// Classes.
    pub n_classes: usize,
    /// Whether items may have several classes: the classifier then has a sigmoid for each, else one softmax. Training items
    /// alone do not tell.
    pub multi_label: bool,
    /// Vectors of the classes, f32 `[n_classes, D]` with the D of the feature; none for random, near-orthogonal ones.
    pub embeddings: Option<&'a [f32]>,
    /// Images or features.
    pub inputs: Inputs<'a>,
    /// Where the body starts, and how images are scaled; none for random weights and the moments of training images.
    pub weights: Option<&'a Weights>,
}

/// What the network learns from. Each is read by its row in 0..n_items, and by the seed of its augmentation, none for none.
pub enum Inputs<'a> {
    /// Images.
    Images {
        /// `[C, H, W]`.
        shape: [usize; 3],
        /// Writes an image, u8 `[C, H, W]`.
        read: &'a Read<'a, u8>,
    },
    /// Features that something else made, for a network whose body is [`Body::Features`].
    Features {
        /// Their length, D.
        dim: usize,
        /// Writes a row, f32 `[D]`.
        read: &'a Read<'a, f32>,
    },
}

/// Reads the input of a row, augmented as a seed decides if there is one.
pub type Read<'a, T> = dyn Fn(usize, Option<u64>, &mut [T]) -> Result<(), BoxError> + Sync + 'a;

impl Inputs<'_> {
    /// `[C, H, W]`, or `[D, 1, 1]`.
    pub(crate) fn shape(&self) -> [usize; 3] {
        match *self {
            Self::Images { shape, .. } => shape,
            Self::Features { dim, .. } => [dim, 1, 1],
        }
    }
}

impl TrainSet<'_> {
    pub(crate) fn check(&self, config: &TrainConfig) -> Result<(), Error> {
        let expected = self.n_items * self.n_classes;
        if self.n_items < 2 || self.n_classes == 0 {
            let reason =
                format!("found {} items of {} classes, expected some of each", self.n_items, self.n_classes);
            return Err(Error::invalid("training set", reason));
        }
        if self.labels.len() != expected || self.labels.iter().any(|&label| label > 1) {
            let reason = format!("found {} values, expected {expected} that are 0 or 1", self.labels.len());
            return Err(Error::invalid("labels", reason));
        }
        let unlabelled = self.labels.chunks_exact(self.n_classes).position(|row| !row.contains(&1));
        if let Some(row) = unlabelled {
            return Err(Error::invalid("labels", format!("item {row} has none, expected at least one")));
        }
        let n_labels = |row: &[u8]| row.iter().filter(|&&label| label == 1).count();
        let several = self.labels.chunks_exact(self.n_classes).position(|row| n_labels(row) > 1);
        if let Some(row) = several.filter(|_| !self.multi_label) {
            let reason = format!("item {row} has several, expected one each unless `multi_label` is set");
            return Err(Error::invalid("labels", reason));
        }
        if let Some(vectors) = self.embeddings {
            let (n, dim) = (self.n_classes, config.network.dim);
            if n.checked_mul(dim) != Some(vectors.len()) {
                let reason =
                    format!("found {} values, expected {n} classes × {dim} dimensions", vectors.len());
                return Err(Error::invalid("label embeddings", reason));
            }
            let bad = |v: &[f32]| v.iter().any(|v| !v.is_finite()) || v.iter().all(|&v| v == 0.0);
            if let Some(class) = vectors.chunks_exact(dim).position(bad) {
                let reason = format!("that of class {class} is 0 or not finite, expected a direction");
                return Err(Error::invalid("label embeddings", reason));
            }
        }
        let shape = self.inputs.shape();
        let takes_features = config.network.body == Body::Features;
        if takes_features != matches!(self.inputs, Inputs::Features { .. }) {
            let reason = "expected `features` for features that something else made, another for images";
            return Err(Error::invalid("network.body", reason));
        }
        if shape.contains(&0) {
            return Err(Error::invalid("input shape", format!("found {shape:?}, expected no 0")));
        }
        layers(&config.network.body, shape)?;
        if let Some(weights) = self.weights {
            let (body, [c, h, w]) = (weights.body_config(), weights.image_shape());
            if (&config.network.body, shape) != (body, [c, h, w]) {
                let reason = format!(
                    "found those of {body:?} for images of {c}x{h}x{w}, expected those of `network.body` for {shape:?}"
                );
                return Err(Error::invalid("weights", reason));
            }
        }
        let fits = config.quantizer.start == Start::ResidualKmeans;
        if fits && self.n_items < config.quantizer.codewords {
            let reason = format!(
                "found {}, expected at most the {} training items",
                config.quantizer.codewords, self.n_items
            );
            return Err(Error::invalid("quantizer.codewords", reason));
        }
        Ok(())
    }

    /// Names labels, embeddings and weights, so that no run goes on from the checkpoint of other ones.
    pub(crate) fn fingerprint(&self) -> String {
        let vectors = bytes(self.embeddings.unwrap_or_default());
        let crc = dpq_file::crc32c_append(dpq_file::crc32c(self.labels), &vectors);
        let weights = self.weights.map(|weights| format!(", weights {}", weights.fingerprint()));
        let multi_label = if self.multi_label { ", multi-label" } else { "" };
        format!("{} items, {crc:08x}{multi_label}{}", self.n_items, weights.unwrap_or_default())
    }

    /// What the model's file says of the label embeddings.
    pub(crate) fn describe_embeddings(&self) -> String {
        match self.embeddings {
            Some(vectors) => format!("given, crc32c {:08x}", dpq_file::crc32c(&bytes(vectors))),
            None => "seeded".to_owned(),
        }
    }

    /// Reads the inputs of `rows`, in parallel.
    pub(crate) fn read(
        &self,
        rows: &[usize],
        seed: &(dyn Fn(usize) -> Option<u64> + Sync),
    ) -> Result<Batch<'static>, Error> {
        fn all<T: Copy + Default + Send>(
            rows: &[usize],
            len: usize,
            read: impl Fn(usize, &mut [T]) -> Result<(), BoxError> + Sync,
        ) -> Result<Cow<'static, [T]>, Error> {
            let mut values = vec![T::default(); rows.len() * len];
            values
                .par_chunks_exact_mut(len)
                .zip(rows)
                .try_for_each(|(out, &row)| read(row, out).map_err(|source| Error::Input { row, source }))?;
            Ok(Cow::Owned(values))
        }
        let len = self.inputs.shape().iter().product();
        Ok(match self.inputs {
            Inputs::Images { read, .. } => {
                Batch::Images(all(rows, len, |row, out| read(row, seed(row), out))?)
            }
            Inputs::Features { read, .. } => {
                Batch::Vectors(all(rows, len, |row, out| read(row, seed(row), out))?)
            }
        })
    }

    /// Returns the labels of `rows`.
    pub(crate) fn labels_of(&self, rows: &[usize], device: &Device) -> candle_core::Result<Labels> {
        let c = self.n_classes;
        let labels: Vec<u8> = rows.iter().flat_map(|row| &self.labels[row * c..][..c]).copied().collect();
        Labels::new(&labels, c, DType::F32, device)
    }

    /// Rows read at a time where all are read.
    pub(crate) fn pieces(&self) -> impl Iterator<Item = Vec<usize>> {
        let n = self.n_items;
        (0..n).step_by(512).map(move |begin| (begin..(begin + 512).min(n)).collect())
    }
}

fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|x| x.to_le_bytes()).collect()
}
