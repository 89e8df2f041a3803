//! `dpq data verify`: reads a whole data set and reports errors.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Result, ensure};
use dpq_data::{Dataset, Source, Split, sha256};
use rayon::prelude::*;
use serde::Serialize;

use super::split;
use crate::images::{for_each_batch, skipped_text};
use crate::output;

/// Read a whole data set and report errors
///
/// Compares every file with its checksum, checks classes and splits, and reads every image. Counts
/// images without a class, skipped files of image folders by extension, and images whose pixels
/// equal those of an image in another split. Equal images are an error if the data ships with its
/// dataset.toml. Prints a checksum of each split: that of the file that `dpq data split` writes.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  dpq data verify datasets/fashion-mnist")]
pub(crate) struct Args {
    /// Data set folder
    dir: PathBuf,
}

#[derive(Serialize)]
struct Verified {
    name: String,
    files: usize,
    files_without_checksum: usize,
    classes: usize,
    images: usize,
    /// Images that are relevant to no other image: rows of zeros in a multi-hot list, or a folder
    /// without sub-folders.
    without_class: usize,
    /// Files of an image folder that are not images, by extension.
    skipped: BTreeMap<String, usize>,
    train: usize,
    query: usize,
    gallery: usize,
    /// The SHA-256 of the rows of each split, one per line.
    splits_sha256: BTreeMap<String, String>,
    /// Images whose pixels equal those of another row in another split.
    equal_across_splits: usize,
    seconds: f64,
}

impl Args {
    pub(crate) fn run(self, json: bool) -> Result<()> {
        let start = Instant::now();
        let source = Source::open(&self.dir)?;
        // Opening compares files with their checksums and checks classes and splits.
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
            "{equal} images equal an image in another split, expected none in a data set that ships its files"
        );
        let splits = [Split::Train, Split::Query, Split::Gallery];
        let [train, query, gallery] = splits.map(|split| dataset.split(split).len());
        let verified = Verified {
            name: source.name,
            files: source.files.len(),
            files_without_checksum: source.files.iter().filter(|file| !file.has_checksum()).count(),
            classes: dataset.n_classes(),
            images: rows.len(),
            without_class: rows.iter().filter(|&&row| dataset.labels(row as usize).is_empty()).count(),
            skipped: dataset.skipped().clone(),
            train,
            query,
            gallery,
            splits_sha256: splits
                .map(|split| (split.to_string(), sha256(split::lines(dataset.split(split)).as_bytes())))
                .into(),
            equal_across_splits: equal,
            seconds: output::seconds(start),
        };
        output::print(json, &verified, &verified.text(skipped_text(&dataset)))
    }
}

impl Verified {
    fn text(&self, skipped: Option<String>) -> String {
        let Self { name, images, classes, without_class, files, files_without_checksum, .. } = self;
        let Self { train, query, gallery, equal_across_splits, .. } = self;
        let text = format!(
            "{name}: {images} images of {classes} classes, {without_class} without a class, all readable\n\
            {files} files, {files_without_checksum} of them without a checksum in dataset.toml\n\
            {train} training images, {query} queries, {gallery} in the gallery; {equal_across_splits} equal an image in \
            another split"
        );
        let sums = self.splits_sha256.iter().map(|(split, sum)| format!("\nrows of {split}: sha256 {sum}"));
        let skipped = skipped.map(|text| format!("\n{text}"));
        text + &skipped.unwrap_or_default() + &sums.collect::<String>()
    }
}

/// Counts images whose pixels equal those of another row in an earlier split, by the checksum of
/// each row.
fn equal_across_splits(dataset: &Dataset, sums: &HashMap<u32, String>) -> usize {
    let mut first: HashMap<&str, (Split, u32)> = HashMap::new();
    let splits = [Split::Query, Split::Train, Split::Gallery];
    let members = splits.iter().flat_map(|&split| dataset.split(split).iter().map(move |&row| (split, row)));
    members
        .filter(|&(split, row)| {
            let (other, other_row) = *first.entry(&sums[&row]).or_insert((split, row));
            // If training images are in the gallery, a row equals itself.
            other != split && other_row != row
        })
        .count()
}
