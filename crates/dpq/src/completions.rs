//! `dpq completions`: completion scripts for shells.

use anyhow::Result;
use clap::CommandFactory;
use clap_complete::Shell;
use serde::Serialize;

use crate::{Cli, output};

/// Print a script that completes commands and options in a shell
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  dpq completions bash > ~/.local/share/bash-completion/completions/dpq\n  \
        dpq completions fish > ~/.config/fish/completions/dpq.fish\n  \
        dpq completions zsh > _dpq    # in a folder of $fpath"
)]
pub(crate) struct Args {
    shell: Shell,
}

#[derive(Serialize)]
struct Completions<'a> {
    shell: String,
    script: &'a str,
}

impl Args {
    pub(crate) fn run(self, json: bool) -> Result<()> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "dpq", &mut script);
        let script = String::from_utf8(script)?;
        output::print(json, &Completions { shell: self.shell.to_string(), script: &script }, &script)
    }
}
