//! The numbers of a report: `results.json`.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::dpq::{Searched, Usage};

/// Mean and sample standard deviation over seeds; the deviation of one seed is 0.
pub(crate) type MeanSd = [f64; 2];

/// By code length in bits.
pub(crate) type ByBits<T> = BTreeMap<u32, T>;

/// By number of ranks.
pub(crate) type ByRank<T> = BTreeMap<u32, T>;

/// All that a report says. Numbers without a standard deviation are means over seeds.
#[derive(Serialize, Deserialize)]
pub(crate) struct Results {
    pub(crate) dataset: String,
    pub(crate) preset: String,
    /// Lines of `dpq train --set` that changed it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) changes: Vec<String>,
    /// How many trainings: their seeds are 1, 2, …
    pub(crate) seeds: usize,
    /// Of this repository; `-dirty` if a file that matters differs from it.
    pub(crate) commit: String,
    pub(crate) machine: Machine,
    pub(crate) device: String,
    /// The fingerprint of the pretrained weights that the body started from; none for random ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) weights: Option<String>,
    /// The label embeddings, as the model's file says, and the name of their file where they are from one. Early files
    /// have none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) embeddings: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) embeddings_file: Option<String>,
    /// The classifier's: `softmax` or `sigmoid`. Early files have none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) classification_loss: Option<String>,
    /// The training configuration of the first seed.
    pub(crate) config: Value,
    pub(crate) items: Items,
    /// Images that could not be read, so that they are not among the items.
    #[serde(default, skip_serializing_if = "Items::is_empty")]
    pub(crate) left_out: Items,
    pub(crate) map_rule: Value,

    pub(crate) map_all: ByBits<MeanSd>,
    pub(crate) map_at_5000: ByBits<MeanSd>,
    /// Of the features before quantization.
    pub(crate) feature_map_all: MeanSd,
    pub(crate) feature_map_at_5000: MeanSd,
    /// mAP@all of the worst and the best order of tied items, and of the order by id.
    pub(crate) ties: ByBits<Ties>,
    pub(crate) precision_at: ByBits<ByRank<f64>>,
    /// Of the features before quantization; early files have none.
    pub(crate) feature_precision_at: Option<ByRank<f64>>,
    pub(crate) recall_at: ByBits<ByRank<f64>>,
    pub(crate) precision_recall: PrecisionRecall,
    /// Of the classifier, on the gallery.
    pub(crate) accuracy: Option<MeanSd>,
    /// Of the classifier, on the queries.
    pub(crate) query_accuracy: Option<MeanSd>,
    /// By level: mean squared error of the gallery's reconstructions over the mean squared norm of its features.
    pub(crate) distortion: Vec<f64>,
    /// By level, on the gallery.
    pub(crate) usage: Vec<Usage>,
    pub(crate) baseline: BaselineResults,

    /// Wall-clock seconds by stage, one training's share.
    pub(crate) seconds: Seconds,
    /// Wall-clock seconds of all commands of one training, process starts and files included.
    pub(crate) wall_seconds: f64,
    /// The same of all stages: every training and variant, the baseline, the figures. Early files have none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) run_wall_seconds: Option<f64>,
    pub(crate) train_images_per_second: f64,
    pub(crate) encode_images_per_second: f64,
    /// Of the first seed.
    pub(crate) search: ByBits<Searched>,
    pub(crate) bytes_per_item: f64,
    /// The most that any command of the kind has held.
    pub(crate) peak_memory_bytes: PeakMemory,
    pub(crate) per_seed: Vec<SeedResults>,
    /// Early files have none.
    #[serde(default)]
    pub(crate) variants: Vec<VariantResults>,
}

