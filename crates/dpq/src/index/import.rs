//! `dpq index import`: an index of another program becomes one of dpq.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use dpq_codebook::Codebooks;
use dpq_index::Metric;

use super::Info;
use crate::{faiss, output};

/// Make an index file of an index that another program wrote
///
/// Of faiss: IndexResidualQuantizer and IndexPQ of at most 8 bits a level, alone or in an IndexIDMap. Codes, codebooks, ids
/// and metric are taken over, so that scores are the same; Euclidean ones are exact, whatever norms faiss kept.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  dpq index import --from faiss x.index --out gallery.dpq")]
pub(crate) struct ImportArgs {
    /// The index to read
    input: PathBuf,
    /// The program that wrote it
    #[arg(long, value_enum, value_name = "PROGRAM")]
    from: Program,
    /// Where to write the index
    #[arg(long, value_name = "DPQ")]
    out: PathBuf,
}

/// Whose indexes can be read.
#[derive(clap::ValueEnum, Clone, Copy)]
enum Program {
    Faiss,
}

/// Bytes of inner products between codewords, at most: product quantization has levels by the dozen, and an index by
/// Euclidean distance keeps a table for every two of them.
const MOST_PRODUCTS: usize = 1 << 30;

/// Refuses an index whose file would hold next to nothing but tables.
fn check_size(codebooks: &Codebooks, metric: Metric) -> Result<()> {
    let (n_levels, n_codewords) = (codebooks.n_levels(), codebooks.n_codewords());
    let bytes = n_levels * (n_levels - 1) / 2 * n_codewords * n_codewords * 4;
    ensure!(
        metric != Metric::Euclidean || bytes <= MOST_PRODUCTS,
        "has {n_levels} levels of {n_codewords} codewords and ranks by Euclidean distance, for which an index keeps {bytes} \
         bytes of products between codewords, at most {MOST_PRODUCTS}: encode the vectors with fewer levels, or rank by inner \
         product"
    );
    Ok(())
}

impl ImportArgs {
    pub(super) fn run(self, json: bool) -> Result<()> {
        let start = Instant::now();
        output::check_out(&self.out, [&self.input])?;
        let faiss::Contents { codebooks, metric, codes, ids } = match self.from {
            Program::Faiss => faiss::read(&self.input)?,
        };
        check_size(&codebooks, metric).with_context(|| self.input.display().to_string())?;
        dpq_index::build(&self.out, &codebooks, metric, &codes, ids.as_deref())?;
        Info::built(&self.out, start)?.print(json, &self.out)
    }
}

#[cfg(test)]
mod tests {
    use dpq_codebook::Assignment;

    use super::*;

    #[test]
    fn an_index_of_nothing_but_tables_is_refused() {
        let codebooks = |n_levels: usize| {
            Codebooks::new(vec![0.0; n_levels * 256], n_levels, 256, 1, Assignment::Euclidean).unwrap()
        };
        check_size(&codebooks(91), Metric::Euclidean).unwrap();
        check_size(&codebooks(240), Metric::InnerProduct).unwrap();
        let error = check_size(&codebooks(92), Metric::Euclidean).unwrap_err().to_string();
        assert!(
            error.contains("92 levels of 256 codewords") && error.contains("1097334784 bytes"),
            "{error}"
        );
    }
}
