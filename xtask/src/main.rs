//! The tasks of this repository, run as `cargo xtask <command>`.
//!
//! This file declares the command line; each command has a file of its own. Tasks run cargo and
//! `dpq` as processes and read their output. Nothing here links candle, so a task compiles in
//! seconds.

mod bench;
mod ci;
mod cuda_check;
mod fuzz;
mod process;
mod python;
mod reproduce;
mod table;
mod tidy;

use std::io;
use std::path::{self, Path, PathBuf};
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// The tasks of this repository
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run everything that a change must pass, up to the first failure
    Ci {
        /// Run only this step
        #[arg(long, value_parser = clap::builder::PossibleValuesParser::new(ci::STEPS.map(|step| step.name)))]
        step: Option<String>,
    },
    /// Check conventions that no compiler checks: dependencies, modules, prose, links, committed
    /// results
    Tidy,
    /// Train, encode, index, search and evaluate, and write a report
    ///
    /// Stages are kept under `target/reproduce/`. A later run skips stages whose inputs are
    /// unchanged and resumes an interrupted training.
    ReproducePaper(ReproduceArgs),
    /// Render the reports and benchmark pages in docs again from their results
    RenderDocs,
    /// Measure all crates, or compare with other libraries
    ///
    /// Writes `bench.json` and `bench.md` into `target/bench/`: times of criterion's benches with
    /// confidence intervals, instructions of the kernels, and mAP and bytes per vector if
    /// `reproduce-paper --quick` ran before. Codes, codebooks and queries are made once and kept
    /// under `target/bench-data/`. Comparisons write docs/benchmarks.md and docs/codes.md and need
    /// an idle machine.
    Bench(BenchArgs),
    /// Run each fuzz target for some seconds; needs a nightly toolchain and cargo-fuzz
    Fuzz {
        /// Seconds per target
        #[arg(long, default_value_t = 60, value_name = "N")]
        seconds: u32,
    },
    /// Build the wheel of the Python module into `target/wheels/`, install and test it
    ///
    /// Needs python3, and the network the first time.
    Python,
    /// Build the program for NVIDIA GPUs and check everything that needs no GPU
    ///
    /// Needs x86-64 Linux, python3 with pip, a C++ compiler, and the network the first time. Keeps
    /// everything under `target/cuda-check/`.
    CudaCheck,
}

#[derive(clap::Args)]
struct ReproduceArgs {
    /// The name of a folder in `datasets/`, or the path of a folder elsewhere, such as ./cifar-10.
    /// The name of the folder selects the results of the paper to compare with
    #[arg(long, default_value = "fashion-mnist", value_name = "NAME|DIR", value_parser = dataset)]
    dataset: PathBuf,
    /// A configuration of `dpq train`
    #[arg(long, default_value = "best", value_name = "NAME")]
    preset: String,
    /// Change the preset in every training, as `dpq train --set` does, without spaces; may be
    /// repeated. The results go to a separate folder, and the report names the changes
    #[arg(long, value_name = "KEY=VALUE", conflicts_with = "write_docs")]
    set: Vec<String>,
    /// Number of trainings, with seeds 1, 2, …; the report gives mean and standard deviation
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    seeds: u16,
    /// A small training that takes minutes: `--preset quick --seeds 1`
    #[arg(long, conflicts_with_all = ["preset", "seeds", "write_docs"])]
    quick: bool,
    /// Device of the network: cpu or cuda:N. For cuda:N, dpq is built with the feature `cuda`
    #[arg(long, default_value = "cpu", value_name = "DEVICE")]
    device: String,
    /// Start the body of the network from pretrained weights that `dpq weights import` wrote
    #[arg(long, value_name = "SAFETENSORS", value_parser = |path: &str| path::absolute(path))]
    weights: Option<PathBuf>,
    /// Vectors of the classes, as for `dpq train --embeddings`: a .npy file or word vectors as text
    #[arg(long, value_name = "FILE", value_parser = |path: &str| path::absolute(path))]
    embeddings: Option<PathBuf>,
    /// Also run ablations, with as many trainings per row as seeds. For `paper`: the rows of Table
    /// 2 and one model per length. For `best`: the preset without each of its ingredients
    #[arg(long)]
    ablations: bool,
    /// Copy the report to docs/results/DATASET-PRESET and write docs/results.md
    #[arg(long)]
    write_docs: bool,
}

