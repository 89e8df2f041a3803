//! From finished stages to the numbers of a report: means and standard deviations over seeds.

use std::collections::BTreeMap;
use std::{env, fs, thread};

use anyhow::{Result, ensure};

use super::Settings;
use super::dpq::{Curve, Metrics, Usage};
use super::pipeline::{BITS, Baseline, CUTOFF, Scores, SeedRun, VariantRun};
use super::results::{
    BaselineResults, ByBits, ByRank, Items, Machine, MeanSd, NamedCurve, PeakMemory, PrecisionRecall,
    Results, Seconds, SeedResults, Ties, VariantResults,
};
use super::variants::{Change, Variant};
use crate::process;

/// The results of one or more trainings, all with the same settings; `run_wall_seconds` are those of all stages.
pub(crate) fn gather(
    settings: &Settings,
    runs: &[SeedRun],
    baseline: &Baseline,
    run_wall_seconds: f64,
) -> Result<Results> {
    ensure!(!runs.is_empty(), "no training was run");
    let over = Over(runs);
    let (first, codes) = (&runs[0], &runs[0].scores.codes.result);
    let n_levels = first.gallery.result.relative_distortion.len();
    let distortion = |level: usize| over.mean(&|run| run.gallery.result.relative_distortion[level]);
    let usage = |level: usize| {
        let of = |run: &SeedRun| run.gallery.result.usage[level];
        Usage {
            used: over.mean(&|run| of(run).used),
            perplexity: over.mean(&|run| of(run).perplexity),
            distinct: over.mean(&|run| of(run).distinct),
        }
    };

    Ok(Results {
        dataset: settings.dataset_name(),
        preset: settings.preset.clone(),
        changes: settings.changes.clone(),
        seeds: runs.len(),
        commit: process::commit(&["Cargo.toml", "Cargo.lock", "crates", "datasets", "xtask"]),
        machine: machine(),
        device: settings.device.clone(),
        weights: first.train.result.weights.clone(),
        config: first.train.result.config.clone(),
        embeddings: first.train.result.embeddings.clone(),
        embeddings_file: settings.embeddings_name(),
        classification_loss: Some(first.train.result.classification_loss.clone()),
        items: Items { train: first.train.result.images, query: codes.queries, gallery: codes.gallery },
        left_out: Items {
            train: first.train.result.left_out,
            query: first.query.result.left_out,
            gallery: first.gallery.result.left_out,
        },
        map_rule: codes.map_rule.clone(),
        map_all: by_bits(|bits| over.spread(&|run| run.scores.at(bits).map)),
        map_at_5000: by_bits(|bits| over.spread(&|run| run.scores.at(bits).map_at[&CUTOFF])),
        feature_map_all: over.spread(&|run| run.scores.features.map),
        feature_map_at_5000: over.spread(&|run| run.scores.features.map_at[&CUTOFF]),
        ties: by_bits(|bits| Ties {
            worst: over.mean(&|run| run.scores.at(bits).map_min),
            by_id: over.mean(&|run| run.scores.at(bits).map_by_id),
            best: over.mean(&|run| run.scores.at(bits).map_max),
        }),
        precision_at: over.at_ranks(&|metrics| &metrics.precision_at),
        feature_precision_at: Some(over.at_feature_ranks(&|metrics| &metrics.precision_at)),
        recall_at: over.at_ranks(&|metrics| &metrics.recall_at),
        precision_recall: precision_recall(&over, baseline)?,
        accuracy: over.spread_if(&|run| run.gallery.result.accuracy),
        query_accuracy: over.spread_if(&|run| run.query.result.accuracy),
        distortion: (0..n_levels).map(distortion).collect(),
        usage: (0..n_levels).map(usage).collect(),
        baseline: BaselineResults {
            shape: baseline.train.result.shape,
            map_all: by_bits(|bits| baseline.scores.at(bits).map),
            map_at_5000: by_bits(|bits| baseline.scores.at(bits).map_at[&CUTOFF]),
            feature_map_all: baseline.scores.features.map,
            feature_map_at_5000: baseline.scores.features.map_at[&CUTOFF],
            feature_precision_at: Some(baseline.scores.features.precision_at.clone()),
            distortion: baseline.codes.result.relative_distortion.clone(),
        },
        seconds: Seconds {
            train: over.mean(&|run| run.seconds().train),
            encode: over.mean(&|run| run.seconds().encode),
            index: over.mean(&|run| run.seconds().index),
            search: over.mean(&|run| run.seconds().search),
            evaluate: over.mean(&|run| run.seconds().evaluate),
        },
        wall_seconds: over.mean(&SeedRun::wall_seconds),
        run_wall_seconds: Some(run_wall_seconds),
        train_images_per_second: over.mean(&|run| run.train.result.images_per_second),
        encode_images_per_second: over.mean(&|run| run.gallery.result.items_per_second),
        search: BITS.into_iter().zip(first.search.iter().map(|stage| stage.result.clone())).collect(),
        bytes_per_item: first.scores.index.result.bytes_per_item,
        peak_memory_bytes: PeakMemory {
            train: runs.iter().filter_map(|run| run.train.result.peak_memory_bytes).max(),
            encode: runs.iter().filter_map(|run| run.gallery.result.peak_memory_bytes).max(),
            evaluate: runs.iter().filter_map(|run| run.scores.codes.result.peak_memory_bytes).max(),
        },
        per_seed: runs.iter().map(SeedRun::results).collect(),
        variants: Vec::new(),
    })
}

