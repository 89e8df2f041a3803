//! `cargo xtask ci`: everything that a change must pass.
//!
//! All steps use the release profile and the same features of shared dependencies. Cargo therefore
//! compiles each dependency once, also for `cargo xtask reproduce-paper` afterwards. The step
//! `tidy` checks the features.

use std::fs;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use dpq_report::quick;

use crate::process::{build_dpq, cargo, executable, packages, run as run_command};
use crate::reproduce::{self, Settings, toy_protocols};
use crate::{bench, book, page, python, tidy};

/// One step of the check.
pub(crate) struct Step {
    pub(crate) name: &'static str,
    what: &'static str,
    run: fn() -> Result<()>,
}

/// The steps in order. Cheap steps and steps that often fail come first.
pub(crate) const STEPS: [Step; 12] = [
    Step { name: "fmt", what: "the code is formatted", run: fmt },
    Step { name: "tidy", what: "the repository keeps its conventions", run: tidy::run },
    Step { name: "clippy", what: "no warning in any target, benches included", run: clippy },
    Step { name: "test", what: "tests and the examples in documentation pass", run: test },
    Step { name: "faiss", what: "faiss and dpq read each other's indexes", run: faiss },
    Step { name: "python", what: "the Python module is built, installed and tested", run: python::run },
    Step { name: "page", what: "the page works in a browser, the server is as described", run: page::run },
    Step { name: "doc", what: "the documentation builds without a warning", run: doc },
    Step { name: "book", what: "the book has every page, and its links lead somewhere", run: book::run },
    Step { name: "package", what: "each crate has all that publishing needs", run: package },
    Step { name: "protocol", what: "toy runs of the paper reach their reports", run: toy_protocols },
    Step { name: "reproduce", what: "small training runs give the expected tables", run: quick },
];

/// Runs all steps, or the step of this name.
pub(crate) fn run(name: Option<&str>) -> Result<()> {
    let steps = STEPS.iter().filter(|step| name.is_none_or(|name| name == step.name));
    let mut summary = String::new();
    let start = Instant::now();
    for step in steps {
        eprintln!("==> {}: {}", step.name, step.what);
        let start = Instant::now();
        if let Err(error) = (step.run)() {
            bail!("{error:#}\nstep {0} failed; to run it alone: cargo xtask ci --step {0}", step.name);
        }
        let line = format!("==> {:<10} {:>6.0} s", step.name, start.elapsed().as_secs_f64());
        eprintln!("{line}");
        summary = summary + &line + "\n";
    }
    println!("{summary}==> all passed {:>4.0} s", start.elapsed().as_secs_f64());
    Ok(())
}

fn fmt() -> Result<()> {
    run_command(&mut cargo(&["fmt", "--all", "--check"]))
}

fn clippy() -> Result<()> {
    let args = ["clippy", "--release", "--locked", "--workspace", "--all-targets", "--", "-D", "warnings"];
    run_command(&mut cargo(&args))
}

/// The examples that `cargo xtask reproduce-paper` runs.
const OTHER_EXAMPLES: [&str; 3] = ["toy_sets", "gbm", "heston"];

/// Tests compile the examples. All but [`OTHER_EXAMPLES`] need no arguments.
fn test() -> Result<()> {
    run_command(&mut cargo(&["test", "--release", "--locked", "--workspace"]))?;
    for package in packages(&["--no-deps"])? {
        let targets = package["targets"].as_array().context("a package has targets")?;
        let examples = targets.iter().filter(|target| target["kind"][0] == "example");
        for name in examples.filter_map(|example| example["name"].as_str()) {
            if !OTHER_EXAMPLES.contains(&name) {
                let mut build = cargo(&["build", "--workspace", "--example", name]);
                let example = executable(&mut build, "example", name)?;
                run_command(Command::new(example).stdin(Stdio::null()))?;
            }
        }
    }
    Ok(())
}

/// Needs python3, and the network the first time.
fn faiss() -> Result<()> {
    let python = bench::Library::Faiss.python()?;
    let dpq = fs::canonicalize(build_dpq("cpu")?)?;
    run_command(Command::new(python).arg("crates/dpq/tests/faiss/interchange.py").arg(dpq))
}

/// Makes the archive of each crate as crates.io would get it. The other steps have compiled them.
fn package() -> Result<()> {
    let args = ["publish", "--workspace", "--dry-run", "--no-verify", "--allow-dirty", "--locked"];
    run_command(&mut cargo(&args))
}

fn doc() -> Result<()> {
    let args = ["doc", "--release", "--locked", "--workspace", "--no-deps"];
    run_command(cargo(&args).env("RUSTDOCFLAGS", "-D warnings"))
}

fn quick() -> Result<()> {
    let checks: [fn(&_) -> _; 2] = [quick::fashion_mnist, quick::collages];
    for (settings, check) in [Settings::quick(), Settings::quick_collages()].iter().zip(checks) {
        let wrong = check(&reproduce::run(settings)?).join("\n  ");
        ensure!(wrong.is_empty(), "{} does not show what it should:\n  {wrong}", settings.name());
    }
    // Its checks are its own.
    Settings::quick_system("mopq").run()
}
