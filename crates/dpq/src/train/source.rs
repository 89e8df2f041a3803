//! Training data: a data set's images, features with their labels, or pairs of queries and keys.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Result, bail, ensure};
use dpq_data::{Augment, Dataset, ImageShape, Split, View};
use dpq_formats::{FeatureFile, Matrix, extension};
use dpq_model::config::{AugmentConfig, Body, ViewConfig};
use dpq_model::{BoxError, Inputs, TrainConfig, TrainSet};

use crate::inputs::Items;
use crate::labels::{LabelFile, check_items};
use crate::{embeddings, images, output, pairs};

/// The source of items and labels. Items are rows, numbered from 0.
pub(super) enum Source {
    Images {
        dataset: Dataset,
        /// The classes that training images have, which are those that the network learns.
        classes: Vec<u32>,
    },
    Features {
        features: FeatureFile,
        /// Without columns if nobody gave labels.
        labels: Matrix<u8>,
        /// Features of views of an item, side by side in its row.
        views: usize,
    },
    Pairs {
        /// Queries and keys.
        sides: [FeatureFile; 2],
        /// Rows of both.
        pairs: Vec<[u32; 2]>,
    },
}

impl Source {
    /// The training images of a data set.
    pub(super) fn images(dataset: Dataset) -> Self {
        Self::Images { classes: dataset.trained_classes(), dataset }
    }

    /// Opens features f32 [N, views · D] and reads their labels, if there are any.
    pub(super) fn features(features: &Path, labels: Option<&Path>, views: usize) -> Result<Self> {
        let rows = FeatureFile::open(features)?;
        ensure!(
            rows.columns().is_multiple_of(views),
            "{} has {} columns, which are not {views} views of equal length",
            features.display(),
            rows.columns()
        );
        let Some(labels) = labels else {
            let labels = Matrix { rows: rows.rows(), columns: 0, values: Vec::new() };
            return Ok(Self::Features { features: rows, labels, views });
        };
        let file = LabelFile::read(labels)?;
        let n_classes = file.n_classes();
        let matrix = file.into_multi_hot(n_classes);
        check_items((features, rows.rows()), (labels, matrix.rows))?;
        let mut is_empty = vec![true; n_classes];
        for row in matrix.values.chunks_exact(n_classes.max(1)) {
            is_empty.iter_mut().zip(row).for_each(|(is_empty, &label)| *is_empty &= label == 0);
        }
        let n_empty = is_empty.iter().filter(|&&is_empty| is_empty).count();
        if n_empty > 0 {
            output::note(&format!(
                "{}: {n_empty} of {n_classes} classes have no items, number classes from 0 without gaps to save time and \
                 memory",
                labels.display()
            ));
        }
        Ok(Self::Features { features: rows, labels: matrix, views })
    }

    /// Opens queries and keys f32 [N, D]. Row i of one matches row i of the other, unless a file
    /// has the pairs.
    pub(super) fn pairs([queries, keys]: [&Path; 2], pairs: Option<&Path>) -> Result<Self> {
        let sides = [FeatureFile::open(queries)?, FeatureFile::open(keys)?];
        let [of_queries, of_keys] = [&sides[0], &sides[1]].map(FeatureFile::columns);
        ensure!(
            of_queries == of_keys,
            "{} has queries of {of_queries} dimensions, {} has keys of {of_keys}: expected the same",
            queries.display(),
            keys.display()
        );
        let [n_queries, n_keys] = [&sides[0], &sides[1]].map(FeatureFile::rows);
        let pairs = match pairs {
            Some(pairs) => pairs::read(pairs, n_queries, n_keys)?,
            None => {
                check_items((queries, n_queries), (keys, n_keys))?;
                (0..u32::try_from(n_queries)?).map(|row| [row; 2]).collect()
            }
        };
        Ok(Self::Pairs { sides, pairs })
    }