/// The results of a variant, from its runs with each seed.
pub(crate) fn variant(variant: &Variant, runs: &[VariantRun]) -> VariantResults {
    let spread = |value: &dyn Fn(&VariantRun) -> f64| mean_sd(&runs.iter().map(value).collect::<Vec<_>>());
    let spread_if = |value: &dyn Fn(&VariantRun) -> Option<f64>| {
        Some(mean_sd(&runs.iter().map(value).collect::<Option<Vec<_>>>()?))
    };
    let lengths = || runs[0].scores.codes.result.by_bits.keys().copied();
    VariantResults {
        name: variant.name.to_owned(),
        change: match variant.change {
            Change::Train(lines) => {
                lines.iter().map(|line| format!("--set {line}")).collect::<Vec<_>>().join(" ")
            }
            Change::Features(options) => options.to_owned(),
        },
        map_all: lengths().map(|bits| (bits, spread(&|run| run.scores.at(bits).map))).collect(),
        map_at_5000: lengths()
            .map(|bits| (bits, spread(&|run| run.scores.at(bits).map_at[&CUTOFF])))
            .collect(),
        feature_map_all: spread(&|run| run.scores.features.map),
        feature_map_at_5000: spread(&|run| run.scores.features.map_at[&CUTOFF]),
        accuracy: spread_if(&|run| run.accuracy),
        train_seconds: spread_if(&|run| Some(run.train.as_ref()?.result.seconds)),
        per_seed: runs
            .iter()
            .map(|run| lengths().map(|bits| (bits, run.scores.at(bits).map)).collect())
            .collect(),
    }
}

/// Statistics over trainings.
struct Over<'a>(&'a [SeedRun]);

impl Over<'_> {
    fn spread(&self, value: &dyn Fn(&SeedRun) -> f64) -> MeanSd {
        mean_sd(&self.0.iter().map(value).collect::<Vec<_>>())
    }

    fn mean(&self, value: &dyn Fn(&SeedRun) -> f64) -> f64 {
        self.spread(value)[0]
    }

    /// `None` if any of the trainings has no such value.
    fn spread_if(&self, value: &dyn Fn(&SeedRun) -> Option<f64>) -> Option<MeanSd> {
        Some(mean_sd(&self.0.iter().map(value).collect::<Option<Vec<_>>>()?))
    }

    fn at_ranks(&self, value: &dyn Fn(&Metrics) -> &ByRank<f64>) -> ByBits<ByRank<f64>> {
        by_bits(|bits| {
            let ranks = value(self.0[0].scores.at(bits)).keys();
            ranks.map(|rank| (*rank, self.mean(&|run| value(run.scores.at(bits))[rank]))).collect()
        })
    }

    fn at_feature_ranks(&self, value: &dyn Fn(&Metrics) -> &ByRank<f64>) -> ByRank<f64> {
        let ranks = value(&self.0[0].scores.features).keys();
        ranks.map(|rank| (*rank, self.mean(&|run| value(&run.scores.features)[rank]))).collect()
    }

    /// The mean of the curves at each level of recall.
    fn curve(&self, name: &str, curve: &dyn Fn(&SeedRun) -> &Curve) -> NamedCurve {
        let n_points = curve(&self.0[0]).precision.len();
        let precision = |point: usize| self.mean(&|run| curve(run).precision[point]);
        NamedCurve { name: name.to_owned(), precision: (0..n_points).map(precision).map(round).collect() }
    }
}

