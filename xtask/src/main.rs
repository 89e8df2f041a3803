//! The tasks of this repository, run as `cargo xtask <command>`.
//!
//! One clap declaration, here; one file a command. Tasks run cargo and the `dpq` command as processes and read what
//! they print; nothing here links the libraries, so that a task compiles in seconds.

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
    /// Everything that a change must pass, in order; stops at the first failure
    Ci {
        /// Run this step alone
        #[arg(long, value_parser = clap::builder::PossibleValuesParser::new(ci::STEPS.map(|step| step.name)))]
        step: Option<String>,
    },
    /// Dependencies, file heads, links, committed results: conventions that no compiler checks
    Tidy,
    /// Train, encode, index, search and evaluate, and write a report
    ///
    /// Each stage is kept under `target/reproduce/` and skipped when nothing that it depends on has changed; an
    /// interrupted run goes on where it stopped.
    ReproducePaper(ReproduceArgs),
    /// Write docs/results.md, the reports in docs/results, docs/benchmarks.md and docs/codes.md again from what runs left there
    RenderDocs,
    /// Measure all crates, or compare with other libraries
    ///
    /// Writes `bench.json` and `bench.md` into `target/bench/`: times of criterion's benches with confidence intervals,
    /// instructions of the kernels, and mAP and bytes a vector if `reproduce-paper --quick` was run. Codes, codebooks and
    /// queries are made once and kept under `target/bench-data/`. Comparisons write docs/benchmarks.md and docs/codes.md; they
    /// want a machine at rest.
    Bench(BenchArgs),
    /// Run each fuzz target for some seconds; needs a nightly toolchain and cargo-fuzz
    Fuzz {
        /// Seconds a target
        #[arg(long, default_value_t = 60, value_name = "N")]
        seconds: u32,
    },
    /// The wheel of the Python module: built into `target/wheels/`, installed and tested; needs python3, once the network
    Python,
    /// Build the program for NVIDIA GPUs and try what shows without one
    ///
    /// On x86-64 Linux; needs python3 with pip, a C++ compiler and once the network. Everything is kept under
    /// `target/cuda-check/`.
    CudaCheck,
}

#[derive(clap::Args)]
struct ReproduceArgs {
    /// A folder of `datasets/` by its name, or one elsewhere by its path, as ./cifar-10; the name of the folder decides
    /// which of the paper's results stand beside ours
    #[arg(long, default_value = "fashion-mnist", value_name = "NAME|DIR", value_parser = dataset)]
    dataset: PathBuf,
    /// A configuration of `dpq train`
    #[arg(long, default_value = "best", value_name = "NAME")]
    preset: String,
    /// Change the preset by a line as `dpq train --set` takes it, without spaces, for every training; may be given several
    /// times. The results are kept apart from the preset's, and the report names the lines
    #[arg(long, value_name = "KEY=VALUE", conflicts_with = "write_docs")]
    set: Vec<String>,
    /// Trainings, with seeds 1, 2, …; the report gives mean and standard deviation
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    seeds: u16,
    /// A small training that takes minutes: `--preset quick --seeds 1`
    #[arg(long, conflicts_with_all = ["preset", "seeds", "write_docs"])]
    quick: bool,
    /// Where the network runs, in training and in encoding; for cuda:N the program is built with the feature `cuda`
    #[arg(long, default_value = "cpu", value_name = "DEVICE")]
    device: String,
    /// Pretrained weights that the network's body starts from, as `dpq weights import` writes them
    #[arg(long, value_name = "SAFETENSORS", value_parser = |path: &str| path::absolute(path))]
    weights: Option<PathBuf>,
    /// Vectors of the classes for every training, as `dpq train --embeddings` takes them: a .npy file or word vectors as text
    #[arg(long, value_name = "FILE", value_parser = |path: &str| path::absolute(path))]
    embeddings: Option<PathBuf>,
    /// Beside `paper`, the rows of Table 2 and one model for each length; beside `best`, the preset
    /// without each of its ingredients: for each row as many trainings as seeds
    #[arg(long)]
    ablations: bool,
    /// Copy the report to docs/results/DATASET-PRESET and write docs/results.md
    #[arg(long)]
    write_docs: bool,
}

#[derive(clap::Args)]
struct BenchArgs {
    /// Items of an index, or several numbers with commas between them
    #[arg(long, default_value = "1000000", value_name = "N", value_delimiter = ',')]
    items: Vec<u32>,
    /// Run the benches of this crate alone; may be given several times
    #[arg(long = "crate", value_name = "NAME")]
    #[arg(value_parser = clap::builder::PossibleValuesParser::new(bench::crates()))]
    crates: Vec<String>,
    /// Run only benches with this in their names
    #[arg(long, default_value = "", hide_default_value = true, value_name = "TEXT")]
    filter: String,
    /// Count instructions too; needs valgrind
    #[arg(long)]
    instructions: bool,
    /// Take no times
    #[arg(long)]
    no_time: bool,
    /// Show changes since an earlier run, of which this is the bench.json
    #[arg(long, value_name = "FILE")]
    baseline: Option<PathBuf>,
    /// Fail if instructions (by 5 %), bytes a vector (by 1 %) or mAP (by 0.005) are worse than the baseline's, or are missing
    /// on either side
    #[arg(long, requires = "baseline")]
    gate: bool,
    /// Compare with these libraries, with commas between them; Linux, needs python3 and once the network
    #[arg(long, value_name = "LIBRARY", value_delimiter = ',')]
    #[arg(conflicts_with_all = ["crates", "filter", "instructions", "no_time", "baseline", "gate"])]
    against: Vec<bench::Library>,
    /// Queries of the searches beside faiss that are timed one by one
    #[arg(long, default_value_t = 30, value_name = "N", requires = "against")]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=900))]
    queries: u16,
}

/// The folder of a data set, which is seen from where the command was given.
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
