//! The JSON objects that `dpq ... --json` prints, as far as reports use them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Of `dpq train`.
#[derive(Deserialize)]
pub(crate) struct Trained {
    pub(crate) fingerprint: String,
    pub(crate) seconds: f64,
    pub(crate) images_per_second: f64,
    pub(crate) images: usize,
    /// Training images that could not be read.
    pub(crate) left_out: usize,
    pub(crate) config: Value,
    /// `seeded`, or `given` and a checksum.
    pub(crate) embeddings: Option<String>,
    /// The classifier's: `softmax` or `sigmoid`.
    pub(crate) classification_loss: String,
    /// The fingerprint of the pretrained weights that the body started from.
    pub(crate) weights: Option<String>,
    pub(crate) peak_memory_bytes: Option<u64>,
}

/// Of `dpq train --print-config`.
#[derive(Deserialize)]
pub(crate) struct Configuration {
    pub(crate) quantizer: Quantizer,
}

#[derive(Deserialize)]
pub(crate) struct Quantizer {
    pub(crate) levels: usize,
}

/// Of `dpq encode`.
#[derive(Deserialize)]
pub(crate) struct Encoded {
    /// Images that could not be read.
    pub(crate) left_out: usize,
    pub(crate) seconds: f64,
    pub(crate) items_per_second: f64,
    /// Of the classifier, where there are labels and a model.
    pub(crate) accuracy: Option<f64>,
    /// By level.
    pub(crate) relative_distortion: Vec<f64>,
    /// By level.
    pub(crate) usage: Vec<Usage>,
    pub(crate) fingerprint: String,
    pub(crate) peak_memory_bytes: Option<u64>,
}

/// How a level's codewords are used, and how many codes there are up to it; means over seeds in a report.
#[derive(Deserialize, Serialize, Clone, Copy)]
pub(crate) struct Usage {
    pub(crate) used: f64,
    pub(crate) perplexity: f64,
    pub(crate) distinct: f64,
}

/// Of `dpq data export`.
#[derive(Deserialize)]
pub(crate) struct Exported {
    /// Of the images, `[C, H, W]`; none for features that a model made.
    pub(crate) shape: Option<[usize; 3]>,
}

/// Of `dpq codebook train`.
#[derive(Deserialize)]
pub(crate) struct Fitted {
    pub(crate) fingerprint: String,
}

/// Of `dpq index build`.
#[derive(Deserialize)]
pub(crate) struct Built {
    pub(crate) bytes_per_item: f64,
    pub(crate) seconds: f64,
    pub(crate) fingerprint: String,
}

/// Of `dpq search`.
#[derive(Deserialize, Serialize, Clone)]
pub(crate) struct Searched {
    pub(crate) threads: usize,
    pub(crate) kernel: String,
    pub(crate) k: usize,
    pub(crate) ns_per_query_median: u64,
    pub(crate) ns_per_query_p99: u64,
    /// By query, nearest first. Not in a report.
    #[serde(skip_serializing, default)]
    pub(crate) hits: Vec<Vec<Hit>>,
}

#[derive(Deserialize, Clone)]
pub(crate) struct Hit {
    pub(crate) id: u64,
}

/// Of `dpq decode`.
#[derive(Deserialize)]
pub(crate) struct Decoded {
    pub(crate) dim: usize,
}

/// Of `dpq data images`.
#[derive(Deserialize)]
pub(crate) struct Images {
    pub(crate) classes: Vec<String>,
}

/// Of `dpq eval`.
#[derive(Deserialize)]
pub(crate) struct Evaluation {
    pub(crate) map_rule: Value,
    pub(crate) queries: usize,
    pub(crate) gallery: usize,
    /// With an index.
    #[serde(default)]
    pub(crate) by_bits: BTreeMap<u32, Metrics>,
    /// With the gallery's features.
    pub(crate) features: Option<Metrics>,
    pub(crate) seconds: EvaluationSeconds,
    pub(crate) peak_memory_bytes: Option<u64>,
}

/// Metrics of one ranking rule, means over queries.
#[derive(Deserialize, Clone)]
pub(crate) struct Metrics {
    pub(crate) map: f64,
    pub(crate) map_by_id: f64,
    pub(crate) map_min: f64,
    pub(crate) map_max: f64,
    pub(crate) map_at: BTreeMap<u32, f64>,
    pub(crate) precision_at: BTreeMap<u32, f64>,
    pub(crate) recall_at: BTreeMap<u32, f64>,
    pub(crate) pr_curve: Curve,
}

/// Precision at levels of recall.
#[derive(Deserialize, Clone)]
pub(crate) struct Curve {
    pub(crate) recall: Vec<f64>,
    pub(crate) precision: Vec<f64>,
}

#[derive(Deserialize)]
pub(crate) struct EvaluationSeconds {
    pub(crate) search: f64,
    pub(crate) evaluate: f64,
}