    /// Adapts a configuration for images to features, which have no body, no mirror image and no
    /// augmentation. Maps of pairs keep the dimension.
    pub(super) fn adapt(&self, config: &mut TrainConfig) {
        if let Self::Pairs { sides, .. } = self {
            config.network.dim = sides[0].columns();
        }
        if !matches!(self, Self::Images { .. }) {
            config.network.body = Body::Features;
            config.network.input = None;
            config.network.freeze = 0;
            config.network.first_input = None;
            config.network.pyramid = None;
            config.mirror_average = false;
            config.augment = AugmentConfig::default();
        }
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Self::Images { dataset, .. } => dataset.split(Split::Train).len(),
            Self::Features { features, .. } => features.rows(),
            Self::Pairs { pairs, .. } => pairs.len(),
        }
    }

    /// Returns the training items that can be read and have the labels that they need. Reads all
    /// images before the first epoch, which an unreadable image would end.
    pub(super) fn readable(
        &self,
        strict: bool,
        needs_labels: bool,
        stop: Option<&AtomicBool>,
    ) -> Result<Vec<u32>> {
        match self {
            Self::Images { dataset, .. } => {
                let mut rows = Vec::new();
                images::for_each_batch(dataset, dataset.split(Split::Train), strict, |batch| {
                    rows.extend(batch.rows);
                    ensure!(
                        !stop.is_some_and(|stop| stop.load(Ordering::Relaxed)),
                        "training was interrupted before its first epoch"
                    );
                    Ok(())
                })?;
                let n_readable = rows.len();
                rows.retain(|&row| !needs_labels || !dataset.labels(row as usize).is_empty());
                if rows.len() < n_readable {
                    let n = n_readable - rows.len();
                    output::note(&format!("{n} training images have no class and are left out"));
                }
                Ok(rows)
            }
            Self::Features { .. } | Self::Pairs { .. } => Ok((0..u32::try_from(self.len())?).collect()),
        }
    }

    pub(super) fn n_classes(&self) -> usize {
        match self {
            Self::Images { classes, .. } => classes.len(),
            Self::Features { labels, .. } => labels.columns,
            Self::Pairs { .. } => 0,
        }
    }

    /// Returns true if any item has several classes, items outside the training split included.
    pub(super) fn is_multi_label(&self) -> bool {
        match self {
            Self::Images { dataset, .. } => (0..dataset.len()).any(|row| dataset.labels(row).len() > 1),
            Self::Features { labels, .. } => {
                let rows = labels.values.chunks_exact(labels.columns.max(1));
                rows.into_iter().any(|row| row.iter().filter(|&&label| label == 1).count() > 1)
            }
            Self::Pairs { .. } => false,
        }
    }

    /// Reads class embeddings from a file, f32 [C, dim].
    pub(super) fn embeddings(&self, path: &Path, dim: usize) -> Result<Vec<f32>> {
        match self {
            Self::Images { dataset, classes } => {
                let name = |&class: &u32| dataset.class_names()[class as usize].clone();
                embeddings::read(path, &classes.iter().map(name).collect::<Vec<_>>(), dim)
            }
            // Features come without class names.
            Self::Features { labels, .. } => {
                ensure!(
                    extension(path) == "npy",
                    "{}: classes of features have no names to look up, give a .npy file with one row per class",
                    path.display()
                );
                embeddings::read(path, &vec![String::new(); labels.columns], dim)
            }
            Self::Pairs { .. } => bail!("pairs have no classes, leave out --embeddings"),
        }
    }

    /// Returns the labels of `rows`, u8 [n, C].
    pub(super) fn multi_hot(&self, rows: &[u32]) -> Vec<u8> {
        match self {
            Self::Images { dataset, classes } => {
                let hot = dataset.multi_hot(rows);
                let rows = hot.chunks_exact(dataset.n_classes().max(1));
                rows.flat_map(|row| classes.iter().map(|&class| row[class as usize])).collect()
            }
            Self::Features { labels, .. } => {
                let row = |&row: &u32| &labels.values[row as usize * labels.columns..][..labels.columns];
                rows.iter().flat_map(row).copied().collect()
            }
            Self::Pairs { .. } => Vec::new(),
        }
    }

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
            Self::Images { dataset, .. } => {
                let shape = dataset.shape();
                let AugmentConfig { padding, mirror, cutout, cutout_probability, view } = augment;
                let view = view.map(self::view);
                let read = |row: usize, seed: Option<u64>, image: &mut [u8]| -> Result<(), BoxError> {
                    // Images of the first epochs may be smaller, and square.
                    let side = (image.len() / shape.channels).isqrt();
                    let [height, width] =
                        if image.len() == shape.len() { [shape.height, shape.width] } else { [side; 2] };
                    dataset.read_in(rows[row] as usize, [height, width], image)?;
                    if let Some(seed) = seed {
                        let scaled = |pixels: usize| pixels * height / shape.height;
                        let (padding, cutout) = (scaled(padding), scaled(cutout));
                        let augment = Augment { padding, mirror, cutout, cutout_probability };
                        let shape = ImageShape { height, width, ..shape };
                        augment.apply(shape, image, seed)?;
                        view.map_or(Ok(()), |view| view.apply(shape, image, seed))?;
                    }
                    Ok(())
                };
                let shape = [shape.channels, shape.height, shape.width];
                train(set(Inputs::Images { shape, read: &read }))
            }
            &Self::Features { ref features, views, .. } => {
                // The first view is the item itself, which no seed asks for if there are others.
                let read = |row: usize, seed: Option<u64>, out: &mut [f32]| -> Result<(), BoxError> {
                    let view = seed.filter(|_| views > 1).map_or(0, |seed| 1 + drawn(seed, views as u64 - 1));
                    Ok(read_view(features, rows[row], view as usize, out)?)
                };
                train(set(Inputs::Features { dim: features.columns() / views, read: &read }))
            }
            Self::Pairs { sides: [queries, keys], pairs } => {
                let read_query = |row: usize, _: Option<u64>, out: &mut [f32]| -> Result<(), BoxError> {
                    Ok(queries.read(row, out)?)
                };
                let read_key = |row: usize, _: Option<u64>, out: &mut [f32]| -> Result<(), BoxError> {
                    Ok(keys.read(row, out)?)
                };
                train(set(Inputs::Pairs {
                    dim: queries.columns(),
                    pairs,
                    n_rows: [queries.rows(), keys.rows()],
                    read: [&read_query, &read_key],
                }))
            }
        }
    }

    /// Reads held-out items, which stay in memory for all validations.
    pub(super) fn held_out(&self, rows: &[u32]) -> Result<Items> {
        match self {
            Self::Images { dataset, .. } => {
                Ok(Items::Images(images::read_images(dataset, rows, true)?.pixels))
            }
            Self::Features { features, views, .. } => {
                let dim = features.columns() / views;
                let mut values = vec![0.0; rows.len() * dim];
                for (&row, out) in rows.iter().zip(values.chunks_exact_mut(dim)) {
                    read_view(features, row, 0, out)?;
                }
                Ok(Items::Features(values))
            }
            Self::Pairs { .. } => bail!("pairs cannot be held out, set `validation.images` to 0"),
        }
    }
}

