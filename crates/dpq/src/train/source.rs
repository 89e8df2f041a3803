//! What training learns from: a data set's images, or features with their labels.

use std::path::Path;

use anyhow::{Result, ensure};
use dpq_data::{Augment, Dataset, Split};
use dpq_formats::{FeatureFile, Matrix, extension};
use dpq_model::config::{AugmentConfig, Body};
use dpq_model::{BoxError, Inputs, Snapshot, TrainConfig, TrainSet};

use crate::labels::LabelFile;
use crate::{data, embeddings, output};

/// Where items and labels come from. Items are rows, numbered from 0.
pub(super) enum Source {
    Images(Dataset),
    Features { features: FeatureFile, labels: Matrix<u8> },
}

impl Source {
    /// Features f32 [N, D] and their labels.
    pub(super) fn features(features: &Path, labels: &Path) -> Result<Self> {
        let (rows, file) = (FeatureFile::open(features)?, LabelFile::read(labels)?);
        let n_classes = file.n_classes();
        let matrix = file.into_multi_hot(n_classes);
        ensure!(
            rows.rows() == matrix.rows,
            "{} has {} rows, {} has labels of {}, expected as many",
            features.display(),
            rows.rows(),
            labels.display(),
            matrix.rows
        );
        Ok(Self::Features { features: rows, labels: matrix })
    }

    /// Adapts a configuration that was written for images: features are the network's body, and nothing varies them.
    pub(super) fn adapt(&self, config: &mut TrainConfig) {
        if let Self::Features { .. } = self {
            config.network.body = Body::Features;
            config.mirror_average = false;
            config.augment = AugmentConfig { padding: 0, mirror: false, cutout: 0, cutout_probability: 0.0 };
        }
    }

    /// How many training items there are.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Images(dataset) => dataset.split(Split::Train).len(),
            Self::Features { features, .. } => features.rows(),
        }
    }

    /// The training items that can be read. All images are read before the first epoch, which would end at one that cannot.
    pub(super) fn readable(&self, strict: bool) -> Result<Vec<u32>> {
        match self {
            Self::Images(dataset) => {
                let mut rows = Vec::new();
                data::for_each_batch(dataset, dataset.split(Split::Train), strict, |batch| {
                    rows.extend(batch.rows);
                    Ok(())
                })?;
                let n_readable = rows.len();
                rows.retain(|&row| !dataset.labels(row as usize).is_empty());
                if rows.len() < n_readable {
                    let n = n_readable - rows.len();
                    output::note(&format!("{n} training images have no class and are left out"));
                }
                Ok(rows)
            }
            Self::Features { features, .. } => Ok((0..u32::try_from(features.rows())?).collect()),
        }
    }

    pub(super) fn n_classes(&self) -> usize {
        match self {
            Self::Images(dataset) => dataset.n_classes(),
            Self::Features { labels, .. } => labels.columns,
        }
    }

    /// Whether any item has several classes, one that nothing learns from included.
    pub(super) fn is_multi_label(&self) -> bool {
        match self {
            Self::Images(dataset) => (0..dataset.len()).any(|row| dataset.labels(row).len() > 1),
            Self::Features { labels, .. } => {
                let rows = labels.values.chunks_exact(labels.columns.max(1));
                rows.into_iter().any(|row| row.iter().filter(|&&label| label == 1).count() > 1)
            }
        }
    }

    /// Reads vectors of the classes from a file, f32 [C, dim].
    pub(super) fn embeddings(&self, path: &Path, dim: usize) -> Result<Vec<f32>> {
        match self {
            Self::Images(dataset) => embeddings::read(path, dataset.class_names(), dim),
            // Features come without names of classes: a .npy file has a row for each.
            Self::Features { labels, .. } => {
                ensure!(
                    extension(path) == "npy",
                    "{}: without a data set classes have no names to look up, give a .npy file of their vectors",
                    path.display()
                );
                embeddings::read(path, &vec![String::new(); labels.columns], dim)
            }
        }
    }

    /// The labels of `rows`, u8 [n, C].
    pub(super) fn multi_hot(&self, rows: &[u32]) -> Vec<u8> {
        match self {
            Self::Images(dataset) => dataset.multi_hot(rows),
            Self::Features { labels, .. } => {
                let row = |&row: &u32| &labels.values[row as usize * labels.columns..][..labels.columns];
                rows.iter().flat_map(row).copied().collect()
            }
        }
    }

    /// Hands what there is to learn of `rows` to `train`.
    pub(super) fn with_train_set<T>(
        &self,
        rows: &[u32],
        embeddings: Option<&[f32]>,
        augment: AugmentConfig,
        train: impl FnOnce(TrainSet<'_>) -> T,
    ) -> T {
        let (n_items, labels) = (rows.len(), self.multi_hot(rows));
        let (n_classes, multi_label) = (self.n_classes(), self.is_multi_label());
        let labels = &labels;
        let set =
            |inputs| TrainSet { n_items, labels, n_classes, multi_label, embeddings, inputs, weights: None };
        match self {
            Self::Images(dataset) => {
                let shape = dataset.shape();
                let AugmentConfig { padding, mirror, cutout, cutout_probability } = augment;
                let augment = Augment { padding, mirror, cutout, cutout_probability };
                let read = |row: usize, seed: Option<u64>, image: &mut [u8]| -> Result<(), BoxError> {
                    dataset.read(rows[row] as usize, image)?;
                    if let Some(seed) = seed {
                        augment.apply(shape, image, seed)?;
                    }
                    Ok(())
                };
                let shape = [shape.channels, shape.height, shape.width];
                train(set(Inputs::Images { shape, read: &read }))
            }
            Self::Features { features, .. } => {
                let read = |row: usize, _: Option<u64>, out: &mut [f32]| -> Result<(), BoxError> {
                    Ok(features.read(rows[row] as usize, out)?)
                };
                train(set(Inputs::Features { dim: features.columns(), read: &read }))
            }
        }
    }

    /// Reads held-out items, to be run through the network again and again.
    pub(super) fn held_out(&self, rows: &[u32]) -> Result<Items> {
        match self {
            Self::Images(dataset) => Ok(Items::Images(data::read_images(dataset, rows, true)?.pixels)),
            Self::Features { features, .. } => {
                let mut values = vec![0.0; rows.len() * features.columns()];
                for (&row, out) in rows.iter().zip(values.chunks_exact_mut(features.columns())) {
                    features.read(row as usize, out)?;
                }
                Ok(Items::Features(values))
            }
        }
    }
}

/// Items in memory.
pub(super) enum Items {
    Images(Vec<u8>),
    Features(Vec<f32>),
}

impl Items {
    /// Their features by the network as it is now, f32 [n, D].
    pub(super) fn forward(&self, network: &Snapshot<'_>) -> Result<Vec<f32>> {
        Ok(match self {
            Self::Images(images) => network.forward(images)?.features,
            Self::Features(features) => network.forward_features(features)?.features,
        })
    }
}
