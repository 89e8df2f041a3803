//! `cargo xtask reproduce-paper`: the list of stages from images to the reports in `docs`.

mod hash;
mod mecoq;
mod mopq;
mod phpq;
mod pipeline;
mod pq_ag;
mod protocol;
mod ranked;
mod rmq;
mod stage;
mod variants;

use std::borrow::Cow;
use std::fs::{self, File};
use std::io;
use std::iter;
use std::path::{self, Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use dpq_report::{Report, Results};

use crate::process::{self, list};
use pipeline::Pipeline;
pub(crate) use protocol::toy_protocols;
use stage::Runner;

/// Train, encode, index, search and evaluate, and write a report
///
/// Each stage is kept under `target/reproduce/` and skipped if nothing that it depends on has
/// changed. An interrupted run resumes.
#[derive(clap::Parser)]
pub(crate) struct Settings {
    /// A folder of `datasets/` by its name, or another folder by its path, as ./cifar-10. The
    /// folder name decides which of the paper's results are shown beside ours
    #[arg(long, default_value = "fashion-mnist", value_name = "NAME|DIR", value_parser = dataset)]
    dataset: PathBuf,
    /// Another system than the paper's: mecoq learns codes without labels on the data set by the
    /// network of --weights, mopq codes from pairs of embeddings; phpq tells classes apart that
    /// differ in details, with --weights those of the data set, too; pq-ag attacks searches by
    /// adversarial queries, rmq quantizes stochastic differential equations
    #[arg(long, value_name = "NAME", value_parser = ["mecoq", "mopq", "phpq", "pq-ag", "rmq"])]
    #[arg(conflicts_with_all = ["preset", "set", "embeddings", "ablations", "unseen_classes"])]
    system: Option<String>,
    /// The pairs of --system mopq: a folder with keys.npy, queries.npy, pairs.npy (to learn from),
    /// test-queries.npy and test-pairs.npy
    #[arg(long, value_name = "DIR", requires = "system", conflicts_with = "quick")]
    #[arg(value_parser = |path: &str| path::absolute(path))]
    pairs: Option<PathBuf>,
    /// A configuration of `dpq train`
    #[arg(long, default_value = "best", value_name = "NAME")]
    preset: String,
    /// Change the preset for every training by a line as `dpq train --set` takes it, without
    /// spaces; may be repeated. The results are kept apart from the preset's, and the report names
    /// the lines
    #[arg(long, value_name = "KEY=VALUE", conflicts_with = "write_docs")]
    set: Vec<String>,
    /// Number of trainings, with seeds 1, 2, …; the report gives mean and standard deviation
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    seeds: u16,
    /// A small training that takes minutes: preset `quick`, one seed
    #[arg(long, conflicts_with_all = ["preset", "seeds", "write_docs"])]
    quick: bool,
    /// Device of the network. For cuda:N the program is built with the feature `cuda`
    #[arg(long, default_value = "cpu", value_name = "DEVICE")]
    device: String,
    /// Pretrained weights that the network's body starts from, as `dpq weights import` writes them
    #[arg(long, value_name = "SAFETENSORS", value_parser = |path: &str| path::absolute(path))]
    weights: Option<PathBuf>,
    /// Vectors of the classes for every training, as `dpq train --embeddings` takes them
    #[arg(long, value_name = "FILE", value_parser = |path: &str| path::absolute(path))]
    embeddings: Option<PathBuf>,
    /// With preset `paper`, also train the rows of Table 2 and one model per length; with `best`,
    /// the preset without each of its ingredients; with `pretrained`, the features of the paper and
    /// end-to-end training. Each row has as many trainings as seeds
    #[arg(long)]
    ablations: bool,
    /// Also train on splits in which N classes have no training image, and rank images of those
    /// classes: five splits with other classes each, by the preset and by its two-step form
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    unseen_classes: Option<u16>,
    /// Copy the report to docs/results/DATASET-PRESET and write docs/results.md
    #[arg(long)]
    write_docs: bool,
}

/// Returns the folder of a data set, relative to where the command was given.
fn dataset(text: &str) -> io::Result<PathBuf> {
    if text.contains(path::is_separator) {
        path::absolute(text)
    } else {
        Ok(Path::new("datasets").join(text))
    }
}

impl Settings {
    /// A training that takes minutes, for `ci`.
    pub(crate) fn quick() -> Self {
        Self { preset: "quick".to_owned(), ..Self::parse_from(["reproduce-paper", "--quick"]) }
    }

    /// Another system, on data that it makes.
    pub(crate) fn quick_system(name: &str) -> Self {
        Self { system: Some(name.to_owned()), ..Self::quick() }
    }

    /// Images with several labels, in less time.
    pub(crate) fn quick_collages() -> Self {
        Self {
            dataset: PathBuf::from("datasets/fashion-collage"),
            set: vec!["epochs=4".to_owned()],
            ..Self::quick()
        }
    }

    /// Runs everything, with the program that the settings need.
    pub(crate) fn run(mut self) -> Result<()> {
        let system = self.system.as_deref();
        ensure!(
            self.device == "cpu" || matches!(system, None | Some("mecoq" | "mopq")),
            "this system runs on the CPU, leave out --device"
        );
        ensure!(self.pairs.is_none() || system == Some("mopq"), "--pairs is for --system mopq");
        ensure!(
            matches!(system, None | Some("mecoq" | "phpq"))
                || self.weights.is_none() && self.seeds == 1 && self.dataset == Self::quick().dataset,
            "this system has data and seeds of its own, leave out --dataset, --weights and --seeds"
        );
        match system {
            Some("mecoq") => return mecoq::run(&self),
            Some("mopq") => {
                return mopq::run(self.pairs.as_deref(), self.quick, &self.device, self.write_docs);
            }
            Some("phpq") => return phpq::run(&self),
            Some("pq-ag") => return pq_ag::run(self.quick, self.write_docs),
            Some(_) => return rmq::run(self.quick, self.write_docs),
            None => {}
        }
        if self.quick {
            self.preset = Self::quick().preset;
        }
        run(&self)?;
        if self.write_docs {
            dpq_report::docs::copy("docs", &self.name(), self.folder())?;
        }
        Ok(())
    }

    fn folder(&self) -> PathBuf {
        Path::new(FOLDER).join(self.name())
    }

    /// The folder name of the data set.
    fn dataset_name(&self) -> String {
        self.dataset.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// The name of the run. A changed preset has another name, so that its results are not taken
    /// for the preset's.
    pub(crate) fn name(&self) -> String {
        let says_so = self.weights.is_none() || self.preset == "pretrained";
        let pretrained = if says_so { "" } else { "-pretrained" };
        let safe = |c: char| c.is_alphanumeric() || "=.-".contains(c);
        let embeddings = self.embeddings.iter().filter_map(|path| path.file_name());
        let embeddings = embeddings.map(|name| format!("-embeddings={}", name.to_string_lossy()));
        let changes: String = embeddings.chain(self.set.iter().map(|line| format!("-{line}"))).collect();
        let changes = changes.replace(|c| !safe(c), "_");
        format!("{}-{}{pretrained}{changes}", self.dataset_name(), self.preset)
    }
}

/// The option of `dpq report` for other codes of the same features.
const BASELINES: &str = " --baselines";

/// The folder of stages and reports.
const FOLDER: &str = "target/reproduce";

/// Runs the stages that have to run, and writes the report.
pub(crate) fn run(settings: &Settings) -> Result<Results> {
    let pretrained = settings.weights.is_some();
    ensure!(
        !(settings.ablations && variants::variants(&settings.preset, true, pretrained).is_empty()),
        "preset {} has no ablations, give --preset paper, best or pretrained, or leave --ablations out",
        settings.preset
    );
    let paths = iter::once(&settings.dataset).chain(&settings.weights).chain(&settings.embeddings);
    let paths = paths.map(|path| path.to_string_lossy());
    for word in paths.chain(settings.set.iter().map(Cow::from)) {
        let is_word = !word.contains(' ');
        ensure!(is_word, "`{word}` has a space, which the command of a stage cannot hold, write it without");
    }
    ensure!(
        settings.dataset.join("dataset.toml").is_file(),
        "there is no {}/dataset.toml, give the name of a folder in datasets or the path of another one",
        settings.dataset.display()
    );
    let folder = settings.folder();
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let _lock = lock()?;
    // A failed run leaves no report of an earlier one. The folders of stages stay.
    list(&folder)?.iter().filter(|path| path.is_file()).try_for_each(fs::remove_file)?;

    let runner = Runner::new(process::build_dpq(&settings.device)?, &settings.dataset)?;
    let pipeline = Pipeline::new(&runner, settings)?;
    // The baseline reads all images. If that fails, nothing was trained for hours before.
    let (pixels, shape) = pipeline.raw_pixels()?;
    let train = |seed| pipeline.train(&folder.join(format!("seed-{seed}")), seed, &[]);
    let trainings = (1..=settings.seeds).map(train).collect::<Result<Vec<_>>>()?;
    let baselines = if settings.preset == "quick" { "" } else { BASELINES };
    let options = format!(" --out OUT --tsne-items {}{baselines}", if settings.quick { 500 } else { 5000 });
    let mut report = Report::read(pipeline.report(&folder.join("report"), &trainings, &options)?.file(""))?;
    let variants = variants::variants(&settings.preset, settings.ablations, pretrained);
    let variants = variants.into_iter().map(|variant| pipeline.variant(variant, &trainings));
    let results = &mut report.results;
    results.variants = variants.collect::<Result<_>>()?;
    results.unseen = settings.unseen_classes.map(|n| pipeline.unseen_classes(n)).transpose()?;
    results.set_baseline(pixels, shape);
    results.run_wall_seconds = Some(runner.wall_seconds.get());
    results.about.commit = process::commit(&["Cargo.toml", "Cargo.lock", "crates", "datasets", "xtask"]);
    let files = report.write(&folder)?;
    println!("{}", report.summary());
    files.iter().for_each(|file| println!("{}", file.display()));
    Ok(report.results)
}

/// Waits for other runs, which would write to the same folders.
fn lock() -> Result<File> {
    let path = Path::new(FOLDER).join("lock");
    let file = File::create(&path).with_context(|| format!("cannot create {}", path.display()))?;
    if file.try_lock().is_err() {
        eprintln!("waiting for another reproduce-paper");
        file.lock()?;
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
        settings.set = ["epochs=2", "schedule=\"two-step\""].map(str::to_owned).into();
        assert_eq!(settings.name(), "cifar-10-quick-pretrained-epochs=2-schedule=_two-step_");
        settings.embeddings = Some("elsewhere/glove 300d.txt".into());
        settings.set.clear();
        assert_eq!(settings.name(), "cifar-10-quick-pretrained-embeddings=glove_300d.txt");
    }

    #[test]
    fn impossible_runs_are_refused_before_the_build() {
        let refused = |settings: &Settings| run(settings).map(|_| ()).unwrap_err().to_string();
        let nowhere = Settings { dataset: "datasets/nowhere".into(), ..Settings::quick() };
        assert!(refused(&nowhere).starts_with("there is no datasets/nowhere/dataset.toml"));
        let spaced = Settings { set: vec!["epochs = 2".to_owned()], ..Settings::quick() };
        assert!(refused(&spaced).starts_with("`epochs = 2` has a space"));
        let without_any = Settings { ablations: true, ..Settings::quick() };
        assert!(refused(&without_any).starts_with("preset quick has no ablations, "));
    }
}
