//! From the measurements of single trainings to means and standard deviations over them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::Error;
use crate::results::{
    About, BaselineResults, ByBits, ByRank, CUTOFF, MeanSd, NamedCurve, PeakMemory, PrecisionRecall, Results,
    Searched, Seconds, SeedResults, Ties, Usage, VariantResults, round,
};

/// The measurements of one training.
#[derive(Clone, Debug)]
pub struct Run {
    /// The seed of the training.
    pub seed: u64,
    /// The fingerprint of its codebooks.
    pub fingerprint: String,
    /// How codes rank the gallery.
    pub by_bits: ByBits<Metrics>,
    /// How features before quantization rank it.
    pub features: Metrics,
    /// How other codes rank it, by name; empty if not asked for.
    pub baselines: Vec<(String, Rankings)>,
    /// Accuracy of the classifier on the gallery.
    pub accuracy: Option<f64>,
    /// Accuracy of the classifier on the queries.
    pub query_accuracy: Option<f64>,
    /// Relative distortion on the gallery by level.
    pub distortion: Vec<f64>,
    /// Use of codewords on the gallery by level.
    pub usage: Vec<Usage>,
    /// Wall-clock seconds by stage.
    pub seconds: Seconds,
    /// Wall-clock seconds of all stages.
    pub wall_seconds: f64,
    /// Training images per second.
    pub train_images_per_second: f64,
    /// Gallery images encoded per second.
    pub encode_images_per_second: f64,
    /// Search latencies.
    pub search: ByBits<Searched>,
    /// Size of the index file over the number of items.
    pub bytes_per_item: f64,
    /// Peak memory by stage.
    pub peak_memory_bytes: PeakMemory,
}

/// How well a ranking finds relevant items: means over queries, in the form of `dpq eval --json`.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Metrics {
    /// mAP by the stated rule.
    pub map: f64,
    /// mAP with tied items in the order of their ids.
    pub map_by_id: f64,
    /// The minimum over all orders of tied items.
    pub map_min: f64,
    /// The maximum over all orders of tied items.
    pub map_max: f64,
    /// mAP of the first ranks.
    pub map_at: ByRank<f64>,
    /// Precision within the first ranks.
    pub precision_at: ByRank<f64>,
    /// Recall within the first ranks.
    pub recall_at: ByRank<f64>,
    /// Precision by recall.
    pub pr_curve: Curve,
    /// Mean reciprocal rank of the first relevant item, if relevance was given as pairs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mrr: Option<f64>,
    /// Normalised discounted cumulative gain of the first ranks, likewise.
    #[serde(default, skip_serializing_if = "ByRank::is_empty")]
    pub ndcg_at: ByRank<f64>,
    /// Queries without any relevant item.
    pub empty_queries: usize,
}

/// Rankings by codes of any features, and by the features.
#[derive(Clone, Debug)]
pub struct Rankings {
    /// How codes rank the gallery.
    pub by_bits: ByBits<Metrics>,
    /// How features before quantization rank it.
    pub features: Metrics,
    /// Relative distortion on the gallery by level.
    pub distortion: Vec<f64>,
}

impl Metrics {
    /// Returns mAP of the first [`CUTOFF`] ranks, NaN if it was not measured.
    fn map_at_cutoff(&self) -> f64 {
        self.map_at.get(&CUTOFF).copied().unwrap_or(f64::NAN)
    }
}

/// Precision at several recalls.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Curve {
    /// The recall of each point.
    pub recall: Vec<f64>,
    /// The precision of each point.
    pub precision: Vec<f64>,
}

