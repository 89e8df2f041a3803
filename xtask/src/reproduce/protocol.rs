//! The paper's runs at toy size: every stage from pretrained weights to the report.
//!
//! The rankings mean nothing. The run shows that no stage fails after hours of training.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{Settings, run};
use crate::process::{build_dpq, cargo, executable, output, run as run_command};

/// The folder where the example of dpq-data writes data sets and weights.
pub(super) const SETS: &str = "target/toy-sets";

/// A run and the phrases that its report must have.
struct Protocol {
    dataset: &'static str,
    ablations: bool,
    unseen_classes: Option<u16>,
    /// The numbers of training images, queries and gallery images.
    items: [usize; 3],
    says: &'static [&'static str],
}

const PROTOCOLS: [Protocol; 3] = [
    Protocol {
        dataset: "cifar-10",
        ablations: false,
        unseen_classes: Some(3),
        items: [260, 30, 170],
        says: &[
            "| mAP@all",
            "| DPQ (V) ",
            "| ours against DPQ ",
            "## Other codes of the same features",
            "| product quantization ",
            "| class posterior ",
            "## Classes that were not trained",
            "| paper, Two-Step: class posterior ",
        ],
    },
    Protocol {
        dataset: "nus-wide-21",
        ablations: true,
        unseen_classes: None,
        items: [259, 20, 279],
        says: &[
            "Unreadable images were left out: 1 training images, 0 queries, 1 of the gallery.",
            "Loss of the classifier: sigmoid",
            "The paper's protocol has 10000 training images",
            "| everything ",
            "Label embeddings: seeded",
            "| mAP@5000 ",
            "| DPQ (V) ",
            "## Table 2: parts removed",
            "| E: frozen pretrained backbone |",
            "| Two-Step ",
            "| one model per length",
            "Raw pixels, 3×32×32, are",
        ],
    },
    Protocol {
        dataset: "imagenet-100",
        ablations: false,
        unseen_classes: None,
        items: [260, 20, 280],
        says: &["The paper's row for ImageNet is not known here.", "Raw pixels, 3×32×32, are"],
    },
];

/// Makes data sets and weights, and runs all protocols twice. The second time no stage may run.
pub(crate) fn toy_protocols() -> Result<()> {
    let mut build = cargo(&["build", "--workspace", "--example", "toy_sets"]);
    run_command(Command::new(executable(&mut build, "example", "toy_sets")?).arg(SETS))?;
    let dpq = build_dpq("cpu")?;
    let (weights, fingerprint) = import(&dpq)?;
    for protocol in PROTOCOLS {
        let settings = Settings {
            dataset: Path::new(SETS).join(protocol.dataset),
            preset: "paper".to_owned(),
            set: ["epochs=2", "quantizer.codewords=16"].map(str::to_owned).into(),
            weights: Some(weights.clone()),
            ablations: protocol.ablations,
            unseen_classes: protocol.unseen_classes,
            ..Settings::quick()
        };
        let results = run(&settings)?;
        let items = results.about.items;
        let items = [items.train, items.query, items.gallery];
        let Protocol { dataset, items: expected, says, .. } = protocol;
        ensure!(items == expected, "{dataset} has {items:?} items, not {expected:?}");
        ensure!(results.about.weights.as_deref() == Some(&fingerprint), "{dataset} has other weights");
        check(&settings, says)?;

        // Reports have the times of their stages, so a stage that ran again would change them.
        let again = run(&settings)?;
        ensure!(again.to_json() == results.to_json(), "stages of {dataset} ran a second time");
    }
    Ok(())
}

/// Imports weights for `dpq train --weights` and returns their fingerprint, too.
fn import(dpq: &Path) -> Result<(PathBuf, String)> {
    let (file, out) = (format!("{SETS}/bvlc_alexnet.npy"), format!("{SETS}/alexnet.safetensors"));
    let args = ["weights", "import", &file, "--out", &out, "--json"];
    let imported: Value = serde_json::from_str(&output(Command::new(dpq).args(args))?)?;
    Ok((out.into(), imported["fingerprint"].as_str().context("dpq prints no fingerprint")?.to_owned()))
}

/// Checks that a report has its files and phrases.
fn check(settings: &Settings, says: &[&str]) -> Result<()> {
    let folder = settings.folder();
    for file in ["report.html", "results.csv", "queries.svg", "tsne.svg"] {
        ensure!(folder.join(file).is_file(), "{} has no {file}", folder.display());
    }
    let report = fs::read_to_string(folder.join("results.md"))?;
    let always =
        ["preset paper changed by epochs=2 quantizer.codewords=16, pretrained weights, seed 1", "![t-SNE"];
    for text in always.iter().chain(says) {
        ensure!(report.contains(text), "{}/results.md does not say `{text}`", folder.display());
    }
    Ok(())
}
