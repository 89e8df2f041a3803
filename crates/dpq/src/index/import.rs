//! `dpq index import`: makes an index from an index of another program.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::Result;
use dpq_formats::FaissIndex;
use dpq_index::{Index, Metric};

use super::Info;
use crate::output;

/// Make an index file from an index of another program
///
/// Reads faiss's IndexResidualQuantizer and IndexPQ with 1 to 8 bits per level, alone or in an
/// IndexIDMap. Codes, codebooks, ids and metric stay the same, and with them the scores. Euclidean
/// scores are exact, whatever norms faiss stored.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  dpq index import --from faiss x.index --out gallery.dpq")]
pub(crate) struct ImportArgs {
    /// The index file to read
    input: PathBuf,
    /// The program that wrote the index
    #[arg(long, value_enum, value_name = "PROGRAM")]
    from: Program,
    /// File for the index
    #[arg(long, value_name = "DPQ")]
    out: PathBuf,
}

/// The programs whose indexes can be read.
#[derive(clap::ValueEnum, Clone, Copy)]
enum Program {
    Faiss,
}

impl ImportArgs {
    pub(super) fn run(self, json: bool) -> Result<()> {
        let start = Instant::now();
        output::check_out(&self.out, [&self.input])?;
        let Program::Faiss = self.from;
        let faiss = FaissIndex::open(&self.input)?;
        let metric = if faiss.is_euclidean { Metric::Euclidean } else { Metric::InnerProduct };
        let index = Index::builder(&faiss.codebooks, &faiss.codes).metric(metric);
        faiss.ids.as_deref().map_or(index, |ids| index.ids(ids)).write(&self.out)?;
        Info::built(&self.out, start)?.print(json, &self.out)
    }
}
