//! The `dpq` command: train, encode, index, search and evaluate nested codes.
//!
//! The command is a library, so that the Python package can bring it: [`run`] is all of it.
//!
//! Each subcommand has a file. No other crate of the workspace prints: results go to stdout or into
//! files, progress and errors to stderr. Exit codes: 0 done, 1 failed, 2 wrong use.

mod attack;
mod codebook;
mod codes;
mod completions;
mod data;
mod decode;
mod demo;
mod embeddings;
mod encode;
mod eval;
mod features;
mod gallery;
mod images;
mod index;
mod inputs;
mod labels;
mod man;
mod output;
mod pairs;
mod pictures;
mod report;
mod search;
mod serve;
mod train;
mod tune;
mod vectors;
mod weights;

use std::ffi::OsString;
use std::sync::atomic::AtomicBool;

use anyhow::{Context, Result, anyhow};
use clap::{Parser, Subcommand};
#[doc(no_inline)]
pub use dpq_model::BoxError;

/// Deep Progressive Quantization: codes whose every prefix is a code
#[derive(Parser)]
#[command(version, propagate_version = true, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Print the result as one JSON object on stdout
    #[arg(long, global = true, display_order = 1000)]
    json: bool,
    /// Threads to use [default: all cores; for `search` 1]
    #[arg(long, global = true, display_order = 1000, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    threads: Option<u16>,
}

#[derive(Subcommand)]
enum Command {
    Demo(demo::Args),
    Train(train::Args),
    Features(features::Args),
    Encode(encode::Args),
    Decode(decode::Args),
    #[command(subcommand)]
    Codebook(codebook::Command),
    #[command(subcommand)]
    Index(index::Command),
    Search(search::Args),
    Serve(serve::Args),
    Tune(tune::Args),
    Eval(eval::Args),
    Report(report::Args),
    Attack(attack::Args),
    #[command(subcommand)]
    Data(data::Command),
    #[command(subcommand)]
    Weights(weights::Command),
    Completions(completions::Args),
    Man(man::Args),
}

impl Command {
    fn run(self, json: bool) -> Result<()> {
        match self {
            Self::Demo(args) => args.run(json),
            Self::Train(args) => args.run(json),
            Self::Features(args) => args.run(json),
            Self::Encode(args) => args.run(json),
            Self::Decode(args) => args.run(json),
            Self::Codebook(command) => command.run(json),
            Self::Index(command) => command.run(json),
            Self::Search(args) => args.run(json),
            Self::Serve(args) => args.run(json),
            Self::Tune(args) => args.run(json),
            Self::Eval(args) => args.run(json),
            Self::Report(args) => args.run(json),
            Self::Attack(args) => args.run(json),
            Self::Data(command) => command.run(json),
            Self::Weights(command) => command.run(json),
            Self::Completions(args) => args.run(json),
            Self::Man(args) => args.run(json),
        }
    }
}

fn execute(cli: Cli) -> Result<()> {
    // `search` reports the latency of a query, which one thread answers.
    let default = if matches!(cli.command, Command::Search(_)) { 1 } else { 0 };
    let threads = cli.threads.map_or(default, usize::from);
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build_global()
        .context("cannot start the worker threads")?;
    cli.command.run(cli.json)
}

/// Keeps freed memory for the next layers of a network, whose tensors are as large. glibc would
/// return it to the system, which has to clear it again: a sixth of the time of fine-tuning.
fn keep_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    for (option, value) in [
        // One heap, which grows and does not shrink, and no block outside it.
        (libc::M_ARENA_MAX, 1),
        (libc::M_MMAP_MAX, 0),
        (libc::M_TRIM_THRESHOLD, i32::MAX),
        (libc::M_TOP_PAD, 64 << 20),
    ] {
        // SAFETY: these options take any number.
        #[expect(unsafe_code, reason = "a function of glibc")]
        unsafe {
            libc::mallopt(option, value);
        }
    }
}

/// Runs the command with `arguments`, of which the first is its name, and returns its exit code.
/// Wrong use and `--help` end the process.
///
/// The environment should have `CANDLE_NUM_THREADS=1`. By default candle starts threads of its own
/// for elementwise operations on large tensors, beside those of `--threads`. They wait by spinning,
/// and training in batches of 64 takes a quarter longer.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> u8 {
    let cli = Cli::parse_from(arguments);
    if matches!(
        cli.command,
        Command::Train(_) | Command::Features(_) | Command::Encode(_) | Command::Attack(_)
    ) {
        keep_memory();
    }
    match execute(cli) {
        Ok(()) => 0,
        Err(error) => {
            output::note(&format!("error: {error:#}"));
            1
        }
    }
}

/// Trains as `dpq train` does with these words, in this process. Prints nothing but notes, on
/// stderr: about images and classes that are left out, and about a checkpoint that is missing.
///
/// `on_epoch` gets each epoch as its line of epochs.jsonl; an error ends the training. Setting
/// `stop` ends it as Ctrl-C does.
///
/// # Errors
/// Those of the command, wrong use included. An error of `on_epoch` is among the sources.
pub fn train(
    arguments: impl IntoIterator<Item = OsString>,
    stop: &AtomicBool,
    on_epoch: &mut (dyn FnMut(&str) -> Result<(), BoxError> + Send),
) -> Result<()> {
    let words = ["dpq", "train"].map(OsString::from).into_iter().chain(arguments);
    let cli = Cli::try_parse_from(words).map_err(|error| {
        // The paragraphs after the first are about usage.
        let text = error.render().to_string();
        let first = text.split("\n\n").next().unwrap_or_default().trim_start_matches("error: ");
        anyhow!("{}", first.split_whitespace().collect::<Vec<_>>().join(" "))
    })?;
    let Command::Train(args) = cli.command else { unreachable!("the words begin with train") };
    let mut train = || args.train(Some(train::Caller { stop, on_epoch })).map(drop);
    match cli.threads {
        Some(n) => rayon::ThreadPoolBuilder::new().num_threads(n.into()).build()?.install(train),
        None => train(),
    }
}
