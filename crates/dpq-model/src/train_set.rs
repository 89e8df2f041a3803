//! The training set: inputs, read by row, and labels.

use std::borrow::Cow;
use std::fmt;

use candle_core::{DType, Device, Tensor};
use rayon::prelude::*;

use crate::body::Layers;
use crate::config::{Body, Feature, Moments, Objective, Start, TrainConfig};
use crate::inputs::Batch;
use crate::loss::Labels;
use crate::rng::mix;
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
        /// Writes a row, f32 `[D]`. The seeds of two views of an item, for [`Objective::Mecoq`],
        /// differ in their lowest bit alone, which is 0 for the first view: so it can draw two
        /// different ones.
        ///
        /// [`Objective::Mecoq`]: crate::config::Objective::Mecoq
        read: &'a Read<'a, f32>,
    },
    /// Stored queries and keys that match each other. A training item is a pair; without classes,
    /// for [`Objective::Mopq`].
    ///
    /// [`Objective::Mopq`]: crate::config::Objective::Mopq
    Pairs {
        /// Dimension, D.
        dim: usize,
        /// The row of the query and of the key of each item, `[n_items]`.
        pairs: &'a [[u32; 2]],
        /// The numbers of queries and of keys. Codebooks start from all keys.
        n_rows: [usize; 2],
        /// Write a query and a key, f32 `[D]`.
        read: [&'a Read<'a, f32>; 2],
    },
}

/// Reads the input of a row. With a seed the input is augmented, and the seed decides how.
pub type Read<'a, T> = dyn Fn(usize, Option<u64>, &mut [T]) -> Result<(), BoxError> + Sync + 'a;

impl fmt::Debug for Inputs<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self {
            Self::Images { .. } => "Images",
            Self::Features { .. } => "Features",
            Self::Pairs { .. } => "Pairs",
        };
        f.debug_tuple(kind).field(&self.shape()).finish()
    }
}

