//! `--system phpq`: pooled stages and partial attention, on a set that is made and on photographs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use dpq_report::results::Machine;
use dpq_report::study::{Section, Study};

use super::hash::Hash;
use super::protocol::SETS;
use super::ranked::{Set, about_seeds, row};
use super::stage::Runner;
use super::{FOLDER, Settings, lock};
use crate::process;

const NAME: &str = "phpq";

const BITS: [u32; 4] = [8, 16, 24, 32];

/// The rows of a table: names, presets and what changes them. Photographs, which take longer, have
/// all but the last two.
const VARIANTS: [(&str, &str, &[&str]); 9] = [
    ("PHPQ, nested", "phpq", &[]),
    ("average alone", "phpq", &["network.pyramid.pooling=\"average\""]),
    ("maximum alone", "phpq", &["network.pyramid.pooling=\"maximum\""]),
    ("last stage alone", "phpq", &["network.pyramid.stages=1"]),
    ("all 256 codewords take part", "phpq", &["quantizer.attention=256"]),
    ("PHPQ, product codes", "phpq-product", &[]),
    ("DPQ (preset `best`)", "best", &[]),
    ("one codeword takes part", "phpq", &["quantizer.attention=1"]),
    ("no classes of approximations", "phpq", &["loss.prefix_classification=0.0"]),
];

/// Changes of every training of photographs: a size for two cores.
const FINE_TUNING: &str = " --freeze 1 --set network.input=64 --set network.moments=\"stored\" --set network.dropout=0.0 --set \
     network_optimizer.rate=3e-4 --set epochs=6";

/// Runs the stages on the set that is made, and with weights on a set of photographs, and writes
/// the report.
pub(super) fn run(settings: &Settings) -> Result<()> {
    let &Settings { quick, write_docs, seeds, .. } = settings;
    let folder = Path::new(FOLDER).join(if quick { "phpq-quick" } else { NAME });
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let _lock = lock()?;
    let dpq = process::build_dpq("cpu")?;
    let patterns = Path::new(SETS).join("small-patterns");
    // Stages run again for files of another time.
    if !patterns.join("dataset.toml").exists() {
        let mut build = process::cargo(&["build", "--workspace", "--example", "toy_sets"]);
        process::run(Command::new(process::executable(&mut build, "example", "toy_sets")?).arg(SETS))?;
    }

    let set = Set::images(Runner::new(dpq.clone(), &patterns)?, folder.join("patterns"), &patterns);
    let (epochs, variants) = if quick { (8, &VARIANTS[..4]) } else { (24, &VARIANTS[..]) };
    let text = format!(
        "Eight classes of noise, 28×28 pixels, each with one pattern of 4×4 pixels at a random place; 100 training images \
         per class. `dpq train --preset P --set epochs={epochs}`."
    );
    let common = format!(" --set epochs={epochs}");
    let mut sections =
        vec![section("Classes that differ by one small pattern", text, &set, &common, variants, seeds)?];
    if quick {
        check(&sections[0])?;
    }
    let mut command = format!("cargo xtask reproduce-paper --system {NAME}");
    if quick {
        command += " --quick";
    }
    if let Some(weights) = &settings.weights {
        let name = settings.dataset_name();
        let mut set =
            Set::images(Runner::new(dpq, &settings.dataset)?, folder.join(&name), &settings.dataset);
        set.upstream.push(Hash::of_file(weights)?);
        let common = format!(" --weights {}{FINE_TUNING}", weights.display());
        let text = format!(
            "{name}, fine-tuned from pretrained weights at 64×64. `dpq train --preset P --weights W{FINE_TUNING}`."
        );
        sections.push(section(&name, text, &set, &common, &VARIANTS[..7], seeds)?);
        command += &format!(" --dataset {name} --weights W --seeds {seeds}");
    }
    if write_docs {
        command += " --write-docs";
    }
    let study = Study {
        title: "PHPQ: what pooling and attention are worth".to_owned(),
        text: format!(
            "The other images of each set are ranked for its queries. {} The settings of PHPQ are ours, see \
             `docs/deviations.md`. The last column ranks by the features before quantization.",
            about_seeds(seeds)
        ),
        sections,
        command,
        commit: process::commit(&["Cargo.toml", "Cargo.lock", "crates", "datasets", "xtask"]),
        machine: Machine::this(),
    };
    study_files(&study, &folder.join("report"), write_docs, NAME)
}

/// Writes a study to its folder, with `write_docs` to `docs` as well.
pub(super) fn study_files(study: &Study, folder: &PathBuf, write_docs: bool, name: &str) -> Result<()> {
    let files = study.write(folder)?;
    files.iter().for_each(|file| println!("{}", file.display()));
    if write_docs {
        study.write(Path::new("docs/results").join(name))?;
        dpq_report::docs::render("docs")?;
    }
    Ok(())
}

fn section(
    heading: &str,
    text: String,
    set: &Set,
    common: &str,
    variants: &[(&str, &str, &[&str])],
    seeds: u16,
) -> Result<Section> {
    let (mut rows, mut rule) = (Vec::new(), String::new());
    for (at, (name, preset, changes)) in variants.iter().enumerate() {
        let changes: String = changes.iter().map(|line| format!(" --set {line}")).collect();
        let mut trainings = Vec::new();
        for seed in 1..=seeds {
            let options = format!("--preset {preset}{common}{changes} --seed {seed}");
            // Product codes have one length.
            let bits = if preset.ends_with("product") { &BITS[3..] } else { &BITS };
            let (_, evaluations) =
                set.learnt(&format!("{at}-{seed}"), &options, bits, &["--gallery-features FEATURES"])?;
            trainings.push(evaluations[0].figures(&BITS, |metrics| metrics.map));
            let queries = evaluations[0].queries;
            rule = format!(
                "{}; {queries} queries, {} other images",
                evaluations[0].rule(),
                evaluations[0].gallery
            );
        }
        rows.push(row(name, &trainings));
    }
    let columns = BITS.iter().map(|bits| format!("{bits} bits")).chain(["unquantised".to_owned()]);
    Ok(Section {
        heading: heading.to_owned(),
        text: format!("{text} {rule}."),
        first: "training".to_owned(),
        columns: columns.collect(),
        rows,
    })
}

/// Refuses figures that do not show that a maximum finds what a mean hides.
fn check(section: &Section) -> Result<()> {
    let at = |row: usize| section.rows[row].cells[3][0];
    ensure!(
        at(0) > at(1) && at(2) > at(1),
        "mAP is {} with both, {} by averages, {} by maxima",
        at(0),
        at(1),
        at(2)
    );
    Ok(())
}