#[derive(clap::Args)]
struct BenchArgs {
    /// Items of an index, or several numbers separated by commas
    #[arg(long, default_value = "1000000", value_name = "N", value_delimiter = ',')]
    items: Vec<u32>,
    /// Run only the benches of this crate; may be repeated
    #[arg(long = "crate", value_name = "NAME")]
    #[arg(value_parser = clap::builder::PossibleValuesParser::new(bench::crates()))]
    crates: Vec<String>,
    /// Run only benches whose names contain this text
    #[arg(long, default_value = "", hide_default_value = true, value_name = "TEXT")]
    filter: String,
    /// Also count instructions; needs valgrind
    #[arg(long)]
    instructions: bool,
    /// Do not measure times
    #[arg(long)]
    no_time: bool,
    /// Show changes since an earlier run with this bench.json
    #[arg(long, value_name = "FILE")]
    baseline: Option<PathBuf>,
    /// Fail if instructions (by 5 %), bytes per vector (by 1 %) or mAP (by 0.005) are worse than
    /// the baseline's, or are missing on one side
    #[arg(long, requires = "baseline")]
    gate: bool,
    /// Compare with these libraries, separated by commas; needs Linux, python3, and the network the
    /// first time
    #[arg(long, value_name = "LIBRARY", value_delimiter = ',')]
    #[arg(conflicts_with_all = ["crates", "filter", "instructions", "no_time", "baseline", "gate"])]
    against: Vec<bench::Library>,
    /// Number of queries that are timed one by one in searches beside faiss
    #[arg(long, default_value_t = 30, value_name = "N", requires = "against")]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=900))]
    queries: u16,
}

/// Returns the folder of a data set. A path is relative to the folder in which the command runs.
fn dataset(text: &str) -> io::Result<PathBuf> {
    if text.contains(path::is_separator) {
        path::absolute(text)
    } else {
        Ok(Path::new("datasets").join(text))
    }
}

impl ReproduceArgs {
    fn run(self) -> Result<()> {
        let write_docs = self.write_docs;
        let quick = reproduce::Settings::quick();
        let settings = reproduce::Settings {
            preset: if self.quick { quick.preset } else { self.preset },
            seeds: if self.quick { quick.seeds } else { self.seeds },
            dataset: self.dataset,
            changes: self.set,
            device: self.device,
            weights: self.weights,
            embeddings: self.embeddings,
            tsne_items: if self.quick { quick.tsne_items } else { 5000 },
            ablations: self.ablations,
        };
        reproduce::run(&settings)?;
        if write_docs { reproduce::write_docs(&settings) } else { Ok(()) }
    }
}

impl BenchArgs {
    fn run(self) -> Result<()> {
        if !self.against.is_empty() {
            return bench::compare(&self.against, &self.items, self.queries);
        }
        bench::measure(&bench::Settings {
            items: self.items,
            crates: self.crates,
            filter: self.filter,
            instructions: self.instructions,
            time: !self.no_time,
            baseline: self.baseline,
            gate: self.gate,
        })
    }
}

fn run(cli: Cli) -> Result<()> {
    process::enter_repository()?;
    match cli.command {
        Command::Ci { step } => ci::run(step.as_deref()),
        Command::Tidy => tidy::run(),
        Command::Fuzz { seconds } => fuzz::run(seconds),
        Command::Python => python::run(),
        Command::CudaCheck => cuda_check::run(),
        Command::ReproducePaper(args) => args.run(),
        Command::RenderDocs => {
            bench::render_docs()?;
            reproduce::render_docs()
        }
        Command::Bench(args) => args.run(),
    }
}

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn a_comparison_takes_no_flag_of_measuring() {
        Cli::command().debug_assert();
        let parse = |flags: &[&str]| {
            Cli::try_parse_from(["xtask", "bench", "--against", "faiss"].iter().chain(flags)).is_ok()
        };
        assert!(parse(&["--items", "1000", "--queries", "3"]));
        let flags: [&[&str]; 6] = [
            &["--crate", "dpq-index"],
            &["--filter", "search"],
            &["--instructions"],
            &["--no-time"],
            &["--baseline", "bench.json"],
            &["--baseline", "bench.json", "--gate"],
        ];
        assert!(flags.iter().all(|flags| !parse(flags)));
    }
}