impl Inputs<'_> {
    /// `[C, H, W]`, or `[D, 1, 1]`.
    pub(crate) fn shape(&self) -> [usize; 3] {
        match *self {
            Self::Images { shape, .. } => shape,
            Self::Features { dim, .. } | Self::Pairs { dim, .. } => [dim, 1, 1],
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
        if let Inputs::Pairs { pairs, n_rows, .. } = self.inputs {
            self.check_pairs(config, pairs, n_rows)?;
        } else if let Objective::Mopq(_) = config.objective {
            let expected = "`dpq` for labelled items, `mecoq` for others; `mopq` learns from pairs";
            return Err(Error::Config { key: "objective", expected });
        } else if n_items < 2 || n_classes == 0 && config.objective.needs_labels() {
            let (found, expected) = match n_items {
                0 | 1 => (format!("found {n_items} items"), "at least 2"),
                _ => ("found items without classes".to_owned(), "at least 1 class"),
            };
            return Err(Error::unfit("training set", found, expected));
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
        if (*body == Body::Features) == matches!(self.inputs, Inputs::Images { .. }) {
            let expected = "`features` for stored features, another body for images";
            return Err(Error::Config { key: "network.body", expected });
        }
        if shape.contains(&0) {
            return Err(Error::TooSmall(shape));
        }
        let layers = Layers::new(&config.network, shape)?;
        let first = Layers::new(&config.network, config.shape_in(0, shape))?;
        if !layers.shapes().eq(first.shapes()) {
            let expected = "none, for a body with linear layers, which fix the size of images";
            return Err(Error::Config { key: "network.first_input", expected });
        }
        let n_stages = layers.stages.len();
        if config.network.freeze > n_stages {
            let below = if config.network.pyramid.is_some() { " below its pyramid" } else { "" };
            let expected = format!("at most the {n_stages} stages of the body{below}");
            return Err(Error::unfit("network.freeze", format!("found {}", config.network.freeze), expected));
        }
        if let Some(side) = config.network.input.filter(|&side| shape[1..] != [side; 2]) {
            let expected = format!("the size of images, {}x{}", shape[1], shape[2]);
            return Err(Error::unfit("network.input", format!("found {side}"), expected));
        }
        if matches!(config.network.feature, Feature::Posterior { .. }) && self.multi_label {
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
        let (n_codewords, n_rows) = (config.quantizer.codewords, self.n_rows());
        if config.quantizer.start == Start::ResidualKmeans && n_rows < n_codewords {
            let what = if let Inputs::Pairs { .. } = self.inputs { "keys" } else { "training items" };
            let (found, expected) = (
                format!("found {n_codewords}"),
                format!(
                    "at most the {n_rows} {what}, give \
                    --set quantizer.codewords={n_rows} or less"
                ),
            );
            return Err(Error::unfit("quantizer.codewords", found, expected));
        }
        Ok(())
    }

    fn check_pairs(&self, config: &TrainConfig, pairs: &[[u32; 2]], n_rows: [usize; 2]) -> Result<(), Error> {
        if !matches!(config.objective, Objective::Mopq(_)) {
            return Err(Error::Config {
                key: "objective",
                expected: "`mopq` for pairs, as the preset `mopq` has",
            });
        }
        if pairs.len() != self.n_items || pairs.len() < 2 {
            let expected = format!("at least 2, for {} items", self.n_items);
            return Err(Error::unfit("pairs", format!("found {} pairs", pairs.len()), expected));
        }
        for (side, what) in ["query", "key"].into_iter().enumerate() {
            let n = n_rows[side];
            if let Some(pair) = pairs.iter().position(|pair| pair[side] as usize >= n) {
                let found = format!("pair {pair} names {what} {}", pairs[pair][side]);
                return Err(Error::unfit("pairs", found, format!("a row from 0 below {n}")));
            }
        }
        let per_step = self.n_items / self.n_items.div_ceil(config.batch_size);
        if let Objective::Mopq(mopq) = config.objective
            && mopq.workers > per_step
        {
            let expected = format!("at most {per_step}, the pairs of a step");
            return Err(Error::unfit("objective.mopq.workers", format!("found {}", mopq.workers), expected));
        }
        let (found, dim) = (config.network.dim, self.inputs.shape()[0]);
        if found != dim {
            let expected = format!("{dim}, the dimension of queries and keys");
            return Err(Error::unfit("network.dim", format!("found {found}"), expected));
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

    /// Identifies labels, if they are needed, embeddings and weights, or pairs with their queries
    /// and keys, so that no run resumes from a checkpoint of others. An error of `go_on` ends it.
    pub(crate) fn fingerprint(
        &self,
        needs_labels: bool,
        go_on: &dyn Fn() -> Result<(), Error>,
    ) -> Result<String, Error> {
        if let Inputs::Pairs { dim, pairs, n_rows, .. } = self.inputs {
            let rows: Vec<u8> = pairs.iter().flatten().flat_map(|row| row.to_le_bytes()).collect();
            let mut crc = dpq_file::crc32c(&rows);
            for (side, what) in ["queries", "keys"].into_iter().enumerate() {
                for first in (0..n_rows[side]).step_by(PIECE) {
                    go_on()?;
                    let rows: Vec<usize> = (first..(first + PIECE).min(n_rows[side])).collect();
                    let batch = self.read_side(side, &rows)?;
                    batch.check_finite(what, dim, first)?;
                    if let Batch::Vectors(values) = batch {
                        crc = dpq_file::crc32c_append(crc, &bytes(&values));
                    }
                }
            }
            return Ok(format!("{} pairs, {crc:08x}", pairs.len()));
        }
        let weights = self.weights.map(|weights| format!(", weights {}", weights.fingerprint()));
        if !needs_labels {
            return Ok(format!("{} items without labels{}", self.n_items, weights.unwrap_or_default()));
        }
        let vectors = bytes(self.embeddings.unwrap_or_default());
        let crc = dpq_file::crc32c_append(dpq_file::crc32c(self.labels), &vectors);
        let multi_label = if self.multi_label { ", multi-label" } else { "" };
        Ok(format!("{} items, {crc:08x}{multi_label}{}", self.n_items, weights.unwrap_or_default()))
    }

    /// Describes the label embeddings for the model file.
    pub(crate) fn describe_embeddings(&self) -> String {
        match self.embeddings {
            Some(vectors) => format!("given, crc32c {:08x}", dpq_file::crc32c(&bytes(vectors))),
            None => "seeded".to_owned(),
        }
    }

    /// Reads one of the two inputs of each item of `rows`, in `shape`. The seeds of the items
    /// augment it.
    pub(crate) fn read_view(
        &self,
        view: usize,
        rows: &[usize],
        shape: [usize; 3],
        seed: &(dyn Fn(usize) -> u64 + Sync),
    ) -> Result<Batch<'static>, Error> {
        let of_view = |seed: u64| match self.inputs {
            Inputs::Features { .. } => seed & !1 | view as u64,
            _ if view == 0 => seed,
            _ => mix(seed, &[view]),
        };
        match self.inputs {
            Inputs::Pairs { pairs, .. } => {
                self.read_side(view, &rows.iter().map(|&row| pairs[row][view] as usize).collect::<Vec<_>>())
            }
            _ => self.read(rows, shape, &|row| Some(of_view(seed(row)))),
        }
    }

    /// Reads queries, side 0, or keys, side 1, of pairs.
    fn read_side(&self, side: usize, rows: &[usize]) -> Result<Batch<'static>, Error> {
        let Inputs::Pairs { dim, read, .. } = self.inputs else { unreachable!("the caller has pairs") };
        Ok(Batch::Vectors(read_all(rows, dim, &|_| None, read[side])?))
    }

    /// Reads the inputs of `rows` in parallel, in `shape`; of pairs the rows are those of keys.
    pub(crate) fn read(
        &self,
        rows: &[usize],
        shape: [usize; 3],
        seed: &(dyn Fn(usize) -> Option<u64> + Sync),
    ) -> Result<Batch<'static>, Error> {
        let len = shape.iter().product();
        Ok(match self.inputs {
            Inputs::Images { read, .. } => Batch::Images(read_all(rows, len, seed, read)?),
            Inputs::Features { read, .. } => Batch::Vectors(read_all(rows, len, seed, read)?),
            Inputs::Pairs { .. } => self.read_side(1, rows)?,
        })
    }

    /// Returns the codes of the keys of `rows`, u32 `[n]` per level, of the codes of all keys, u8
    /// `[n_keys, L]`.
    pub(crate) fn codes_of(
        &self,
        rows: &[usize],
        codes: &[u8],
        n_levels: usize,
        device: &Device,
    ) -> candle_core::Result<Vec<Tensor>> {
        let Inputs::Pairs { pairs, .. } = self.inputs else { unreachable!("only keys have codes") };
        let level = |level: usize| {
            let code = |&row: &usize| u32::from(codes[pairs[row][1] as usize * n_levels + level]);
            Tensor::from_vec(rows.iter().map(code).collect(), rows.len(), device)
        };
        (0..n_levels).map(level).collect()
    }

    /// Returns all pairs in ascending order; none without pairs.
    pub(crate) fn sorted_pairs(&self) -> Vec<[u32; 2]> {
        let Inputs::Pairs { pairs, .. } = self.inputs else { return Vec::new() };
        let mut sorted = pairs.to_vec();
        sorted.par_sort_unstable();
        sorted
    }

    /// Returns for pairs which queries of `rows` also match the key of another of `rows`, f32 `[n,
    /// n]`; `None` if none does. `sorted` are the [`sorted_pairs`](Self::sorted_pairs).
    pub(crate) fn other_matches(
        &self,
        sorted: &[[u32; 2]],
        rows: &[usize],
        device: &Device,
    ) -> candle_core::Result<Option<Tensor>> {
        let Inputs::Pairs { pairs, .. } = self.inputs else { return Ok(None) };
        let (n, mut values) = (rows.len(), vec![0.0f32; rows.len().pow(2)]);
        for (i, &row) in rows.iter().enumerate() {
            let query = pairs[row][0];
            let first = sorted.partition_point(|pair| pair[0] < query);
            let own = &sorted[first..][..sorted[first..].partition_point(|pair| pair[0] == query)];
            for (j, &other) in rows.iter().enumerate() {
                // The same key in another pair is the own key once more.
                if i != j && own.binary_search(&[query, pairs[other][1]]).is_ok() {
                    values[i * n + j] = 1.0;
                }
            }
        }
        let has_any = values.contains(&1.0);
        has_any.then(|| Tensor::from_vec(values, (n, n), device)).transpose()
    }

    /// Returns the labels of `rows`.
    pub(crate) fn labels_of(&self, rows: &[usize], device: &Device) -> candle_core::Result<Labels> {
        let c = self.n_classes;
        let labels: Vec<u8> = rows.iter().flat_map(|row| &self.labels[row * c..][..c]).copied().collect();
        Labels::new(&labels, c, DType::F32, device)
    }

    /// The number of inputs that codebooks are fitted to: of items, or of keys.
    fn n_rows(&self) -> usize {
        match self.inputs {
            Inputs::Pairs { n_rows, .. } => n_rows[1],
            _ => self.n_items,
        }
    }

    /// All inputs that codebooks are fitted to, in pieces that are read at a time.
    pub(crate) fn pieces(&self) -> impl Iterator<Item = Vec<usize>> {
        let n = self.n_rows();
        (0..n).step_by(PIECE).map(move |begin| (begin..(begin + PIECE).min(n)).collect())
    }
}

/// Rows that are read at a time.
const PIECE: usize = 512;

/// Reads rows of `len` numbers in parallel.
fn read_all<T: Copy + Default + Send>(
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

#[cfg(test)]
mod tests;
