//! `dpq index export`: writes the contents of an index for other programs.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::Result;
use dpq_formats::{FaissIndex, npy};
use dpq_index::Metric;
use serde::Serialize;

use crate::codes::{check_items_of, write_codes};
use crate::gallery::map;
use crate::output;

/// Write the contents of an index for another program
///
/// `--to faiss` writes one file: an IndexResidualQuantizer, or an IndexPQ of product codes, in an
/// IndexIDMap unless ids are row numbers. faiss searches it with the same scores at the full
/// length. `--to npy` writes a folder with codes.npy, codes.json, ids.npy and codebook.safetensors,
/// the inputs of `dpq index build`. Items are ordered by ascending id. The index is verified first.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  dpq index export gallery.dpq --to faiss --out x.index\n  dpq index export gallery.dpq --to npy \
        --out gallery"
)]
pub(crate) struct ExportArgs {
    /// The index file
    index: PathBuf,
    /// The format to write
    #[arg(long, value_enum, value_name = "FORMAT")]
    to: Format,
    /// The file to write, or the folder for npy
    #[arg(long, value_name = "PATH")]
    out: PathBuf,
}

#[derive(clap::ValueEnum, Clone, Copy)]
enum Format {
    Faiss,
    Npy,
}

#[derive(Serialize)]
struct Exported {
    items: usize,
    metric: String,
    fingerprint: String,
    seconds: f64,
}

impl ExportArgs {
    pub(super) fn run(self, json: bool) -> Result<()> {
        let start = Instant::now();
        match self.to {
            Format::Faiss => output::check_out(&self.out, [&self.index])?,
            Format::Npy => {
                let files = ["labels.npy", "names.txt", "features.npy", "posteriors.npy"];
                check_items_of(&self.out, &files)?;
            }
        }
        let index = map(&self.index)?;
        index.verify()?;
        let (ids, codes) = index.ids_and_codes();
        let codebooks = index.codebooks();
        match self.to {
            Format::Faiss => {
                let is_euclidean = index.metric() == Metric::Euclidean;
                let codebooks = codebooks.clone();
                FaissIndex { is_euclidean, codebooks, codes, ids: Some(ids) }.save(&self.out)?;
            }
            Format::Npy => {
                let _dir = output::ResultDir::create(&self.out)?;
                write_codes(&self.out, codebooks, &codes, Some(index.metric()))?;
                npy::write(self.out.join("ids.npy"), &[ids.len()], &ids)?;
                codebooks.save(self.out.join("codebook.safetensors"))?;
            }
        }
        let exported = Exported {
            items: index.len(),
            metric: index.metric().to_string(),
            fingerprint: index.fingerprint(),
            seconds: output::seconds(start),
        };
        let text = format!(
            "wrote {} items, ranked by {}, to {}",
            exported.items,
            exported.metric,
            self.out.display()
        );
        output::print(json, &exported, &text)
    }
}