/// The view of a configuration.
pub(crate) fn view(config: ViewConfig) -> View {
    let ViewConfig { crop, jitter, jitter_probability, grey, blur } = config;
    View { crop, jitter, jitter_probability, grey, blur }
}

/// Returns which of `n` views a seed draws. Seeds that differ in their lowest bit alone draw two
/// different ones, if there are two; every pair is as likely.
fn drawn(seed: u64, n: u64) -> u64 {
    let (first, rest) = (seed / 2 % n, seed / 2 / n);
    if seed.is_multiple_of(2) || n == 1 { first } else { (first + 1 + rest % (n - 1)) % n }
}

/// Reads one of the views of an item, which lie side by side in its row.
fn read_view(features: &FeatureFile, row: u32, view: usize, out: &mut [f32]) -> Result<()> {
    if out.len() == features.columns() {
        return Ok(features.read(row as usize, out)?);
    }
    let mut all = vec![0.0; features.columns()];
    features.read(row as usize, &mut all)?;
    out.copy_from_slice(&all[view * out.len()..][..out.len()]);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_views_of_an_item_differ_and_every_pair_is_as_likely() {
        for n in 2..6 {
            let n_pairs = n * (n - 1);
            let mut pairs = vec![0; (n * n) as usize];
            for seed in 0..7 * n_pairs {
                let [first, second] = [drawn(2 * seed, n), drawn(2 * seed + 1, n)];
                assert!(first != second && first < n && second < n);
                pairs[(first * n + second) as usize] += 1;
            }
            assert_eq!(pairs.iter().filter(|&&count| count == 7).count() as u64, n_pairs);
        }
        assert_eq!([drawn(6, 1), drawn(7, 1)], [0, 0]);
    }
}
