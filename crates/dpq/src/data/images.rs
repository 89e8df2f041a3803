//! `dpq data images`: images as files.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use dpq_data::{Dataset, encode_png};
use serde::Serialize;

use crate::output;

/// Write images of a data set as PNG files
///
/// Each has the size that a network takes and is named by its id, as `dpq search` prints it: 17.png.
#[derive(clap::Args)]
#[command(
    after_help = "Example:\n  dpq data images --data datasets/fashion-mnist --ids 17,4711 --out-dir found"
)]
pub(crate) struct Args {
    /// A data set folder
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Which images: ids with commas between them
    #[arg(long, value_name = "ID", required = true, value_delimiter = ',')]
    ids: Vec<u64>,
    /// Folder for the files
    #[arg(long, value_name = "DIR")]
    out_dir: PathBuf,
}

#[derive(Serialize)]
struct Written {
    items: usize,
    /// Names of the classes, in the order of the columns of labels.npy.
    classes: Vec<String>,
}

impl Args {
    pub(crate) fn run(self, json: bool) -> Result<()> {
        let dataset = Dataset::open(&self.data)?;
        let row = |id: &u64| {
            let row = usize::try_from(*id).ok().filter(|&row| row < dataset.len());
            row.with_context(|| {
                format!("{} has the ids 0 to {}, not {id}", dataset.name(), dataset.len().saturating_sub(1))
            })
        };
        // Of all ids before the first file is written.
        let rows = self.ids.iter().map(row).collect::<Result<Vec<_>>>()?;
        let path = |id: &u64| self.out_dir.join(format!("{id}.png"));
        let sources: Vec<_> = rows.iter().filter_map(|&row| dataset.path(row)).map(Path::to_owned).collect();
        self.ids.iter().try_for_each(|id| output::check_is_no_input(&path(id), &sources))?;
        let _dir = output::ResultDir::create(&self.out_dir)?;
        let mut pixels = vec![0; dataset.shape().len()];
        for (id, row) in self.ids.iter().zip(rows) {
            dataset.read(row, &mut pixels)?;
            let png = encode_png(dataset.shape(), &pixels);
            dpq_file::write_atomic(&path(id), |out| out.write_all(&png))?;
        }
        let written = Written { items: self.ids.len(), classes: dataset.class_names().to_vec() };
        let text = format!("wrote {} images to {}", written.items, self.out_dir.display());
        output::print(json, &written, &text)
    }
}
