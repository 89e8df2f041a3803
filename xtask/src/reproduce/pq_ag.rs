//! `--system pq-ag`: adversarial queries of Fashion-MNIST against short trainings.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use dpq_report::attacks::{Attacked, Attacks, NAME};
use dpq_report::results::Machine;
use serde::de::IgnoredAny;

use super::stage::Runner;
use super::{FOLDER, lock};
use crate::process::{build_dpq, commit};

const DATA: &str = "datasets/fashion-mnist";

/// The options of the attacks. The first is drawn, and also made by the gradients of another model.
const ATTACKS: [&str; 8] = [
    "--epsilon 32/255 --loss aod",
    "--epsilon 32/255 --loss apd",
    "--epsilon 32/255 --loss basic",
    "--epsilon 32/255 --loss aod --target-level 1",
    "--epsilon 32/255 --loss apd --target-level 1",
    "--epsilon 32/255 --loss aod --target-level 4",
    "--loss basic",
    "--loss aod --target-level 1",
];

/// Trains two models, attacks them and writes the report, with `write_docs` to `docs` as well.
/// `quick` has short trainings, few queries, and the first two attacks.
pub(super) fn run(quick: bool, write_docs: bool) -> Result<()> {
    let folder = Path::new(FOLDER).join(if quick { "pq-ag-quick" } else { NAME });
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let _lock = lock()?;
    let runner = Runner::new(build_dpq("cpu")?, Path::new(DATA))?;
    let epochs = if quick { 2 } else { 6 };
    let train = |seed: u16| {
        let command = format!(
            "train --data {DATA} --preset quick --set epochs={epochs} --seed {seed} --out OUT --resume"
        );
        runner.run::<IgnoredAny>(&folder.join(format!("train-{seed}")), &[], &command)
    };
    let (model, other) = (train(1)?, train(2)?);
    let path = model.file("model.safetensors");
    let command = format!("encode --model {path} --data {DATA} --split gallery --out-dir OUT");
    let gallery = runner.run::<IgnoredAny>(&folder.join("gallery"), &[&model.key], &command)?;
    let command = format!(
        "index build --codes {} --ids {} --codebook {path} --out OUT/gallery.dpq",
        gallery.file("codes.npy"),
        gallery.file("ids.npy")
    );
    let index = runner.run::<IgnoredAny>(&folder.join("index"), &[&gallery.key], &command)?;

    let (n, queries) = if quick { (2, " --queries 100") } else { (ATTACKS.len(), "") };
    let (mut attacks, mut pictures) = (Vec::new(), None);
    for (i, options) in ATTACKS[..n].iter().enumerate() {
        let transfer = format!(" --transfer {}", other.file("model.safetensors"));
        let transfer = if i == 0 { transfer.as_str() } else { "" };
        let gallery = index.file("gallery.dpq");
        let command = format!(
            "attack --model {path} --data {DATA} --index {gallery} {options}{transfer}{queries} --out OUT"
        );
        let keys = [&*model.key, &other.key, &index.key];
        let stage = runner.run::<Attacked>(&folder.join(format!("attack-{}", i + 1)), &keys, &command)?;
        if i == 0 {
            pictures = Some(fs::read_to_string(stage.file("queries.svg"))?);
        }
        attacks.push(stage.result);
    }
    let commit = commit(&["Cargo.toml", "Cargo.lock", "crates", "datasets", "xtask"]);
    let report = Attacks { commit, machine: Machine::this(), attacks };
    println!("{}", report.summary());
    let files = report.write(folder.join("report"), pictures.clone())?;
    files.iter().for_each(|file| println!("{}", file.display()));
    if write_docs {
        report.write(Path::new("docs/results").join(NAME), pictures)?;
        dpq_report::docs::render("docs")?;
    }
    Ok(())
}
