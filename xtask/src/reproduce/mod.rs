//! `cargo xtask reproduce-paper`: one command from images to a table.
//!
//! - `dpq`: what the command `dpq` prints
//! - `stage`: a run of `dpq` that is skipped when nothing it depends on has changed
//! - `pipeline`: the stages of a training and of the raw-pixel baseline
//! - `results`, `gather`: the numbers, as `results.json` keeps them, and how they come from stages
//! - `report`, `plot`: Markdown and SVG, from `results.json` and nothing else
//! - `check`: what a quick run must show

mod check;
mod dpq;
mod gather;
mod pipeline;
mod plot;
mod report;
mod results;
mod stage;
#[cfg(test)]
mod test_data;

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

pub(crate) use check::check_quick;
pub(crate) use results::Results;
use stage::Runner;

/// What is reproduced.
#[derive(Clone)]
pub(crate) struct Settings {
    pub(crate) dataset: String,
    pub(crate) preset: String,
    pub(crate) seeds: u16,
    pub(crate) device: String,
}

impl Settings {
    /// A training that takes minutes, for `ci`.
    pub(crate) fn quick() -> Self {
        let text = |text: &str| text.to_owned();
        Self { dataset: text("fashion-mnist"), preset: text("quick"), seeds: 1, device: text("cpu") }
    }

    fn folder(&self) -> PathBuf {
        Path::new(FOLDER).join(format!("{}-{}", self.dataset, self.preset))
    }
}

/// Where stages and reports are.
const FOLDER: &str = "target/reproduce";

/// The files of a report, as [`render`] gives them.
const FILES: [&str; 3] = ["results.json", "results.md", "precision-recall.svg"];

/// Runs the stages that have to run, with the executable that `build` builds, and writes the report.
pub(crate) fn run(settings: &Settings, build: fn() -> Result<PathBuf>) -> Result<Results> {
    ensure!(!settings.dataset.contains(' '), "the name of a data set has no spaces");
    let dataset = Path::new("datasets").join(&settings.dataset);
    ensure!(
        dataset.join("dataset.toml").is_file(),
        "there is no {}/dataset.toml, give the name of a folder in datasets",
        dataset.display()
    );
    let folder = settings.folder();
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let _lock = lock()?;
    // A run that fails leaves no table, an old one least of all.
    for file in FILES {
        fs::remove_file(folder.join(file)).or_else(|error| match error.kind() {
            std::io::ErrorKind::NotFound => Ok(()),
            _ => Err(error),
        })?;
    }

    let runner = Runner::new(build()?, &dataset)?;
    let runs = (1..=settings.seeds)
        .map(|seed| pipeline::train_and_evaluate(&runner, settings, &folder, seed))
        .collect::<Result<Vec<_>>>()?;
    let baseline = pipeline::raw_pixels(&runner, settings)?;
    let results = gather::gather(settings, &runs, &baseline)?;

    let json = results.to_json()?;
    let results = Results::from_json(&json)?;
    for (file, text) in FILES.iter().zip(render(&json)?) {
        let path = folder.join(file);
        let partial = folder.join(format!("{file}.partial"));
        fs::write(&partial, text)
            .and_then(|()| fs::rename(&partial, &path))
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    println!("{}", report::summary(&results));
    for file in FILES {
        println!("{}", folder.join(file).display());
    }
    Ok(results)
}

/// The contents of [`FILES`], from the first of them.
fn render(json: &str) -> Result<[String; 3]> {
    let results = Results::from_json(json)?;
    Ok([json.to_owned(), report::markdown(&results), plot::precision_recall(&results)?])
}

/// Copies the report of a run to `docs`.
pub(crate) fn write_docs(settings: &Settings) -> Result<()> {
    for file in FILES {
        let (from, to) = (settings.folder().join(file), Path::new("docs").join(file));
        fs::copy(&from, &to).with_context(|| format!("cannot write {}", to.display()))?;
        println!("{}", to.display());
    }
    Ok(())
}

/// Says where the report in `docs` is not what its JSON file renders to. No report is right, too.
pub(crate) fn check_docs(docs: &Path) -> Result<Vec<String>> {
    let path = docs.join(FILES[0]);
    let Ok(json) = fs::read_to_string(&path) else {
        let orphans = FILES[1..].iter().map(|file| docs.join(file)).filter(|file| file.exists());
        return Ok(orphans.map(|file| format!("{}: without {}", file.display(), path.display())).collect());
    };
    let rendered = render(&json).with_context(|| path.display().to_string())?;
    let differs =
        |file: &&&str, text: &String| fs::read_to_string(docs.join(file)).ok().as_ref() != Some(text);
    Ok(FILES
        .iter()
        .zip(&rendered)
        .filter(|(file, text)| differs(file, text))
        .map(|(file, _)| {
            format!(
                "{}: is not what {} renders to; it is written by `cargo xtask reproduce-paper --write-docs`",
                docs.join(file).display(),
                path.display()
            )
        })
        .collect())
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
