//! `dpq data images`: writes images as PNG files.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use dpq_data::{Dataset, encode_png};
use serde::Serialize;

use crate::output;

/// Write images of a data set as PNG files
///
/// Images have the size of the data set's `shape`. The id of an image is its row in the data set,
/// as in ids.npy of `dpq encode`, and names its file: 17.png. `dpq search` prints these ids if `dpq
/// index build` got ids.npy as --ids.
#[derive(clap::Args)]
#[command(
    after_help = "Example:\n  dpq data images --data datasets/fashion-mnist --ids 17,4711 --out-dir found"
)]
pub(crate) struct Args {
    /// Data set folder
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Ids of images, separated by commas
    #[arg(long, value_name = "ID", required = true, value_delimiter = ',')]
    ids: Vec<u64>,
    /// Output folder
    #[arg(long, value_name = "DIR")]
    out_dir: PathBuf,
}

#[derive(Serialize)]
struct Written {
    items: usize,
    /// The names of the classes, in the order of the columns of labels.npy.
    classes: Vec<String>,
}

impl Args {
    pub(crate) fn run(self, json: bool) -> Result<()> {
        let dataset = Dataset::open(&self.data)?;
        let row = |id: &u64| {
            let row = usize::try_from(*id).ok().filter(|&row| row < dataset.len());
            let (name, last) = (dataset.name(), dataset.len().saturating_sub(1));
            row.with_context(|| format!("{name} has no id {id}, expected 0 to {last}"))
        };
        // All ids are checked before the first file is written.
        let rows = self.ids.iter().map(row).collect::<Result<Vec<_>>>()?;
        let path = |id: &u64| self.out_dir.join(format!("{id}.png"));
        let sources: Vec<_> = rows.iter().filter_map(|&row| dataset.path(row)).map(Path::to_owned).collect();
        self.ids.iter().try_for_each(|id| output::check_is_no_input(&path(id), &sources))?;
        let _dir = output::ResultDir::create(&self.out_dir)?;
        let mut pixels = vec![0; dataset.shape().len()];
        for (id, row) in self.ids.iter().zip(rows) {
            dataset.read(row, &mut pixels)?;
            let png = encode_png(dataset.shape(), &pixels)?;
            dpq_file::write_atomic(path(id), |out| out.write_all(&png))?;
        }
        let written = Written { items: self.ids.len(), classes: dataset.class_names().to_vec() };
        let text = format!("wrote {} images to {}", written.items, self.out_dir.display());
        output::print(json, &written, &text)
    }
}
