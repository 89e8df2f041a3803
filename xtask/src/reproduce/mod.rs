//! `cargo xtask reproduce-paper`: one command from images to a table.
//!
//! - `dpq`: what the command `dpq` prints
//! - `stage`, `hash`: a run of `dpq` that is skipped when nothing it depends on has changed
//! - `pipeline`: the stages of a training and of the raw-pixel baseline
//! - `variants`: what is trained or encoded beside it, to see what each part is worth
//! - `results`, `gather`: the numbers, as `results.json` keeps them, and how they come from stages
//! - `report`, `document`, `csv`: words and tables, as Markdown, as one page of HTML, as CSV
//! - `tables`: the paper's tables, and what each variant is worth
//! - `plot`, `figures`: SVG of the numbers
//! - `sheet`, `tsne`, `embed`, `npy`: SVG of what stages left: hits, codes, features
//! - `docs`: reports on disk and their copies in `docs`
//! - `check`: what a quick run must show
//! - `protocol`: the paper's runs at toy size

mod check;
mod csv;
mod docs;
mod document;
mod dpq;
mod embed;
mod figures;
mod gather;
mod hash;
mod npy;
mod pipeline;
pub(crate) mod plot;
mod protocol;
mod report;
mod results;
mod sheet;
mod stage;
mod tables;
#[cfg(test)]
mod test_data;
mod tsne;
mod variants;

use std::borrow::Cow;
use std::fs::{self, File, TryLockError};
use std::iter;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::process::build_dpq;
pub(crate) use check::{check_quick, check_quick_collages};
pub(crate) use docs::check_docs;
use pipeline::SeedRun;
pub(crate) use protocol::toy_protocols;
pub(crate) use results::Results;
use stage::Runner;

/// What is reproduced.
#[derive(Clone)]
pub(crate) struct Settings {
    /// The folder of the data set.
    pub(crate) dataset: PathBuf,
    pub(crate) preset: String,
    /// Lines of `dpq train --set`, for every training.
    pub(crate) changes: Vec<String>,
    pub(crate) seeds: u16,
    pub(crate) device: String,
    /// Pretrained weights that the network's body starts from.
    pub(crate) weights: Option<PathBuf>,
    /// Vectors of the classes.
    pub(crate) embeddings: Option<PathBuf>,
    /// Items of the gallery that t-SNE shows, at most.
    pub(crate) tsne_items: usize,
    /// Whether the variants that need trainings of their own are part of it.
    pub(crate) ablations: bool,
}

impl Settings {
    /// A training that takes minutes, for `ci`.
    pub(crate) fn quick() -> Self {
        let text = |text: &str| text.to_owned();
        Self {
            dataset: PathBuf::from("datasets/fashion-mnist"),
            preset: text("quick"),
            changes: Vec::new(),
            seeds: 1,
            device: text("cpu"),
            weights: None,
            embeddings: None,
            tsne_items: 500,
            ablations: false,
        }
    }

    /// Several labels an image, in less time still.
    pub(crate) fn quick_collages() -> Self {
        Self {
            dataset: PathBuf::from("datasets/fashion-collage"),
            changes: vec!["epochs=4".to_owned()],
            ..Self::quick()
        }
    }

    fn folder(&self) -> PathBuf {
        Path::new(FOLDER).join(self.name())
    }

