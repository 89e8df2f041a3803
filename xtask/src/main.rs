//! The tasks of this repository, run as `cargo xtask <command>`.
//!
//! This file declares the command line; each command has a file of its own. Tasks run cargo and
//! `dpq` as processes and read their output. Nothing here links candle, so a task compiles in
//! seconds.

mod bench;
mod book;
mod ci;
mod cuda_check;
mod fuzz;
mod page;
mod process;
mod python;
mod reproduce;
mod tidy;

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
    /// Check conventions that no compiler checks: dependencies, prose, links, committed results
    Tidy,
    ReproducePaper(reproduce::Settings),
    /// Write all pages that are made from measurements: docs/results, docs/results.md,
    /// docs/benchmarks.md, docs/codes.md
    RenderDocs,
    Bench(bench::Args),
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
    /// Build the pages of `docs` as a book in `target/book/html`, and check its links
    ///
    /// Needs python3, and the network the first time.
    Book,
    /// Build the program for NVIDIA GPUs and check everything that needs no GPU
    ///
    /// Needs x86-64 Linux, python3 with pip, a C++ compiler, and the network the first time. Keeps
    /// everything under `target/cuda-check/`.
    CudaCheck,
}

fn run(cli: Cli) -> Result<()> {
    process::enter_repository()?;
    match cli.command {
        Command::Ci { step } => ci::run(step.as_deref()),
        Command::Tidy => tidy::run(),
        Command::Fuzz { seconds } => fuzz::run(seconds),
        Command::Python => python::run(),
        Command::Book => book::run(),
        Command::CudaCheck => cuda_check::run(),
        Command::ReproducePaper(args) => args.run(),
        Command::RenderDocs => {
            dpq_report::docs::render("docs")?.iter().for_each(|path| println!("{}", path.display()));
            Ok(())
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
        let parses = |flags: &str| Cli::try_parse_from(format!("xtask bench {flags}").split(' ')).is_ok();
        assert!(parses("--against faiss --items 1000 --queries 3") && parses("--baseline b.json --gate"));
        for flag in ["--instructions", "--baseline b.json", "--baseline b.json --gate"] {
            assert!(!parses(&format!("--against faiss {flag}")), "{flag}");
        }
    }
}