/// The preset with one change, over the same seeds.
#[derive(Serialize, Deserialize)]
pub(crate) struct VariantResults {
    pub(crate) name: String,
    /// Options of `dpq train` or `dpq features`.
    pub(crate) change: String,
    /// By as many lengths as it has levels.
    pub(crate) map_all: ByBits<MeanSd>,
    pub(crate) map_at_5000: ByBits<MeanSd>,
    pub(crate) feature_map_all: MeanSd,
    /// Early files have none.
    #[serde(default)]
    pub(crate) feature_map_at_5000: MeanSd,
    /// Of the classifier, on the gallery.
    pub(crate) accuracy: Option<MeanSd>,
    /// Of a training; none where nothing was trained.
    pub(crate) train_seconds: Option<MeanSd>,
    /// mAP@all of each seed.
    pub(crate) per_seed: Vec<ByBits<f64>>,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct Machine {
    pub(crate) cpu: String,
    pub(crate) cores: usize,
    pub(crate) system: String,
}

#[derive(Serialize, Deserialize, Clone, Copy, Default, PartialEq)]
pub(crate) struct Items {
    pub(crate) train: usize,
    pub(crate) query: usize,
    pub(crate) gallery: usize,
}

impl Items {
    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

#[derive(Serialize, Deserialize)]
pub(crate) struct Ties {
    pub(crate) worst: f64,
    pub(crate) by_id: f64,
    pub(crate) best: f64,
}

/// Curves over one list of recalls.
#[derive(Serialize, Deserialize)]
pub(crate) struct PrecisionRecall {
    pub(crate) recall: Vec<f64>,
    pub(crate) curves: Vec<NamedCurve>,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct NamedCurve {
    pub(crate) name: String,
    pub(crate) precision: Vec<f64>,
}

/// Codes of raw pixels by residual k-means, without a network.
#[derive(Serialize, Deserialize)]
pub(crate) struct BaselineResults {
    /// Of the images as they were taken, `[C, H, W]`. Early files have none.
    pub(crate) shape: Option<[usize; 3]>,
    pub(crate) map_all: ByBits<f64>,
    pub(crate) map_at_5000: ByBits<f64>,
    pub(crate) feature_map_all: f64,
    pub(crate) feature_map_at_5000: f64,
    /// Early files have none.
    pub(crate) feature_precision_at: Option<ByRank<f64>>,
    pub(crate) distortion: Vec<f64>,
}

#[derive(Serialize, Deserialize, Clone, Copy)]
pub(crate) struct Seconds {
    pub(crate) train: f64,
    /// Gallery and queries.
    pub(crate) encode: f64,
    pub(crate) index: f64,
    /// All queries over the whole gallery at the four lengths, as far as it is search.
    pub(crate) search: f64,
    /// The same, as far as it is evaluation.
    pub(crate) evaluate: f64,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct PeakMemory {
    pub(crate) train: Option<u64>,
    pub(crate) encode: Option<u64>,
    pub(crate) evaluate: Option<u64>,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct SeedResults {
    pub(crate) seed: u16,
    pub(crate) fingerprint: String,
    pub(crate) map_all: ByBits<f64>,
    pub(crate) map_at_5000: ByBits<f64>,
    pub(crate) feature_map_all: f64,
    pub(crate) accuracy: Option<f64>,
    pub(crate) seconds: Seconds,
}

impl Results {
    /// The rule by which the paper judges the data set, and mAP by it: of codes, and of features.
    pub(crate) fn judged(&self) -> (&'static str, &ByBits<MeanSd>, &MeanSd) {
        match self.judged_at_5000() {
            false => ("mAP@all", &self.map_all, &self.feature_map_all),
            true => ("mAP@5000", &self.map_at_5000, &self.feature_map_at_5000),
        }
    }

    /// The same of a variant.
    pub(crate) fn judged_variant<'a>(&self, variant: &'a VariantResults) -> (&'a ByBits<MeanSd>, &'a MeanSd) {
        match self.judged_at_5000() {
            false => (&variant.map_all, &variant.feature_map_all),
            true => (&variant.map_at_5000, &variant.feature_map_at_5000),
        }
    }

    /// Whether items may have several labels.
    pub(crate) fn is_multi_label(&self) -> bool {
        match &self.classification_loss {
            Some(loss) => loss == "sigmoid",
            None => ["nus-wide-21", "fashion-collage"].contains(&self.dataset.as_str()),
        }
    }

    fn judged_at_5000(&self) -> bool {
        ["nus-wide-21", "imagenet-100"].contains(&self.dataset.as_str())
    }

    /// One line a key, so that a change shows in a diff without a line for every point of a curve.
    pub(crate) fn to_json(&self) -> Result<String> {
        let value = serde_json::to_value(self)?;
        let fields = value.as_object().context("results are an object")?;
        let lines: Vec<String> = fields.iter().map(|(key, value)| format!("  \"{key}\": {value}")).collect();
        Ok(format!("{{\n{}\n}}\n", lines.join(",\n")))
    }

    pub(crate) fn from_json(json: &str) -> Result<Self> {
        serde_json::from_str(json).context("these are no results of this version")
    }
}
