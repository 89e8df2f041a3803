//! `dpq data`.

mod export;
mod get;
mod images;
mod split;
mod verify;

use anyhow::Result;
use clap::Subcommand;

/// Download, check, split and export data sets
#[derive(Subcommand)]
pub(crate) enum Command {
    Get(get::Args),
    Verify(verify::Args),
    Split(split::Args),
    Export(export::Args),
    Images(images::Args),
}

impl Command {
    pub(crate) fn run(self, json: bool) -> Result<()> {
        match self {
            Self::Get(args) => args.run(json),
            Self::Verify(args) => args.run(json),
            Self::Split(args) => args.run(json),
            Self::Export(args) => args.run(json),
            Self::Images(args) => args.run(json),
        }
    }
}
