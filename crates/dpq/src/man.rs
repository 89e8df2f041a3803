//! `dpq man`: manual pages.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::CommandFactory;
use serde::Serialize;

use crate::Cli;
use crate::output::{self, ResultDir};

/// Write a manual page for each command, dpq.1 to dpq-weights-import.1
#[derive(clap::Args)]
#[command(after_help = "Example:\n  dpq man --out-dir ~/.local/share/man/man1 && man dpq-train")]
pub(crate) struct Args {
    /// Folder for the pages
    #[arg(long, value_name = "DIR")]
    out_dir: PathBuf,
}

#[derive(Serialize)]
struct Written {
    pages: usize,
}

impl Args {
    pub(crate) fn run(self, json: bool) -> Result<()> {
        let _created = ResultDir::create(&self.out_dir)?;
        let (mut command, dir) = (Cli::command(), self.out_dir.display());
        command.build();
        let pages = 1 + n_subcommands(&command);
        clap_mangen::generate_to(command, &self.out_dir).with_context(|| format!("cannot write to {dir}"))?;
        output::print(json, &Written { pages }, &format!("wrote {pages} pages to {dir}"))
    }
}

fn n_subcommands(command: &clap::Command) -> usize {
    command.get_subcommands().map(|command| 1 + n_subcommands(command)).sum()
}
