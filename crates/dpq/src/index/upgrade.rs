//! `dpq index upgrade`: writes an index of an old file version again.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::Result;
use dpq_index::Index;

use super::{Info, info};
use crate::gallery::map;
use crate::output;

/// Write an index of an old file version in the current one
///
/// Items, codebooks and results stay the same: a Euclidean index of version 1 becomes smaller and
/// faster. The index is verified first, and the write is atomic. An index of the current version
/// is left alone.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  dpq index upgrade gallery.dpq")]
pub(crate) struct UpgradeArgs {
    /// The index file
    index: PathBuf,
    /// File for the new index [default: the index file, which is replaced]
    #[arg(long, value_name = "DPQ")]
    out: Option<PathBuf>,
}

impl UpgradeArgs {
    pub(super) fn run(self, json: bool) -> Result<()> {
        let start = Instant::now();
        let out = self.out.as_ref().unwrap_or(&self.index);
        output::check_out(out, [])?;
        let index = map(&self.index)?;
        if index.is_current() {
            let text =
                format!("{}: version {} is current, nothing to write", self.index.display(), index.version());
            return output::print(json, &info(&self.index)?, &text);
        }
        index.verify()?;
        let (ids, codes) = index.ids_and_codes();
        Index::builder(index.codebooks(), &codes).ids(&ids).metric(index.metric()).write(out)?;
        Info::built(out, start)?.print(json, out)
    }
}
