//! The numbers of a report, which `results.json` keeps.

use std::collections::BTreeMap;
use std::env::consts;
use std::fmt::{self, Display};
use std::fs;
use std::thread;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The cut-off of the second mean average precision of a report. The paper uses it on large sets.
pub const CUTOFF: u32 = 5000;

/// Mean and sample standard deviation over trainings. The deviation of one training is 0.
pub type MeanSd = [f64; 2];

/// Values by code length in bits.
pub type ByBits<T> = BTreeMap<u32, T>;

/// Values by number of ranks.
pub type ByRank<T> = BTreeMap<u32, T>;

/// Everything that a report states. Numbers without a standard deviation are means over trainings.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Results {
    /// The trained model and its data.
    #[serde(flatten)]
    pub about: About,
    /// The number of trainings.
    pub seeds: usize,
    /// mAP of the whole ranking.
    pub map_all: ByBits<MeanSd>,
    /// mAP of the first [`CUTOFF`] ranks.
    pub map_at_5000: ByBits<MeanSd>,
    /// mAP of the whole ranking by features before quantization.
    pub feature_map_all: MeanSd,
    /// mAP of the first [`CUTOFF`] ranks by features before quantization.
    pub feature_map_at_5000: MeanSd,
    /// mAP of the whole ranking for other orders of tied items.
    pub ties: ByBits<Ties>,
    /// Precision within the first ranks.
    pub precision_at: ByBits<ByRank<f64>>,
    /// Precision of features before quantization.
    pub feature_precision_at: ByRank<f64>,
    /// Recall within the first ranks.
    pub recall_at: ByBits<ByRank<f64>>,
    /// Precision by recall.
    pub precision_recall: PrecisionRecall,
    /// Accuracy of the classifier on the gallery.
    pub accuracy: Option<MeanSd>,
    /// Accuracy of the classifier on the queries.
    pub query_accuracy: Option<MeanSd>,
    /// Mean squared error of the gallery's reconstructions over the mean squared norm of its
    /// features, by length.
    pub distortion: Vec<f64>,
    /// Use of the codewords of the last level of each length, on the gallery.
    pub usage: Vec<Usage>,
    /// Codes of raw pixels to compare with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub baseline: Option<BaselineResults>,
    /// Other codes of the same features, and the classifier's posterior. Early files lack them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub baselines: Vec<VariantResults>,
    /// Wall-clock seconds by stage of one training.
    pub seconds: Seconds,
    /// Wall-clock seconds of all stages of one training.
    pub wall_seconds: f64,
    /// Wall-clock seconds of everything that the report is made from. Early files lack it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run_wall_seconds: Option<f64>,
    /// Training images per second.
    pub train_images_per_second: f64,
    /// Gallery images encoded per second.
    pub encode_images_per_second: f64,
    /// Search latencies of the first training.
    pub search: ByBits<Searched>,
    /// Size of the index file over the number of items.
    pub bytes_per_item: f64,
    /// Peak memory by stage.
    pub peak_memory_bytes: PeakMemory,
    /// The numbers of each training.
    pub per_seed: Vec<SeedResults>,
    /// The same configuration with one change.
    pub variants: Vec<VariantResults>,
    /// Rankings of classes that were not trained. Early files lack them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unseen: Option<UnseenResults>,
}

/// Rankings of classes that were not trained.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct UnseenResults {
    /// The number of classes without training images.
    pub classes: usize,
    /// The number of splits, each with other such classes.
    pub splits: usize,
    /// Means and deviations over the splits.
    pub rows: Vec<VariantResults>,
}

/// The trained model and its data.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct About {
    /// The folder name of the data set.
    pub dataset: String,
    /// The file of the images and its checksum, if they are not the first form that the data set
    /// names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub images: Option<String>,
    /// The preset, or the file name of a configuration.
    pub preset: String,
    /// The lines of `dpq train --set` that changed it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<String>,
    /// The commit of the repository, ending in `-dirty` if a relevant file differs from it;
    /// otherwise the version of dpq.
    pub commit: String,
    /// The computer.
    pub machine: Machine,
    /// Where the network ran, `cpu` or `cuda:N`.
    pub device: String,
    /// The fingerprint of the pretrained weights that the body started from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weights: Option<String>,
    /// The label embeddings as the model's file names them. Early files lack it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub embeddings: Option<String>,
    /// The file of the label embeddings, if they came from one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub embeddings_file: Option<String>,
    /// The classifier's loss, `softmax` or `sigmoid`. Early files lack it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub classification_loss: Option<String>,
    /// The configuration of the first training.
    pub config: Value,
    /// The number of items by split.
    pub items: Items,
    /// The number of images that could not be read, by split.
    #[serde(default, skip_serializing_if = "Items::is_empty")]
    pub left_out: Items,
    /// The rule of the mean average precision, as `dpq eval --json` prints it.
    pub map_rule: Value,
}

/// A configuration with one change, over the same seeds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct VariantResults {
    /// The name of its row.
    pub name: String,
    /// The options of the command that made the change.
    pub change: String,
    /// mAP of the whole ranking, at as many lengths as the variant has levels.
    pub map_all: ByBits<MeanSd>,
    /// mAP of the first [`CUTOFF`] ranks.
    pub map_at_5000: ByBits<MeanSd>,
    /// mAP of the whole ranking by features before quantization.
    pub feature_map_all: MeanSd,
    /// mAP of the first [`CUTOFF`] ranks by features before quantization.
    pub feature_map_at_5000: MeanSd,
    /// Accuracy of the classifier on the gallery.
    pub accuracy: Option<MeanSd>,
    /// Seconds of a training; none if nothing was trained.
    pub train_seconds: Option<MeanSd>,
    /// mAP of the whole ranking for each seed.
    pub per_seed: Vec<ByBits<f64>>,
}

