//! `dpq index export`: what an index holds, for other programs.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::Result;
use dpq_formats::{FaissIndex, FaissMetric, npy};
use dpq_index::Metric;
use serde::Serialize;

use crate::codes::write_codes;
use crate::output;

/// Write what an index holds in the form of another program
///
/// For faiss one file: an IndexResidualQuantizer, in an IndexIDMap unless ids are row numbers,
/// whose search gives the same scores at the full length. As NumPy arrays a folder: codes.npy,
/// codes.json, ids.npy and codebook.safetensors, what `dpq index build` takes. Items come by
/// ascending id. The index is verified first.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  dpq index export gallery.dpq --to faiss --out x.index\n  dpq index export gallery.dpq --to npy \
        --out gallery"
)]
pub(crate) struct ExportArgs {
    /// The index file
    index: PathBuf,
    /// The form to write
    #[arg(long, value_enum, value_name = "FORM")]
    to: Form,
    /// The file, or for npy the folder, to write
    #[arg(long, value_name = "PATH")]
    out: PathBuf,
}

#[derive(clap::ValueEnum, Clone, Copy)]
enum Form {
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
        if matches!(self.to, Form::Faiss) {
            output::check_out(&self.out, [&self.index])?;
        }
        let index = super::map(&self.index)?;
        index.verify()?;
        let (ids, codes) = index.ids_and_codes();
        let codebooks = index.codebooks();
        match self.to {
            Form::Faiss => {
                let faiss = FaissIndex {
                    metric: match index.metric() {
                        Metric::InnerProduct => FaissMetric::InnerProduct,
                        Metric::Euclidean => FaissMetric::Euclidean,
                    },
                    dim: codebooks.dim(),
                    n_levels: codebooks.n_levels(),
                    n_codewords: codebooks.n_codewords(),
                    codebooks: codebooks.values().to_vec(),
                    codes,
                    ids: Some(ids),
                };
                faiss.save(&self.out)?;
            }
            Form::Npy => {
                let _dir = output::ResultDir::create(&self.out)?;
                write_codes(&self.out, codebooks, &codes, Some(index.metric()))?;
                npy::write(&self.out.join("ids.npy"), &[ids.len()], &ids)?;
                codebooks.save(&self.out.join("codebook.safetensors"))?;
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