    /// Of the data set: the name of its folder.
    fn dataset_name(&self) -> String {
        self.dataset.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// Of the file of label embeddings.
    fn embeddings_name(&self) -> Option<String> {
        let name = self.embeddings.as_ref()?.file_name()?;
        Some(name.to_string_lossy().into_owned())
    }

    /// Of the run. A changed preset has another one, so that its results are never taken for those of the preset.
    fn name(&self) -> String {
        let pretrained = if self.weights.is_some() { "-pretrained" } else { "" };
        let safe = |c: char| if c.is_alphanumeric() || "=.-".contains(c) { c } else { '_' };
        let embeddings = self.embeddings_name().map(|name| format!("embeddings={name}"));
        let changes: String = embeddings
            .iter()
            .chain(&self.changes)
            .flat_map(|line| iter::once('-').chain(line.chars().map(safe)))
            .collect();
        format!("{}-{}{pretrained}{changes}", self.dataset_name(), self.preset)
    }
}

/// Where stages and reports are.
const FOLDER: &str = "target/reproduce";

/// Runs the stages that have to run, and writes the report.
pub(crate) fn run(settings: &Settings) -> Result<Results> {
    let pretrained = settings.weights.is_some();
    ensure!(
        !(settings.ablations && variants::variants(&settings.preset, true, pretrained).is_empty()),
        "preset {} has no ablations, give --preset paper or best, or leave --ablations out",
        settings.preset
    );
    let paths = iter::once(&settings.dataset).chain(&settings.weights).chain(&settings.embeddings);
    let paths = paths.map(|path| path.to_string_lossy());
    for word in paths.chain(settings.changes.iter().map(Cow::from)) {
        ensure!(
            !word.contains(' '),
            "`{word}` has a space, which the command of a stage cannot hold, write it without"
        );
    }
    ensure!(
        settings.dataset.join("dataset.toml").is_file(),
        "there is no {}/dataset.toml, give the name of a folder in datasets or the path of one elsewhere",
        settings.dataset.display()
    );
    let folder = settings.folder();
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let _lock = lock()?;
    // A run that fails leaves no table, an old one least of all.
    docs::remove_report(&folder)?;

    let runner = Runner::new(build_dpq(&settings.device)?, &settings.dataset)?;
    // First what takes no time, then what reads all images: if they fail, nothing was trained for hours before.
    pipeline::check_configuration(&runner, settings, &folder)?;
    let baseline = pipeline::raw_pixels(&runner, settings)?;
    let runs = (1..=settings.seeds)
        .map(|seed| pipeline::train_and_evaluate(&runner, settings, &folder, seed))
        .collect::<Result<Vec<_>>>()?;
    let mut variant_runs = Vec::new();
    for variant in variants::variants(&settings.preset, settings.ablations, pretrained) {
        let run = |run| pipeline::variant(&runner, settings, &folder.join("variants"), run, variant);
        variant_runs.push((variant, runs.iter().map(run).collect::<Result<Vec<_>>>()?));
    }
    let figures = pictures(&runner, settings, &runs[0])?;
    let mut results = gather::gather(settings, &runs, &baseline, runner.wall_seconds())?;
    results.variants = variant_runs.iter().map(|(variant, runs)| gather::variant(variant, runs)).collect();

    let json = results.to_json()?;
    let files = docs::write_report(&folder, &json, &figures)?;
    println!("{}", report::summary(&Results::from_json(&json)?));
    files.iter().for_each(|file| println!("{}", file.display()));
    Ok(results)
}

/// The figures that need more than numbers, of the first training.
fn pictures(runner: &Runner, settings: &Settings, run: &SeedRun) -> Result<Vec<(&'static str, String)>> {
    let dir = settings.folder().join("seed-1");
    let (sheet, classes) = sheet::sheet(runner, &dir, run, &settings.dataset)?;
    let tsne = tsne::tsne(runner, &dir, run, settings.tsne_items, &classes)?;
    Ok(tsne.map(|tsne| (docs::TSNE, tsne)).into_iter().chain([(docs::QUERIES, sheet)]).collect())
}

/// Copies the report of a run to `docs`.
pub(crate) fn write_docs(settings: &Settings) -> Result<()> {
    docs::write_docs(Path::new("docs"), &settings.name(), &settings.folder())
}

/// Makes the reports in `docs` again, without a run.
pub(crate) fn render_docs() -> Result<()> {
    docs::render_docs(Path::new("docs"))
}

/// Waits for other runs: two of them would write to the same folders.
fn lock() -> Result<File> {
    let path = Path::new(FOLDER).join("lock");
    let file = File::create(&path).with_context(|| format!("cannot create {}", path.display()))?;
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => {
            eprintln!("another reproduce-paper is at work, waiting for it");
            file.lock()?;
        }
        locked => locked?,
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_run_has_a_folder_of_its_own() {
        let mut settings = Settings::quick();
        assert_eq!(settings.name(), "fashion-mnist-quick");
        settings.dataset = "elsewhere/cifar-10".into();
        settings.weights = Some("w.safetensors".into());
        settings.changes = ["epochs=2", "schedule=\"two-step\""].map(str::to_owned).into();
        assert_eq!(settings.name(), "cifar-10-quick-pretrained-epochs=2-schedule=_two-step_");
        settings.embeddings = Some("elsewhere/glove 300d.txt".into());
        settings.changes.clear();
        assert_eq!(settings.name(), "cifar-10-quick-pretrained-embeddings=glove_300d.txt");
    }

    #[test]
    fn what_cannot_be_run_is_refused_before_anything_is_built() {
        let refused = |settings: &Settings| {
            let run = run(settings);
            run.map(|_| ()).unwrap_err().to_string()
        };
        let nowhere = Settings { dataset: "datasets/nowhere".into(), ..Settings::quick() };
        assert!(refused(&nowhere).starts_with("there is no datasets/nowhere/dataset.toml"));
        let spaced = Settings { changes: vec!["epochs = 2".to_owned()], ..Settings::quick() };
        assert!(refused(&spaced).starts_with("`epochs = 2` has a space"));
        let without_any = Settings { ablations: true, ..Settings::quick() };
        assert!(refused(&without_any).starts_with("preset quick has no ablations, "));
    }
}
