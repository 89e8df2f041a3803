//! Codes of a set with classes: trained, and ranked by its queries.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use dpq_report::Metrics;
use dpq_report::results::ByBits;
use dpq_report::study::Row;
use serde::Deserialize;
use serde_json::Value;

use super::stage::{Runner, Stage};

/// A set, and the folder of its stages. Inputs are options of `dpq`: images, or their features.
pub(super) struct Set {
    pub(super) runner: Runner,
    pub(super) folder: PathBuf,
    /// Options of `dpq train`.
    pub(super) train: String,
    /// Options of `dpq encode`.
    pub(super) gallery: String,
    /// Options of `dpq features`.
    pub(super) query: String,
    /// The labels of gallery and queries, if the inputs have none.
    pub(super) labels: Option<[String; 2]>,
    /// The keys of stages that made the inputs, and hashes of files that a training reads.
    pub(super) upstream: Vec<String>,
}

/// The output of `dpq eval`.
#[derive(Deserialize)]
pub(super) struct Evaluation {
    map_rule: Rule,
    pub(super) queries: usize,
    pub(super) gallery: usize,
    by_bits: ByBits<Metrics>,
    features: Option<Metrics>,
}

#[derive(Deserialize)]
struct Rule {
    text: String,
}

/// A trained model, or codebooks, with the codes of the gallery and the features of the queries.
struct Ranked<'a> {
    codebook: &'a str,
    codes: &'a Stage<Value>,
    /// The features of the gallery.
    features: &'a str,
    queries: &'a str,
    upstream: &'a [&'a str],
}

impl Set {
    /// The images of a data set folder.
    pub(super) fn images(runner: Runner, folder: PathBuf, data: &Path) -> Self {
        let split = |split: &str| format!("--data {} --split {split}", data.display());
        Self {
            runner,
            folder,
            train: format!("--data {}", data.display()),
            gallery: split("gallery"),
            query: split("query"),
            labels: None,
            upstream: Vec::new(),
        }
    }

    /// Trains by the options of `dpq train`, in a folder of this name, and ranks by codes of `bits`
    /// bits, once for each list of options of `dpq eval`.
    pub(super) fn learnt(
        &self,
        name: &str,
        options: &str,
        bits: &[u32],
        rankings: &[&str],
    ) -> Result<(Stage<Value>, Vec<Evaluation>)> {
        let dir = self.folder.join(name);
        let upstream: Vec<&str> = self.upstream.iter().map(String::as_str).collect();
        let command = format!("train {} {options} --out OUT --resume", self.train);
        let trained: Stage<Value> = self.runner.run(&dir.join("train"), &upstream, &command)?;
        let model = trained.file("model.safetensors");
        let command = format!("encode --model {model} {} --out-dir OUT", self.gallery);
        let codes: Stage<Value> = self.runner.run(&dir.join("gallery"), &[&trained.key], &command)?;
        let command = format!("features --model {model} {} --out-dir OUT", self.query);
        let queries: Stage<Value> = self.runner.run(&dir.join("query"), &[&trained.key], &command)?;
        let labels =
            self.labels.clone().unwrap_or_else(|| [&codes, &queries].map(|of| of.file("labels.npy")));
        let ranked = Ranked {
            codebook: &model,
            codes: &codes,
            features: &codes.file("features.npy"),
            queries: &queries.file("features.npy"),
            upstream: &[&queries.key],
        };
        let evaluations = self.rank(&dir, &ranked, &labels, bits, rankings)?;
        Ok((trained, evaluations))
    }

    /// Fits codes of least error to features, and ranks by them.
    pub(super) fn unlearnt(
        &self,
        name: &str,
        [train, gallery, query]: [&Stage<Value>; 3],
        bits: &[u32],
        rankings: &[&str],
    ) -> Result<Vec<Evaluation>> {
        let dir = self.folder.join(name);
        let levels = bits.iter().max().context("no lengths")? / 8;
        let features = train.file("features.npy");
        let command =
            format!("codebook train --features {features} --levels {levels} --out OUT/codebook.safetensors");
        let fitted: Stage<Value> = self.runner.run(&dir.join("codebook"), &[&train.key], &command)?;
        let (codebook, features) = (fitted.file("codebook.safetensors"), gallery.file("features.npy"));
        let command = format!("encode --codebook {codebook} --features {features} --out-dir OUT");
        let codes: Stage<Value> =
            self.runner.run(&dir.join("gallery"), &[&fitted.key, &gallery.key], &command)?;
        let ranked = Ranked {
            codebook: &codebook,
            codes: &codes,
            features: &features,
            queries: &query.file("features.npy"),
            upstream: &[&query.key, &gallery.key],
        };
        self.rank(&dir, &ranked, &[gallery, query].map(|of| of.file("labels.npy")), bits, rankings)
    }

    fn rank(
        &self,
        dir: &Path,
        ranked: &Ranked<'_>,
        [of_gallery, of_queries]: &[String; 2],
        bits: &[u32],
        rankings: &[&str],
    ) -> Result<Vec<Evaluation>> {
        let Ranked { codebook, codes, features, queries, upstream } = ranked;
        let command = format!(
            "index build --codes {} --codebook {codebook} --out OUT/index.dpq",
            codes.file("codes.npy")
        );
        let index: Stage<Value> = self.runner.run(&dir.join("index"), &[&codes.key], &command)?;
        let bits = bits.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        let upstream = [&[index.key.as_str()], *upstream].concat();
        let rank = |(at, options): (usize, &&str)| {
            let command = format!(
                "eval --index {} --queries {queries} --query-labels {of_queries} --gallery-labels {of_gallery} --bits \
                 {bits} {}",
                index.file("index.dpq"),
                options.replace("FEATURES", features)
            );
            let stage =
                self.runner.run::<Evaluation>(&dir.join(format!("rank-{at}")), &upstream, &command)?;
            Ok(stage.result)
        };
        rankings.iter().enumerate().map(rank).collect()
    }
}

impl Evaluation {
    /// The rule of the mean average precision.
    pub(super) fn rule(&self) -> &str {
        &self.map_rule.text
    }

    /// Returns the figure of each of `bits`, and that of the features, where there is one.
    pub(super) fn figures(&self, bits: &[u32], figure: impl Fn(&Metrics) -> f64) -> Vec<Option<f64>> {
        let of_codes = bits.iter().map(|bits| self.by_bits.get(bits).map(&figure));
        of_codes.chain([self.features.as_ref().map(&figure)]).collect()
    }
}

/// Makes a row of the figures of several trainings, whose columns may be empty.
pub(super) fn row(name: &str, trainings: &[Vec<Option<f64>>]) -> Row {
    let columns = trainings.iter().map(Vec::len).max().unwrap_or(0);
    let values = |column: usize| trainings.iter().filter_map(|figures| figures[column]).collect();
    Row { name: name.to_owned(), cells: (0..columns).map(values).collect() }
}

/// Says which seeds trainings have.
pub(super) fn about_seeds(seeds: u16) -> String {
    match seeds {
        1 => "Trainings have seed 1.".to_owned(),
        n => format!("Trainings have seeds 1 to {n}; numbers after ± are standard deviations over them."),
    }
}
