//! The training set: inputs, read by row, and labels.

use std::borrow::Cow;
use std::fmt;

use candle_core::{DType, Device};
use rayon::prelude::*;

use crate::body::Layers;
use crate::config::{Body, Feature, Moments, Start, TrainConfig};
use crate::inputs::Batch;
use crate::loss::Labels;
use crate::tensors::bytes;
use crate::{BoxError, Error, Weights};

/// Inputs and labels to train on. The caller reads and augments inputs; training chooses the rows
/// and the seeds.
pub struct TrainSet<'a> {
    /// Number of training items.
    pub n_items: usize,
    /// The classes of the items, multi-hot u8 `[n_items, n_classes]`.
    pub labels: &'a [u8],
    /// Number of classes.
    pub n_classes: usize,
    /// Whether items may have several classes. The classifier then has one sigmoid per class, else
    /// one softmax. The training items alone do not show it: other items of the data set may have
    /// several.
    pub multi_label: bool,
    /// Vectors of the classes, f32 `[n_classes, D]` with the dimension of a feature, or `None` for
    /// random, nearly orthogonal vectors.
    pub embeddings: Option<&'a [f32]>,
    /// Images or stored features.
    pub inputs: Inputs<'a>,
    /// Pretrained weights of the body with the scaling of their images, or `None` for random
    /// weights and scaling by the moments of the training images.
    pub weights: Option<&'a Weights>,
}

/// The inputs of the network, read by their row in 0..n_items.
pub enum Inputs<'a> {
    /// Images.
    Images {
        /// `[C, H, W]`.
        shape: [usize; 3],
        /// Writes an image, u8 `[C, H, W]`; in the epochs of `network.first_input` one of its
        /// side, as the length of the slice tells.
        read: &'a Read<'a, u8>,
    },
    /// Stored features, for a network whose body is [`Body::Features`].
    Features {
        /// Dimension, D.
        dim: usize,
        /// Writes a row, f32 `[D]`.
        read: &'a Read<'a, f32>,
    },
}

/// Reads the input of a row. With a seed the input is augmented, and the seed decides how.
pub type Read<'a, T> = dyn Fn(usize, Option<u64>, &mut [T]) -> Result<(), BoxError> + Sync + 'a;

impl fmt::Debug for Inputs<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if let Self::Images { .. } = self { "Images" } else { "Features" };
        f.debug_tuple(kind).field(&self.shape()).finish()
    }
}

impl Inputs<'_> {
    /// `[C, H, W]`, or `[D, 1, 1]`.
    pub(crate) fn shape(&self) -> [usize; 3] {
        match *self {
            Self::Images { shape, .. } => shape,
            Self::Features { dim, .. } => [dim, 1, 1],
        }
    }
}

impl fmt::Debug for TrainSet<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { n_items, n_classes, multi_label, inputs, .. } = self;
        let mut out = f.debug_struct("TrainSet");
        out.field("n_items", n_items).field("n_classes", n_classes).field("multi_label", multi_label);
        out.field("inputs", inputs).finish_non_exhaustive()
    }
}