impl Results {
    /// Takes means and standard deviations over `runs`, which have equal code lengths. The result
    /// has no baseline and no variants.
    ///
    /// # Errors
    /// [`Error::NoRuns`] and [`Error::DifferentLengths`].
    pub fn new(about: About, runs: &[Run]) -> Result<Self, Error> {
        let first = runs.first().ok_or(Error::NoRuns)?;
        let lengths = |run: &Run| run.by_bits.keys().copied().collect::<Vec<_>>();
        if let Some(other) = runs.iter().position(|run| lengths(run) != lengths(first)) {
            let (found, expected) = (lengths(&runs[other]), lengths(first));
            return Err(Error::DifferentLengths { run: other + 1, found, expected });
        }
        let over = Over(runs);
        let usage = |level: usize| Usage {
            used: over.mean(|run| run.usage[level].used),
            perplexity: over.mean(|run| run.usage[level].perplexity),
            distinct: over.mean(|run| run.usage[level].distinct),
        };
        Ok(Self {
            about,
            seeds: runs.len(),
            map_all: over.by_bits(|bits| over.spread(|run| run.by_bits[&bits].map)),
            map_at_5000: over.by_bits(|bits| over.spread(|run| run.by_bits[&bits].map_at_cutoff())),
            feature_map_all: over.spread(|run| run.features.map),
            feature_map_at_5000: over.spread(|run| run.features.map_at_cutoff()),
            ties: over.by_bits(|bits| Ties {
                worst: over.mean(|run| run.by_bits[&bits].map_min),
                by_id: over.mean(|run| run.by_bits[&bits].map_by_id),
                best: over.mean(|run| run.by_bits[&bits].map_max),
            }),
            precision_at: over.by_bits(|bits| over.by_rank(|run| &run.by_bits[&bits].precision_at)),
            feature_precision_at: over.by_rank(|run| &run.features.precision_at),
            recall_at: over.by_bits(|bits| over.by_rank(|run| &run.by_bits[&bits].recall_at)),
            precision_recall: over.precision_recall(),
            accuracy: mean_sd_if(runs.iter().map(|run| run.accuracy)),
            query_accuracy: mean_sd_if(runs.iter().map(|run| run.query_accuracy)),
            distortion: (0..first.distortion.len())
                .map(|level| over.mean(|run| run.distortion[level]))
                .collect(),
            usage: (0..first.usage.len()).map(usage).collect(),
            baseline: None,
            baselines: over.baselines(),
            seconds: Seconds {
                train: over.mean(|run| run.seconds.train),
                encode: over.mean(|run| run.seconds.encode),
                index: over.mean(|run| run.seconds.index),
                search: over.mean(|run| run.seconds.search),
                evaluate: over.mean(|run| run.seconds.evaluate),
            },
            wall_seconds: over.mean(|run| run.wall_seconds),
            run_wall_seconds: None,
            train_images_per_second: over.mean(|run| run.train_images_per_second),
            encode_images_per_second: over.mean(|run| run.encode_images_per_second),
            search: first.search.clone(),
            bytes_per_item: first.bytes_per_item,
            peak_memory_bytes: PeakMemory {
                train: runs.iter().filter_map(|run| run.peak_memory_bytes.train).max(),
                encode: runs.iter().filter_map(|run| run.peak_memory_bytes.encode).max(),
                evaluate: runs.iter().filter_map(|run| run.peak_memory_bytes.evaluate).max(),
            },
            per_seed: runs.iter().map(Run::results).collect(),
            variants: Vec::new(),
            unseen: None,
        })
    }
}

impl Results {
    /// Sets the numbers of raw pixels, `[C, H, W]`, and adds their curve at the longest length.
    pub fn set_baseline(&mut self, pixels: Rankings, shape: Option<[usize; 3]>) {
        let Rankings { by_bits, features, distortion } = pixels;
        let longest = by_bits.last_key_value();
        self.precision_recall.curves.extend(longest.map(|(bits, metrics)| {
            let precision = metrics.pr_curve.precision.iter().copied();
            NamedCurve::new(format!("raw pixels, {bits} bits"), precision)
        }));
        self.baseline = Some(BaselineResults {
            shape,
            map_all: values(&by_bits, |metrics| metrics.map),
            map_at_5000: values(&by_bits, Metrics::map_at_cutoff),
            feature_map_all: features.map,
            feature_map_at_5000: features.map_at_cutoff(),
            feature_precision_at: features.precision_at,
            distortion,
        });
    }
}

