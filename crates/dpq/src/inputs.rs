//! The items that `dpq features` and `dpq encode` run a network on, and the options for it that
//! both commands share.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use dpq_data::{Dataset, ImageShape, Split};
use dpq_formats::{FeatureFile, npy};
use dpq_model::config::Body;
use dpq_model::{Device, Model, Output, read_ahead};

use crate::codes::{check_items_of, remove, remove_stale};
use crate::images;

/// The options that name the items.
#[derive(clap::Args)]
#[command(group = clap::ArgGroup::new("input").required(true))]
pub(crate) struct Inputs {
    /// A data set folder; its images are resized to what the network takes
    #[arg(long, group = "input", value_name = "DIR", requires = "split")]
    pub(crate) data: Option<PathBuf>,
    /// Split of the data set: train, query or gallery
    #[arg(long, requires = "data", value_parser = |s: &str| s.parse::<Split>())]
    split: Option<Split>,
    /// A folder of images, or an archive of one, flat or with one sub-folder per class
    #[arg(long, group = "input", value_name = "DIR")]
    pub(crate) images: Option<PathBuf>,
    /// Features, [N, D]: .npy (float32), .safetensors, .fvecs or .bvecs
    #[arg(long, group = "input", value_name = "FILE")]
    pub(crate) features: Option<PathBuf>,
    /// Stop at the first image that cannot be read [default: report and skip it]
    #[arg(long, conflicts_with = "features")]
    pub(crate) strict: bool,
    /// Write the images that cannot be read, and why, to a file
    #[arg(long, conflicts_with_all = ["features", "strict"], value_name = "CSV")]
    pub(crate) skip_bad: Option<PathBuf>,
}

/// The options that say how a network runs.
#[derive(clap::Args)]
pub(crate) struct NetworkOptions {
    /// Average the features of an image and its mirror image [default: as the model's configuration
    /// says]
    #[arg(long, requires = "model", conflicts_with = "features", value_name = "BOOL")]
    pub(crate) mirror_average: Option<bool>,
    /// Device of the network: cpu, or cuda:N in a program built with --features cuda
    #[arg(long, value_name = "DEVICE", default_value = "cpu")]
    pub(crate) device: Device,
}

impl NetworkOptions {
    pub(crate) fn open_model(&self, path: &Path) -> Result<Model> {
        let model = Model::open(path)?.on(self.device)?;
        Ok(match self.mirror_average {
            Some(average) => model.with_mirror_average(average),
            None => model,
        })
    }
}

/// Items that can be read batch by batch. Each has a row, numbered from 0.
pub(crate) enum Source {
    Images {
        dataset: Box<Dataset>,
        rows: Vec<u32>,
        /// Whether the images are of a folder and are named in `names.txt`.
        has_names: bool,
    },
    Features(FeatureFile),
}

pub(crate) enum Items {
    /// u8 [n, C, H, W].
    Images(Vec<u8>),
    /// f32 [n, D].
    Features(Vec<f32>),
}

impl Inputs {
    /// Opens the items for a model, which takes either images or features.
    pub(crate) fn open(&self, model: &Model) -> Result<Source> {
        let Some(path) = &self.features else { return self.open_images(images::model_shape(model)?) };
        let rows = FeatureFile::open(path)?;
        let (path, found, expected) = (path.display(), rows.columns(), images::model_inputs(model));
        ensure!(
            model.config().network.body == Body::Features && model.image_shape() == [found, 1, 1],
            "{path} has features of {found} numbers, the model takes {expected}"
        );
        Ok(Source::Features(rows))
    }

    /// Refuses a folder for results in which ids, labels or names would be of other items than the
    /// features: all of them unless the features lie in the folder, too.
    pub(crate) fn check_out(&self, dir: &Path) -> Result<()> {
        match &self.features {
            Some(features) if !lies_in(features, dir) => {
                check_items_of(dir, &["ids.npy", "labels.npy", "names.txt"])
            }
            _ => Ok(()),
        }
    }

    pub(crate) fn open_images(&self, shape: ImageShape) -> Result<Source> {
        let (dataset, rows) = match (&self.data, self.split, &self.images) {
            (Some(dir), Some(split), _) => {
                let dataset = Dataset::open(dir)?.resized(shape)?;
                let rows = dataset.split(split).to_vec();
                (dataset, rows)
            }
            (_, _, Some(dir)) => {
                let dataset = Dataset::from_folder(dir, shape)?;
                let rows = (0..dataset.len() as u32).collect();
                (dataset, rows)
            }
            _ => bail!("the network takes images, give --data with --split, or --images"),
        };
        images::report_skipped(&dataset);
        let has_names = self.images.is_some();
        Ok(Source::Images { dataset: Box::new(dataset), rows, has_names })
    }
}

/// Reads the lines of a text, such as `names.txt`.
pub(crate) fn read_lines(path: &Path) -> Result<Vec<String>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(text.lines().map(str::to_owned).collect())
}