impl Scores {
    fn at(&self, bits: u32) -> &Metrics {
        &self.codes.result.by_bits[&bits]
    }
}

impl SeedRun {
    fn seconds(&self) -> Seconds {
        let Self { train, gallery, query, scores, .. } = self;
        Seconds {
            train: train.result.seconds,
            encode: gallery.result.seconds + query.result.seconds,
            index: scores.index.result.seconds,
            search: scores.codes.result.seconds.search,
            evaluate: scores.codes.result.seconds.evaluate,
        }
    }

    fn wall_seconds(&self) -> f64 {
        let Self { train, gallery, query, search, scores, .. } = self;
        let search: f64 = search.iter().map(|stage| stage.wall_seconds).sum();
        let evaluate = scores.codes.wall_seconds + scores.features_wall_seconds;
        train.wall_seconds
            + gallery.wall_seconds
            + query.wall_seconds
            + scores.index.wall_seconds
            + search
            + evaluate
    }

    fn results(&self) -> SeedResults {
        SeedResults {
            seed: self.seed,
            fingerprint: self.train.result.fingerprint.clone(),
            map_all: by_bits(|bits| self.scores.at(bits).map),
            map_at_5000: by_bits(|bits| self.scores.at(bits).map_at[&CUTOFF]),
            feature_map_all: self.scores.features.map,
            accuracy: self.gallery.result.accuracy,
            seconds: self.seconds(),
        }
    }
}

fn precision_recall(over: &Over, baseline: &Baseline) -> Result<PrecisionRecall> {
    let recall = &over.0[0].scores.features.pr_curve.recall;
    let of_run = |run: &SeedRun| {
        BITS.iter().all(|&bits| run.scores.at(bits).pr_curve.recall == *recall)
            && run.scores.features.pr_curve.recall == *recall
    };
    let pixels = &baseline.scores.at(BITS[BITS.len() - 1]).pr_curve;
    ensure!(
        over.0.iter().all(of_run) && pixels.recall == *recall,
        "precision-recall curves have different levels of recall and no mean"
    );
    let name = |bits: u32| format!("{bits} bits");
    let codes = BITS.map(|bits| over.curve(&name(bits), &|run| &run.scores.at(bits).pr_curve));
    let features = over.curve("unquantised", &|run| &run.scores.features.pr_curve);
    let pixels = NamedCurve {
        name: format!("raw pixels, {}", name(BITS[BITS.len() - 1])),
        precision: pixels.precision.iter().copied().map(round).collect(),
    };
    let recall = recall.iter().copied().map(round).collect();
    Ok(PrecisionRecall { recall, curves: codes.into_iter().chain([features, pixels]).collect() })
}

/// Points of curves are drawn, not compared.
fn round(x: f64) -> f64 {
    (x * 1e4).round() / 1e4
}

fn by_bits<T>(value: impl Fn(u32) -> T) -> ByBits<T> {
    BITS.into_iter().map(|bits| (bits, value(bits))).collect::<BTreeMap<_, _>>()
}

fn mean_sd(values: &[f64]) -> MeanSd {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    [mean, if values.len() > 1 { (squares / (n - 1.0)).sqrt() } else { 0.0 }]
}

fn machine() -> Machine {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    Machine {
        cpu: model.map_or(env::consts::ARCH, |(_, model)| model).to_owned(),
        cores: thread::available_parallelism().map_or(1, usize::from),
        system: format!("{} {}", env::consts::OS, env::consts::ARCH),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spread_is_of_a_sample() {
        assert_eq!(mean_sd(&[0.5]), [0.5, 0.0]);
        assert_eq!(mean_sd(&[1.0, 2.0, 3.0]), [2.0, 1.0]);
    }
}
