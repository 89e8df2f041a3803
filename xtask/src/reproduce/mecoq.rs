//! `--system mecoq`: codes learnt without labels from views of features of a frozen network, beside
//! codes of the same network that nothing trained.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use dpq_report::results::Machine;
use dpq_report::study::{Row, Section, Study};
use serde_json::Value;

use super::hash::Hash;
use super::phpq::study_files;
use super::ranked::{Evaluation, Set, about_seeds, row};
use super::stage::{Runner, Stage};
use super::{FOLDER, Settings, lock};
use crate::process;

const NAME: &str = "mecoq";

const BITS: [u32; 3] = [16, 32, 64];

/// The side of images.
const INPUT: u32 = 64;

/// The image itself and four random views of it.
const VIEWS: u32 = 5;

/// The cut-off of the mean average precision, as in the paper.
const CUTOFF: u32 = 1000;

const RANKINGS: [&str; 2] = ["--at 1000 --gallery-features FEATURES", "--at 1000 --symmetric"];

/// A row: its name, its preset, the lengths that have a training each, and what changes the preset.
type Variant = (&'static str, &'static str, &'static [u32], &'static [&'static str]);

const SYSTEMS: [Variant; 4] = [
    ("nested, one training", "mecoq", &[64], &[]),
    ("features alone, then residual k-means", "mecoq", &[64], &["schedule=\"two-step\""]),
    ("product, a training for each length", "mecoq-product", &BITS, &[]),
    ("product, codewords stay random", "mecoq-product", &BITS, &["codebook_optimizer.rate=0.0"]),
];

/// Rows of one length, which has the settings of the paper.
const ABLATIONS: [Variant; 6] = [
    ("nested, without memory", "mecoq", &[32], &["objective.mecoq.memory=0"]),
    ("nested, without debiasing", "mecoq", &[32], &["objective.mecoq.positives=0.0"]),
    ("nested, without diversity", "mecoq", &[32], &["objective.mecoq.diversity=0.0"]),
    ("product, without memory", "mecoq-product", &[32], &["objective.mecoq.memory=0"]),
    ("product, without debiasing", "mecoq-product", &[32], &["objective.mecoq.positives=0.0"]),
    ("product, without diversity", "mecoq-product", &[32], &["objective.mecoq.diversity=0.0"]),
];

/// Changes of every training.
const EPOCHS: &str = "epochs=20";

/// Runs the stages on the set of the settings and writes the report.
pub(super) fn run(settings: &Settings) -> Result<()> {
    let &Settings { write_docs, seeds, ref device, .. } = settings;
    ensure!(!settings.quick, "--system {NAME} has no quick form, leave out --quick");
    let weights = settings.weights.as_ref().context("there are no weights of a network, give --weights")?;
    let (name, data) = (settings.dataset_name(), settings.dataset.display());
    let folder = Path::new(FOLDER).join(format!("{name}-{NAME}"));
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let _lock = lock()?;
    let runner = Runner::new(process::build_dpq(device)?, &settings.dataset)?;
    let hash = Hash::of_file(weights)?;
    let features = |folder_name: &str, split: &str, more: &str| -> Result<Stage<Value>> {
        let command = format!(
            "features --weights {} --input {INPUT} --data {data} --split {split}{more} --device {device} --out-dir OUT",
            weights.display()
        );
        runner.run(&folder.join(folder_name), &[&hash], &command)
    };
    let views = features("views", "train", &format!(" --views {VIEWS}"))?;
    let train = features("train", "train", "")?;
    let [gallery, query] = ["gallery", "query"].map(|split| features(split, split, ""));
    let (gallery, query) = (gallery?, query?);
    let set = Set {
        train: format!("--features {} --views {VIEWS} --device {device}", views.file("features.npy")),
        gallery: format!("--features {}", gallery.file("features.npy")),
        query: format!("--features {}", query.file("features.npy")),
        labels: Some([&gallery, &query].map(|of| of.file("labels.npy"))),
        upstream: [&views, &gallery, &query].map(|of| of.key.clone()).into(),
        runner,
        folder: folder.clone(),
    };

    let frozen = set.unlearnt("frozen", [&train, &gallery, &query], &BITS, &RANKINGS)?;
    let about = format!(
        "{}; {} queries, {} other images",
        frozen[0].rule().replace("mAP@all", "mAP@1000"),
        frozen[0].queries,
        frozen[0].gallery
    );
    let mut rows = vec![row("frozen network, residual k-means", &[figures(&frozen)?])];
    let mut codewords = Vec::new();
    for (at, variant) in SYSTEMS.iter().enumerate() {
        rows.push(learnt(&set, &format!("system-{at}"), variant, seeds, &mut codewords)?);
    }
    let lengths = |kind: &str| BITS.map(|bits| format!("{bits} bits{kind}")).to_vec();
    let columns = [lengths(""), vec!["unquantised".to_owned()], lengths(", symmetric")].concat();
    let systems = Section {
        heading: "Systems".to_owned(),
        text: format!(
            "{about}. Symmetric: queries are quantized, too. Nested codes come from one training, product codes from one \
             for each length. Nothing is random in the first row."
        ),
        first: "codes".to_owned(),
        columns: columns.clone(),
        rows,
    };
    let mut rows = Vec::new();
    for (at, variant) in ABLATIONS.iter().enumerate() {
        rows.push(learnt(&set, &format!("ablation-{at}"), variant, seeds, &mut codewords)?);
    }
    let ablations = Section {
        heading: "Without parts of the loss".to_owned(),
        text: "As above. The parts are those of the training of 32 bits; nested codes are trained at 32 bits here, too."
            .to_owned(),
        first: "codes".to_owned(),
        columns,
        rows,
    };
    let collapse = Section {
        heading: "Do codewords collapse?".to_owned(),
        text: "After the last epoch of the longest codes of a row: the mean cosine of two codewords of a level, and the \
               perplexity of the first level, of 256."
            .to_owned(),
        first: "codes".to_owned(),
        columns: ["mean cosine", "perplexity"].map(str::to_owned).into(),
        rows: codewords,
    };
    let study = Study {
        title: format!("MeCoQ on {name}: codes without labels"),
        text: format!(
            "No training reads a label. A pretrained network is frozen; a linear layer and codewords learn from its \
             features of {} random views of each training image at {INPUT}×{INPUT} (`dpq features --weights W --input \
             {INPUT} --views {VIEWS}`, then `dpq train --features F --views {VIEWS} --preset P --set {EPOCHS}`). {}",
            VIEWS - 1,
            about_seeds(seeds)
        ),
        sections: vec![systems, ablations, collapse],
        command: format!(
            "cargo xtask reproduce-paper --system {NAME} --dataset {name} --weights W --seeds {seeds}{}",
            if write_docs { " --write-docs" } else { "" }
        ),
        commit: process::commit(&["Cargo.toml", "Cargo.lock", "crates", "datasets", "xtask"]),
        machine: Machine::this(),
    };
    study_files(&study, &folder.join("report"), write_docs, NAME)
}

/// Trains a row with each seed, and adds a row about its codewords.
fn learnt(set: &Set, name: &str, variant: &Variant, seeds: u16, codewords: &mut Vec<Row>) -> Result<Row> {
    let (title, preset, lengths, changes) = variant;
    let changes: String = changes.iter().map(|line| format!(" --set {line}")).collect();
    let (mut trainings, mut last) = (Vec::new(), Vec::new());
    for seed in 1..=seeds {
        let mut all: Vec<Option<f64>> = vec![None; 2 * BITS.len() + 1];
        for &bits in *lengths {
            let options = format!(
                "--preset {preset} --set {EPOCHS} --set quantizer.levels={}{changes} --seed {seed}",
                bits / 8
            );
            let is_product = preset.ends_with("product");
            let ranked: Vec<u32> = BITS
                .into_iter()
                .filter(|&other| if is_product { other == bits } else { other <= bits })
                .collect();
            let (trained, evaluations) =
                set.learnt(&format!("{name}/{bits}-{seed}"), &options, &ranked, &RANKINGS)?;
            for (all, found) in all.iter_mut().zip(figures(&evaluations)?) {
                *all = found.or(*all);
            }
            if Some(&bits) == lengths.last() {
                last.push(of_codewords(&trained)?);
            }
        }
        trainings.push(all);
    }
    codewords.push(row(title, &last));
    Ok(row(title, &trainings))
}

/// Returns the columns of a row: asymmetric, unquantised, symmetric.
fn figures(evaluations: &[Evaluation]) -> Result<Vec<Option<f64>>> {
    let [asymmetric, symmetric] = [&evaluations[0], &evaluations[1]].map(|evaluation| {
        evaluation.figures(&BITS, |metrics| metrics.map_at.get(&CUTOFF).copied().unwrap_or(f64::NAN))
    });
    let columns = [&asymmetric[..], &symmetric[..BITS.len()]].concat();
    ensure!(columns.iter().flatten().all(|map| map.is_finite()), "dpq prints no mAP@{CUTOFF}");
    Ok(columns)
}

/// Returns the mean cosine of codewords and the perplexity of the first level after a training, as
/// far as it logged them.
fn of_codewords(trained: &Stage<Value>) -> Result<Vec<Option<f64>>> {
    let log = fs::read_to_string(trained.file("epochs.jsonl"))?;
    let last: Value = serde_json::from_str(log.lines().last().context("a training has no epochs")?)?;
    Ok(vec![last["losses"]["diversity"].as_f64(), last["usage"][0]["perplexity"].as_f64()])
}