/// Returns true if the file lies in the folder `dir`.
pub(crate) fn lies_in(file: &Path, dir: &Path) -> bool {
    let folder = std::path::absolute(file).ok().and_then(|file| file.parent()?.canonicalize().ok());
    folder.is_some() && folder == dir.canonicalize().ok()
}

impl Source {
    /// Returns the rows of all items, in order.
    pub(crate) fn rows(&self) -> Result<Vec<u32>> {
        match self {
            Self::Images { rows, .. } => Ok(rows.clone()),
            Self::Features(features) => Ok((0..u32::try_from(features.rows())?).collect()),
        }
    }

    /// Calls `work` with batches of items in the order of `rows`, which are all of [`Self::rows`]
    /// or the last of them. The next batch is read meanwhile.
    ///
    /// At most two batches are in memory. Images that cannot be read are reported and skipped, or
    /// an error if `strict`.
    pub(crate) fn for_each_batch(
        &self,
        rows: &[u32],
        strict: bool,
        mut work: impl FnMut(&[u32], Items) -> Result<()> + Send,
    ) -> Result<()> {
        match self {
            Self::Images { dataset, .. } => images::for_each_batch(dataset, rows, strict, |batch| {
                work(&batch.rows, Items::Images(batch.pixels))
            }),
            Self::Features(features) => read_ahead(
                rows.chunks(images::BATCH),
                |rows| {
                    let mut values = vec![0.0; rows.len() * features.columns()];
                    // Rows of features are consecutive.
                    features.read_finite(rows[0] as usize, &mut values)?;
                    Ok((rows, values))
                },
                |(rows, values)| work(rows, Items::Features(values)),
            ),
        }
    }

    /// Writes the images of `rows` that are not among `kept`, with the reason of each. It reads
    /// them again: an interrupted run may have met them.
    pub(crate) fn write_bad(&self, path: &Path, rows: &[u32], kept: &[u32]) -> Result<()> {
        let Self::Images { dataset, .. } = self else { return Ok(()) };
        let kept: HashSet<u32> = kept.iter().copied().collect();
        let quoted = |text: &str| format!("\"{}\"", text.replace('"', "\"\"").replace(['\n', '\r'], " "));
        let mut text = "image,reason\n".to_owned();
        let mut pixels = vec![0; dataset.shape().len()];
        for &row in rows.iter().filter(|row| !kept.contains(row)) {
            let name = match dataset.path(row as usize) {
                Some(path) => path.display().to_string(),
                None => format!("row {row}"),
            };
            let reason = match dataset.read(row as usize, &mut pixels) {
                Ok(()) => "it can be read now, but could not before".to_owned(),
                Err(error) => format!("{:#}", anyhow::Error::from(error)),
            };
            writeln!(text, "{},{}", quoted(&name), quoted(&reason))?;
        }
        Ok(dpq_file::write_atomic(path, |out| out.write_all(text.as_bytes()))?)
    }

    /// Writes `ids.npy` of images, `labels.npy` if they have classes and `names.txt` if they have
    /// names, and removes the files of an earlier result. The ids of features are their row
    /// numbers. Refuses to write ids of no image.
    pub(crate) fn write_ids(&self, dir: &Path, rows: &[u32]) -> Result<()> {
        let Self::Images { dataset, rows: all, has_names } = self else {
            return remove_stale(dir, &["codes.npy", "posteriors.npy"]);
        };
        ensure!(!rows.is_empty(), "none of the {} images of {} can be read", all.len(), dataset.name());
        remove_stale(dir, &["labels.npy", "names.txt", "codes.npy", "posteriors.npy"])?;
        if dir.join("ids.npy").exists() {
            remove(dir, &["labels.npy", "names.txt"])?;
        }
        // Line i of names.txt is id i, so skipped images leave no gap.
        let id = |(at, &row): (usize, &u32)| if *has_names { at as u64 } else { row.into() };
        let ids: Vec<u64> = rows.iter().enumerate().map(id).collect();
        npy::write(dir.join("ids.npy"), &[ids.len()], &ids)?;
        if dataset.n_classes() > 0 {
            let labels = dataset.multi_hot(rows);
            npy::write(dir.join("labels.npy"), &[rows.len(), dataset.n_classes()], &labels)?;
        }
        if *has_names {
            let mut names = String::new();
            for &row in rows {
                let path = dataset.path(row as usize).context("images of a folder have paths")?;
                writeln!(names, "{}", path.display())?;
            }
            dpq_file::write_atomic(dir.join("names.txt"), |out| out.write_all(names.as_bytes()))?;
        }
        Ok(())
    }
}

impl Items {
    pub(crate) fn forward(&self, model: &Model) -> Result<Output> {
        Ok(match self {
            Self::Images(images) => model.forward(images)?,
            Self::Features(features) => model.forward_features(features)?,
        })
    }

    /// The pixels of images, u8 [n, C, H, W].
    pub(crate) fn pixels(&self) -> Result<&[u8]> {
        match self {
            Self::Images(images) => Ok(images),
            Self::Features(_) => bail!("the network takes images, give --data with --split, or --images"),
        }
    }
}