/// A computer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Machine {
    /// The processor.
    pub cpu: String,
    /// The number of cores.
    pub cores: usize,
    /// Operating system and architecture.
    pub system: String,
}

impl Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {} cores, {}", self.cpu, self.cores, self.system)
    }
}

impl Machine {
    /// Returns this computer, with its architecture if the system does not tell its processor.
    pub fn this() -> Self {
        let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        Self {
            cpu: model.map_or(consts::ARCH, |(_, model)| model).to_owned(),
            cores: thread::available_parallelism().map_or(1, usize::from),
            system: format!("{} {}", consts::OS, consts::ARCH),
        }
    }
}

/// The number of items by split.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Items {
    /// Training images.
    pub train: usize,
    /// Queries.
    pub query: usize,
    /// Images in the gallery.
    pub gallery: usize,
}

impl Items {
    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// mAP for three orders of tied items.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Ties {
    /// The minimum over all orders.
    pub worst: f64,
    /// Tied items in the order of their ids.
    pub by_id: f64,
    /// The maximum over all orders.
    pub best: f64,
}

/// Curves over one list of recalls.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PrecisionRecall {
    /// The recall of each point.
    pub recall: Vec<f64>,
    /// The precision of each point, for each ranking.
    pub curves: Vec<NamedCurve>,
}

/// A curve and the name that its legend shows.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NamedCurve {
    /// Name of the ranked features or codes.
    pub name: String,
    /// Precision at each recall.
    pub precision: Vec<f64>,
}

impl NamedCurve {
    /// Names a curve and rounds it to four digits: curves are drawn, not compared.
    pub(crate) fn new(name: impl Into<String>, precision: impl IntoIterator<Item = f64>) -> Self {
        Self { name: name.into(), precision: precision.into_iter().map(round).collect() }
    }
}

pub(crate) fn round(x: f64) -> f64 {
    (x * 1e4).round() / 1e4
}

/// Codes of raw pixels by residual k-means, without a network.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BaselineResults {
    /// The shape of the images, `[C, H, W]`. Early files lack it.
    pub shape: Option<[usize; 3]>,
    /// mAP of the whole ranking.
    pub map_all: ByBits<f64>,
    /// mAP of the first [`CUTOFF`] ranks.
    pub map_at_5000: ByBits<f64>,
    /// mAP of the whole ranking by pixels before quantization.
    pub feature_map_all: f64,
    /// mAP of the first [`CUTOFF`] ranks by pixels before quantization.
    pub feature_map_at_5000: f64,
    /// Precision of pixels before quantization.
    pub feature_precision_at: ByRank<f64>,
    /// Relative distortion by level.
    pub distortion: Vec<f64>,
}

/// Use of one level's codewords, and the number of distinct codes up to that level.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Usage {
    /// Codewords that any item has.
    pub used: f64,
    /// Perplexity of their use.
    pub perplexity: f64,
    /// Distinct codes up to this level.
    pub distinct: f64,
}

/// Search latency at one code length.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Searched {
    /// The number of threads.
    pub threads: usize,
    /// The routine that scanned the codes.
    pub kernel: String,
    /// Hits per query.
    pub k: usize,
    /// Nanoseconds of one query, lookup table included: the median over queries.
    pub ns_per_query_median: u64,
    /// The 99th percentile.
    pub ns_per_query_p99: u64,
    /// Nanoseconds per query when all queries are one batch.
    pub batch_ns_per_query: u64,
}

/// Wall-clock seconds by stage.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Seconds {
    /// Training.
    pub train: f64,
    /// Encoding gallery and queries.
    pub encode: f64,
    /// Building the index.
    pub index: f64,
    /// Ranking the gallery for all queries at all lengths: the share of search.
    pub search: f64,
    /// The share of evaluation.
    pub evaluate: f64,
}

/// The peak memory of the process when a stage had ended, where the system tells.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct PeakMemory {
    /// Training.
    pub train: Option<u64>,
    /// Encoding.
    pub encode: Option<u64>,
    /// Evaluation.
    pub evaluate: Option<u64>,
}

/// The numbers of one training.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SeedResults {
    /// The seed of the training.
    pub seed: u64,
    /// The fingerprint of its codebooks.
    pub fingerprint: String,
    /// mAP of the whole ranking.
    pub map_all: ByBits<f64>,
    /// mAP of the first [`CUTOFF`] ranks.
    pub map_at_5000: ByBits<f64>,
    /// mAP of the whole ranking by features before quantization.
    pub feature_map_all: f64,
    /// Accuracy of the classifier on the gallery.
    pub accuracy: Option<f64>,
    /// Wall-clock seconds by stage.
    pub seconds: Seconds,
}

impl Results {
    /// Returns true if items may have several labels.
    pub(crate) fn is_multi_label(&self) -> bool {
        match &self.about.classification_loss {
            Some(loss) => loss == "sigmoid",
            None => ["nus-wide-21", "fashion-collage"].contains(&self.about.dataset.as_str()),
        }
    }

    /// Returns JSON with one line per key, so that a diff shows what changed.
    pub fn to_json(&self) -> String {
        let Ok(Value::Object(fields)) = serde_json::to_value(self) else {
            unreachable!("keys are strings or numbers and values have a JSON form")
        };
        let lines: Vec<String> = fields.iter().map(|(key, value)| format!("  \"{key}\": {value}")).collect();
        format!("{{\n{}\n}}\n", lines.join(",\n"))
    }
}
