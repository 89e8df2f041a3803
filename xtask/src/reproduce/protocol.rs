//! The paper's runs at toy size: every stage from pretrained weights to the report, so that none fails after hours.
//!
//! What such a run ranks says nothing; that all of it runs does.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use super::{Settings, run};
use crate::process::{build_dpq, build_example, output, run as run_command};

/// Where the example of dpq-data writes the data sets and the weights.
const SETS: &str = "target/toy-sets";

/// The body that the weights are of.
const BODY: &str = "[network.body.alexnet]\nvariant = \"caffe\"\nchannels = [4, 8, 8, 8, 8]\nhidden = 16";

/// Of `dpq weights import`.
#[derive(Deserialize)]
struct Imported {
    fingerprint: String,
}

/// A run, and what its report must say.
struct Protocol {
    dataset: &'static str,
    ablations: bool,
    /// Training images, queries, gallery.
    items: [usize; 3],
    says: &'static [&'static str],
}

const PROTOCOLS: [Protocol; 3] = [
    Protocol {
        dataset: "cifar-10",
        ablations: false,
        items: [260, 30, 170],
        says: &["| mAP@all", "| DPQ (V) ", "| ours against DPQ "],
    },
    Protocol {
        dataset: "nus-wide-21",
        ablations: true,
        items: [259, 20, 279],
        says: &[
            "Left out, because they cannot be read: training images 1, queries 0, of the gallery 1.",
            "Loss of the classifier: sigmoid",
            "The paper's protocol has 10000 training images",
            "| whole run ",
            "Label embeddings: seeded",
            "| mAP@5000 ",
            "| DPQ (V) ",
            "## Table 2: parts taken away",
            "| E: frozen pretrained backbone |",
            "| Two-Step ",
            "| a model for each length |",
            "Raw pixels, 3×32×32, are",
        ],
    },
    Protocol {
        dataset: "imagenet-100",
        ablations: false,
        items: [260, 20, 280],
        says: &["The paper's row for ImageNet is not known here.", "Raw pixels, 3×32×32, are"],
    },
];

/// Makes the data sets and weights, and runs all protocols twice: the second time nothing may be left to do.
pub(crate) fn toy_protocols() -> Result<()> {
    run_command(Command::new(build_example("toy_sets")?).arg(SETS))?;
    let dpq = build_dpq("cpu")?;
    refuses_other_lengths()?;
    let (weights, fingerprint) = import(&dpq)?;
    for protocol in PROTOCOLS {
        let settings = Settings {
            dataset: Path::new(SETS).join(protocol.dataset),
            preset: "paper".to_owned(),
            changes: ["epochs=2", "quantizer.codewords=16"].map(str::to_owned).into(),
            weights: Some(weights.clone()),
            ablations: protocol.ablations,
            ..Settings::quick()
        };
        let results = run(&settings)?;
        let items = [results.items.train, results.items.query, results.items.gallery];
        ensure!(
            items == protocol.items,
            "{} has {items:?} items, not {:?}",
            protocol.dataset,
            protocol.items
        );
        ensure!(results.weights.as_deref() == Some(&fingerprint), "{} has other weights", protocol.dataset);
        check(&settings, protocol.says)?;

        // Times are those of the stages when they ran, so one that ran again would show.
        let again = run(&settings)?;
        ensure!(again.to_json()? == results.to_json()?, "stages of {} ran a second time", protocol.dataset);
    }
    Ok(())
}

/// A report has no room for other lengths, and it would be late to say so when all is trained.
fn refuses_other_lengths() -> Result<()> {
    let dataset = Path::new(SETS).join("cifar-10");
    let shorter = Settings { dataset, changes: vec!["quantizer.levels=2".to_owned()], ..Settings::quick() };
    let refused = run(&shorter).map_or_else(|error| error.to_string(), |_| String::new());
    ensure!(
        refused.starts_with("quantizer.levels is 2, "),
        "two levels should be refused, found `{refused}`"
    );
    Ok(())
}

/// The weights for `dpq train --weights`, and their fingerprint.
fn import(dpq: &Path) -> Result<(PathBuf, String)> {
    let config = output(Command::new(dpq).args(["train", "--print-config"]))?;
    let (begin, rest) = config.split_once("[network.body.small]").context("dpq prints the network's body")?;
    let (_, end) = rest.split_once("\n\n").context("dpq prints tables of TOML")?;
    let (path, out) = (format!("{SETS}/alexnet.toml"), format!("{SETS}/alexnet.safetensors"));
    fs::write(&path, format!("{begin}{BODY}\n\n{end}"))?;
    let file = format!("{SETS}/bvlc_alexnet.npy");
    let args = ["weights", "import", &file, "--config", &path, "--out", &out, "--json"];
    let imported: Imported = serde_json::from_str(&output(Command::new(dpq).args(args))?)?;
    Ok((out.into(), imported.fingerprint))
}

/// Checks that the files of a report are there, and what it says.
fn check(settings: &Settings, says: &[&str]) -> Result<()> {
    let folder = settings.folder();
    for file in ["report.html", "results.csv", "queries.svg", "tsne.svg"] {
        ensure!(folder.join(file).is_file(), "{} has no {file}", folder.display());
    }
    let report = fs::read_to_string(folder.join("results.md"))?;
    let always = ["preset paper changed by epochs=2 quantizer.codewords=16, pretrained, seed 1", "![t-SNE"];
    for text in always.iter().chain(says) {
        ensure!(report.contains(text), "{}/results.md does not say `{text}`", folder.display());
    }
    Ok(())
}