impl VariantResults {
    /// Returns the numbers of trainings with one change.
    pub fn of_trainings(name: &str, change: &str, results: Results) -> Self {
        Self {
            name: name.to_owned(),
            change: change.to_owned(),
            train_seconds: mean_sd_if(results.per_seed.iter().map(|seed| Some(seed.seconds.train))),
            per_seed: results.per_seed.into_iter().map(|seed| seed.map_all).collect(),
            map_all: results.map_all,
            map_at_5000: results.map_at_5000,
            feature_map_all: results.feature_map_all,
            feature_map_at_5000: results.feature_map_at_5000,
            accuracy: results.accuracy,
        }
    }

    /// Returns means and deviations over the means of `parts`, of which there is at least one.
    pub fn over(parts: &[Self]) -> Self {
        let spread = |value: &dyn Fn(&Self) -> MeanSd| -> MeanSd {
            mean_sd(&parts.iter().map(|part| value(part)[0]).collect::<Vec<_>>())
        };
        let by_bits = |maps: fn(&Self) -> &ByBits<MeanSd>| {
            let of =
                |&bits: &u32| (bits, spread(&|part| maps(part).get(&bits).copied().unwrap_or([f64::NAN; 2])));
            maps(&parts[0]).keys().map(of).collect()
        };
        Self {
            map_all: by_bits(|part| &part.map_all),
            map_at_5000: by_bits(|part| &part.map_at_5000),
            feature_map_all: spread(&|part| part.feature_map_all),
            feature_map_at_5000: spread(&|part| part.feature_map_at_5000),
            accuracy: None,
            train_seconds: mean_sd_if(parts.iter().map(|part| Some(part.train_seconds?[0]))),
            per_seed: parts.iter().map(|part| values_of(&part.map_all)).collect(),
            ..parts[0].clone()
        }
    }

    /// Returns the numbers of other features by the same trainings, one ranking per training.
    pub fn of_features(name: &str, change: &str, trainings: &[Rankings]) -> Self {
        let spread = |value: &dyn Fn(&Rankings) -> f64| -> MeanSd {
            mean_sd(&trainings.iter().map(value).collect::<Vec<_>>())
        };
        let by_bits = |value: fn(&Metrics) -> f64| {
            let lengths = trainings.iter().flat_map(|rankings| rankings.by_bits.keys().copied());
            lengths.map(|bits| (bits, spread(&|rankings| value(&rankings.by_bits[&bits])))).collect()
        };
        Self {
            name: name.to_owned(),
            change: change.to_owned(),
            map_all: by_bits(|metrics| metrics.map),
            map_at_5000: by_bits(Metrics::map_at_cutoff),
            feature_map_all: spread(&|rankings| rankings.features.map),
            feature_map_at_5000: spread(&|rankings| rankings.features.map_at_cutoff()),
            accuracy: None,
            train_seconds: None,
            per_seed: trainings.iter().map(|one| values(&one.by_bits, |metrics| metrics.map)).collect(),
        }
    }
}

fn values_of(by_bits: &ByBits<MeanSd>) -> ByBits<f64> {
    by_bits.iter().map(|(&bits, map)| (bits, map[0])).collect()
}

fn values(by_bits: &ByBits<Metrics>, value: fn(&Metrics) -> f64) -> ByBits<f64> {
    by_bits.iter().map(|(&bits, metrics)| (bits, value(metrics))).collect()
}

impl Run {
    fn results(&self) -> SeedResults {
        SeedResults {
            seed: self.seed,
            fingerprint: self.fingerprint.clone(),
            map_all: values(&self.by_bits, |metrics| metrics.map),
            map_at_5000: values(&self.by_bits, Metrics::map_at_cutoff),
            feature_map_all: self.features.map,
            accuracy: self.accuracy,
            seconds: self.seconds,
        }
    }
}

/// Statistics over trainings, of which there is at least one.
struct Over<'a>(&'a [Run]);

