//! `dpq data verify`: reads everything and says what is wrong.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Result, ensure};
use dpq_data::{Dataset, Source, Split, sha256};
use rayon::prelude::*;
use serde::Serialize;

use super::{for_each_batch, split};
use crate::output;

/// Read a whole data set and say what is wrong with it
///
/// Compares every file with its checksum, checks that labels are classes and that no row is in two splits that must not
/// share it, reads every image, and counts the images that look exactly like one in another split. A set that comes with
/// its dataset.toml must have none. Prints a checksum of each split, which is that of the file `dpq data split` writes of it.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  dpq data verify datasets/fashion-mnist")]
pub(crate) struct Args {
    /// A data set folder
    dir: PathBuf,
}

#[derive(Serialize)]
struct Verified {
    name: String,
    files: usize,
    files_without_checksum: usize,
    classes: usize,
    images: usize,
    train: usize,
    query: usize,
    gallery: usize,
    /// The SHA-256 of the rows of train, query and gallery, a line each.
    splits_sha256: BTreeMap<String, String>,
    /// Images whose pixels are those of another row in another split.
    equal_across_splits: usize,
    seconds: f64,
}

impl Args {
    pub(crate) fn run(self, json: bool) -> Result<()> {
        let start = Instant::now();
        let source = Source::open(&self.dir)?;
        // Opening compares the files with their checksums and refuses labels that are no class and splits that overlap.
        let dataset = Dataset::open(&self.dir)?;
        let len = dataset.shape().len();
        let rows: Vec<u32> = (0..dataset.len() as u32).collect();
        let bar = output::progress(rows.len(), "reading");
        let mut sums = HashMap::with_capacity(rows.len());
        for_each_batch(&dataset, &rows, false, |batch| {
            sums.par_extend(batch.rows.into_par_iter().zip(batch.pixels.par_chunks_exact(len).map(sha256)));
            bar.set_position(sums.len() as u64);
            Ok(())
        })?;
        bar.finish_and_clear();
        let unreadable = rows.len() - sums.len();
        ensure!(unreadable == 0, "{unreadable} of {} images cannot be read, get them again", rows.len());

        let equal = equal_across_splits(&dataset, &sums);
        ensure!(
            !source.shipped || equal == 0,
            "{equal} images look exactly like one in another split, expected none in a set that comes with its files"
        );
        let [train, query, gallery] =
            [Split::Train, Split::Query, Split::Gallery].map(|split| dataset.split(split).len());
        let verified = Verified {
            name: source.name,
            files: source.files.len(),
            files_without_checksum: source.files.iter().filter(|file| !file.has_checksum()).count(),
            classes: dataset.n_classes(),
            images: rows.len(),
            train,
            query,
            gallery,
            splits_sha256: [Split::Train, Split::Query, Split::Gallery]
                .map(|split| (split.to_string(), sha256(split::lines(dataset.split(split)).as_bytes())))
                .into(),
            equal_across_splits: equal,
            seconds: output::seconds(start),
        };
        output::print(json, &verified, &verified.text())
    }
}

impl Verified {
    fn text(&self) -> String {
        let text = format!(
            "{}: {} images of {} classes, all of them read\n\
            {} files, {} of them without a checksum in dataset.toml\n\
            {} training images, {} queries, {} in the gallery; {} look exactly like one in another split",
            self.name,
            self.images,
            self.classes,
            self.files,
            self.files_without_checksum,
            self.train,
            self.query,
            self.gallery,
            self.equal_across_splits
        );
        let sums = self.splits_sha256.iter().map(|(split, sum)| format!("\nrows of {split}: sha256 {sum}"));
        text + &sums.collect::<String>()
    }
}

/// Images whose pixels are those of another row in an earlier split, by the checksums of each row.
fn equal_across_splits(dataset: &Dataset, sums: &HashMap<u32, String>) -> usize {
    let mut first: HashMap<&str, (Split, u32)> = HashMap::new();
    let splits = [Split::Query, Split::Train, Split::Gallery];
    let members = splits.iter().flat_map(|&split| dataset.split(split).iter().map(move |&row| (split, row)));
    members
        .filter(|&(split, row)| {
            let (other, other_row) = *first.entry(&sums[&row]).or_insert((split, row));
            // Where training images are in the gallery, a row meets itself.
            other != split && other_row != row
        })
        .count()
}