impl TrainSet<'_> {
    /// Returns an error if the set does not fit the configuration, whatever its labels are.
    pub(crate) fn check(&self, config: &TrainConfig) -> Result<(), Error> {
        let (n_items, n_classes, dim) = (self.n_items, self.n_classes, config.network.dim);
        if n_items < 2 || n_classes == 0 {
            let found = format!("found {n_items} items of {n_classes} classes");
            return Err(Error::unfit("training set", found, "at least 2 of 1"));
        }
        if let Some(vectors) = self.embeddings {
            let refused = |found, expected| Err(Error::unfit("label embeddings", found, expected));
            if n_classes.checked_mul(dim) != Some(vectors.len()) {
                let expected = format!("{n_classes} classes × {dim} dimensions");
                return refused(format!("found {} values", vectors.len()), expected);
            }
            let bad = |v: &[f32]| v.iter().any(|v| !v.is_finite()) || v.iter().all(|&v| v == 0.0);
            if let Some(class) = vectors.chunks_exact(dim).position(bad) {
                let found = format!("the vector of class {class} is 0 or not finite");
                return refused(found, "a direction".to_owned());
            }
        }
        let (body, shape) = (&config.network.body, self.inputs.shape());
        if (*body == Body::Features) != matches!(self.inputs, Inputs::Features { .. }) {
            let expected = "`features` for stored features, another body for images";
            return Err(Error::Config { key: "network.body", expected });
        }
        if shape.contains(&0) {
            return Err(Error::TooSmall(shape));
        }
        let layers = Layers::new(body, shape)?;
        let first = Layers::new(body, config.shape_in(0, shape))?;
        if !layers.shapes().eq(first.shapes()) {
            let expected = "none, for a body with linear layers, which fix the size of images";
            return Err(Error::Config { key: "network.first_input", expected });
        }
        let n_stages = layers.stages.len();
        if config.network.freeze > n_stages {
            let expected = format!("at most the {n_stages} stages of the body");
            return Err(Error::unfit("network.freeze", format!("found {}", config.network.freeze), expected));
        }
        if let Some(side) = config.network.input.filter(|&side| shape[1..] != [side; 2]) {
            let expected = format!("the size of images, {}x{}", shape[1], shape[2]);
            return Err(Error::unfit("network.input", format!("found {side}"), expected));
        }
        if config.network.feature != Feature::Tanh && self.multi_label {
            let expected = "`tanh` for items of several labels, which have no posterior";
            return Err(Error::Config { key: "network.feature", expected });
        }
        if config.network.moments == Moments::Stored && self.weights.is_none() {
            return Err(Error::Config {
                key: "network.moments",
                expected: "`batch` without pretrained weights",
            });
        }
        if let Some(weights) = self.weights {
            let found = (weights.body_config(), weights.image_shape());
            if found != (body, shape) {
                let name =
                    |(body, [c, h, w]): (&Body, [usize; 3])| format!("{body:?} for images of {c}x{h}x{w}");
                return Err(Error::unfit("weights", format!("found {}", name(found)), name((body, shape))));
            }
        }
        let n_codewords = config.quantizer.codewords;
        if config.quantizer.start == Start::ResidualKmeans && n_items < n_codewords {
            let (found, expected) = (
                format!("found {n_codewords}"),
                format!(
                    "at most the {n_items} training items, give \
                    --set quantizer.codewords={n_items} or less"
                ),
            );
            return Err(Error::unfit("quantizer.codewords", found, expected));
        }
        Ok(())
    }

    /// Returns an error unless each item has labels, and only one unless the set is multi-label.
    pub(crate) fn check_labels(&self) -> Result<(), Error> {
        let (n_values, n_items, n_classes) = (self.labels.len(), self.n_items, self.n_classes);
        let refused = |found, expected: String| Err(Error::unfit("labels", found, expected));
        if n_items.checked_mul(n_classes) != Some(n_values) || self.labels.iter().any(|&label| label > 1) {
            let expected = format!("{n_items} × {n_classes} that are 0 or 1");
            return refused(format!("found {n_values} values"), expected);
        }
        for (item, row) in self.labels.chunks_exact(n_classes).enumerate() {
            let found = row.iter().filter(|&&label| label == 1).count();
            if found == 0 || found > 1 && !self.multi_label {
                let expected = if found == 0 { "at least 1" } else { "1 unless `multi_label` is set" };
                return refused(format!("item {item} has {found}"), expected.to_owned());
            }
        }
        Ok(())
    }

    /// Identifies labels, embeddings and weights, so that no run resumes from a checkpoint of
    /// others.
    pub(crate) fn fingerprint(&self) -> String {
        let vectors = bytes(self.embeddings.unwrap_or_default());
        let crc = dpq_file::crc32c_append(dpq_file::crc32c(self.labels), &vectors);
        let weights = self.weights.map(|weights| format!(", weights {}", weights.fingerprint()));
        let multi_label = if self.multi_label { ", multi-label" } else { "" };
        format!("{} items, {crc:08x}{multi_label}{}", self.n_items, weights.unwrap_or_default())
    }

    /// Describes the label embeddings for the model file.
    pub(crate) fn describe_embeddings(&self) -> String {
        match self.embeddings {
            Some(vectors) => format!("given, crc32c {:08x}", dpq_file::crc32c(&bytes(vectors))),
            None => "seeded".to_owned(),
        }
    }

    /// Reads the inputs of `rows` in parallel, in `shape`.
    pub(crate) fn read(
        &self,
        rows: &[usize],
        shape: [usize; 3],
        seed: &(dyn Fn(usize) -> Option<u64> + Sync),
    ) -> Result<Batch<'static>, Error> {
        fn all<T: Copy + Default + Send>(
            rows: &[usize],
            len: usize,
            seed: &(dyn Fn(usize) -> Option<u64> + Sync),
            read: &Read<'_, T>,
        ) -> Result<Cow<'static, [T]>, Error> {
            let mut values = vec![T::default(); rows.len() * len];
            values.par_chunks_exact_mut(len).zip(rows).try_for_each(|(out, &row)| {
                read(row, seed(row), out).map_err(|source| Error::Input { row, source })
            })?;
            Ok(Cow::Owned(values))
        }
        let len = shape.iter().product();
        Ok(match self.inputs {
            Inputs::Images { read, .. } => Batch::Images(all(rows, len, seed, read)?),
            Inputs::Features { read, .. } => Batch::Vectors(all(rows, len, seed, read)?),
        })
    }

    /// Returns the labels of `rows`.
    pub(crate) fn labels_of(&self, rows: &[usize], device: &Device) -> candle_core::Result<Labels> {
        let c = self.n_classes;
        let labels: Vec<u8> = rows.iter().flat_map(|row| &self.labels[row * c..][..c]).copied().collect();
        Labels::new(&labels, c, DType::F32, device)
    }

    /// All rows, in pieces that are read at a time.
    pub(crate) fn pieces(&self) -> impl Iterator<Item = Vec<usize>> {
        let n = self.n_items;
        (0..n).step_by(512).map(move |begin| (begin..(begin + 512).min(n)).collect())
    }
}