impl Over<'_> {
    fn spread(&self, value: impl Fn(&Run) -> f64) -> MeanSd {
        mean_sd(&self.0.iter().map(value).collect::<Vec<_>>())
    }

    fn mean(&self, value: impl Fn(&Run) -> f64) -> f64 {
        self.spread(value)[0]
    }

    fn by_bits<T>(&self, value: impl Fn(u32) -> T) -> ByBits<T> {
        self.0[0].by_bits.keys().map(|&bits| (bits, value(bits))).collect::<BTreeMap<_, _>>()
    }

    fn by_rank(&self, values: impl Fn(&Run) -> &ByRank<f64>) -> ByRank<f64> {
        let ranks = values(&self.0[0]).keys();
        ranks
            .map(|rank| (*rank, self.mean(|run| values(run).get(rank).copied().unwrap_or(f64::NAN))))
            .collect()
    }

    /// The rows that all runs have.
    fn baselines(&self) -> Vec<VariantResults> {
        let row = |(at, (name, _)): (usize, &(String, Rankings))| {
            let rankings = self.0.iter().map(|run| Some(run.baselines.get(at)?.1.clone()));
            Some(VariantResults::of_features(name, "", &rankings.collect::<Option<Vec<_>>>()?))
        };
        self.0[0].baselines.iter().enumerate().filter_map(row).collect()
    }

    /// The mean precision at each recall.
    fn precision_recall(&self) -> PrecisionRecall {
        let recall = &self.0[0].features.pr_curve.recall;
        let curve = |name: String, curve: &dyn Fn(&Run) -> &Curve| {
            let at =
                |point: usize| self.mean(|run| curve(run).precision.get(point).copied().unwrap_or(f64::NAN));
            NamedCurve::new(name, (0..recall.len()).map(at))
        };
        let codes = self.0[0].by_bits.keys();
        let codes = codes.map(|bits| curve(format!("{bits} bits"), &|run| &run.by_bits[bits].pr_curve));
        let features = curve("unquantised".to_owned(), &|run| &run.features.pr_curve);
        PrecisionRecall {
            curves: codes.chain([features]).collect(),
            recall: recall.iter().copied().map(round).collect(),
        }
    }
}

/// Returns mean and sample standard deviation.
pub fn mean_sd(values: &[f64]) -> MeanSd {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    [mean, if values.len() > 1 { (squares / (n - 1.0)).sqrt() } else { 0.0 }]
}

/// Returns the same if every value exists.
fn mean_sd_if(values: impl Iterator<Item = Option<f64>>) -> Option<MeanSd> {
    Some(mean_sd(&values.collect::<Option<Vec<_>>>()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_splits_become_a_mean_and_a_deviation() {
        let part = |map: f64| VariantResults {
            name: "row".to_owned(),
            change: String::new(),
            map_all: [(8, [map, 0.0]), (16, [2.0 * map, 0.0])].into(),
            map_at_5000: [(8, [map, 0.0])].into(),
            feature_map_all: [3.0 * map, 0.0],
            feature_map_at_5000: [map, 0.0],
            accuracy: None,
            train_seconds: None,
            per_seed: Vec::new(),
        };
        let over = VariantResults::over(&[part(0.1), part(0.2), part(0.3)]);
        let close = |[mean, sd]: MeanSd, expected: [f64; 2]| {
            assert!((mean - expected[0]).abs() < 1e-12 && (sd - expected[1]).abs() < 1e-12, "{mean} {sd}");
        };
        close(over.map_all[&8], [0.2, 0.1]);
        close(over.map_all[&16], [0.4, 0.2]);
        close(over.feature_map_all, [0.6, 0.3]);
        assert_eq!(over.per_seed[2][&8], 0.3);
    }

    #[test]
    fn deviation_is_that_of_a_sample() {
        assert_eq!(mean_sd(&[0.5]), [0.5, 0.0]);
        assert_eq!(mean_sd(&[1.0, 2.0, 3.0]), [2.0, 1.0]);
        assert_eq!(mean_sd_if([Some(1.0), None].into_iter()), None);
    }
}
