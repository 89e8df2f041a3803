//! `dpq data split`: draws splits and writes them as files.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use dpq_data::{Dataset, ImageShape, Protocol, Source, Split, sha256};
use serde::Serialize;

use crate::output;

/// Draw the splits of a data set and write them as files
///
/// Writes query.txt, train.txt and gallery.txt into the folder splits/ of the data set, one row
/// number per line. Prints the lines to add to dataset.toml, so that these files define the splits.
/// Numbers and seed are those of `[protocol]` by default. With `--unseen-classes` and `--out-dir`,
/// a new data set of the same images judges learning on classes that were not trained.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  dpq data split datasets/pets --n-queries 100 --n-train 500 --per-class --seed 1\n  dpq \
        data split datasets/cifar-10 --unseen-classes 3 --seed 1 --out-dir unseen-1"
)]
pub(crate) struct Args {
    /// Data set folder whose dataset.toml has no table `splits`
    dir: PathBuf,
    /// Number of queries
    #[arg(long, value_name = "N", requires = "n_train")]
    n_queries: Option<usize>,
    /// Number of training images
    #[arg(long, value_name = "N", requires = "n_queries")]
    n_train: Option<usize>,
    /// Draw these numbers from each class, not in total
    #[arg(long, requires = "n_queries")]
    per_class: bool,
    /// Number of classes without training images, drawn by the seed. Only their images are queries
    /// and gallery
    #[arg(long, value_name = "N")]
    unseen_classes: Option<usize>,
    /// Random seed [default: that of dataset.toml, or 1]
    #[arg(long)]
    seed: Option<u64>,
    /// Write no rows but a new data set folder, whose dataset.toml names these images and the
    /// protocol
    #[arg(long, value_name = "DIR")]
    out_dir: Option<PathBuf>,
}

#[derive(Serialize)]
struct Drawn {
    name: String,
    seed: u64,
    unseen_classes: usize,
    /// The number of images in the data set, and the checksum of their names if they are files.
    items: usize,
    names_sha256: Option<String>,
    files: Vec<DrawnFile>,
}

#[derive(Serialize)]
struct DrawnFile {
    split: String,
    path: PathBuf,
    rows: usize,
    sha256: String,
}

impl Args {
    pub(crate) fn run(self, json: bool) -> Result<()> {
        let source = Source::open(&self.dir)?;
        let mut protocol = match (self.n_queries, self.n_train) {
            (Some(queries), Some(train)) => {
                let seed = source.protocol.map_or(1, |protocol| protocol.seed);
                Protocol { queries, train, per_class: self.per_class, unseen_classes: 0, seed }
            }
            _ => source.protocol.with_context(|| {
                format!(
                    "the dataset.toml of {} has no [protocol], give --n-queries and --n-train",
                    source.name
                )
            })?,
        };
        protocol.seed = self.seed.unwrap_or(protocol.seed);
        protocol.unseen_classes = self.unseen_classes.unwrap_or(protocol.unseen_classes);
        let dataset = Dataset::open_drawn(&self.dir, protocol)?;
        if let Some(out) = &self.out_dir {
            return self.write_set(out, &source.name, &dataset, protocol, json);
        }

        let folder = self.dir.join("splits");
        let path = |split: &Split| folder.join(format!("{split}.txt"));
        let splits = [Split::Query, Split::Train, Split::Gallery];
        if let Some(path) = splits.iter().map(path).find(|path| path.exists()) {
            bail!("{} exists and is not overwritten, move it away first", path.display());
        }
        let _dir = output::ResultDir::create(&folder)?;
        let mut files = Vec::new();
        for split in splits {
            let rows = dataset.split(split);
            let text = lines(rows);
            dpq_file::write_atomic(path(&split), |out| out.write_all(text.as_bytes()))?;
            let sha256 = sha256(text.as_bytes());
            files.push(DrawnFile { split: split.to_string(), path: path(&split), rows: rows.len(), sha256 });
        }
        let drawn = Drawn {
            name: source.name,
            seed: protocol.seed,
            unseen_classes: protocol.unseen_classes,
            items: dataset.len(),
            names_sha256: dataset.names_sha256(&self.dir),
            files,
        };
        output::print(json, &drawn, &drawn.text())
    }
}

impl Args {
    /// Writes a data set of the same images with other splits.
    fn write_set(
        &self,
        out: &Path,
        name: &str,
        dataset: &Dataset,
        protocol: Protocol,
        json: bool,
    ) -> Result<()> {
        let Protocol { queries, train, per_class, unseen_classes, seed } = protocol;
        let source = fs::canonicalize(self.dir.join("dataset.toml"))?;
        let source = source.to_str().context("the path of the data set is not UTF-8, rename it")?;
        let path = out.join("dataset.toml");
        ensure!(!path.exists(), "{} exists and is not overwritten, move it away first", path.display());
        // Strings of JSON are strings of TOML too.
        let name = serde_json::to_string(&format!("{name}, {unseen_classes} unseen classes, seed {seed}"))?;
        let source = serde_json::to_string(source)?;
        let ImageShape { channels, height, width } = dataset.shape();
        let per = if per_class { "_per_class" } else { "" };
        let text = format!(
            "name = {name}\nshape = {{ channels = {channels}, height = {height}, width = {width} }}\n\n\
            [images]\nformat = \"set\"\nsource = {{ file = {source} }}\n\n\
            [protocol]\nqueries{per} = {queries}\ntrain{per} = {train}\nunseen_classes = {unseen_classes}\n\
            seed = {seed}\n"
        );
        let _dir = output::ResultDir::create(out)?;
        dpq_file::write_atomic(&path, |file| file.write_all(text.as_bytes()))?;
        let [train, query, gallery] =
            [Split::Train, Split::Query, Split::Gallery].map(|split| dataset.split(split).len());
        let path = path.display().to_string();
        let text =
            format!("wrote {path}: {train} training images, {query} queries, {gallery} in the gallery");
        output::print(json, &WrittenSet { path, unseen_classes, seed, train, query, gallery }, &text)
    }
}

#[derive(Serialize)]
struct WrittenSet {
    path: String,
    unseen_classes: usize,
    seed: u64,
    train: usize,
    query: usize,
    gallery: usize,
}

/// Formats rows as the file of a split, one per line.
pub(super) fn lines(rows: &[u32]) -> String {
    rows.iter().map(|row| format!("{row}\n")).collect()
}

impl Drawn {
    fn text(&self) -> String {
        let mut text = format!("[splits]\nitems = {}\n", self.items);
        text.extend(self.names_sha256.iter().map(|sum| format!("names_sha256 = \"{sum}\"\n")));
        for DrawnFile { split, path, rows, sha256 } in &self.files {
            // The gallery is all other rows, so dataset.toml does not name its file.
            let begin = if split == "gallery" && self.unseen_classes == 0 { "# " } else { "" };
            let name = path.file_name().unwrap_or_default().display();
            text += &format!(
                "{begin}{split} = {{ file = \"splits/{name}\", sha256 = \"{sha256}\" }} # {rows} rows\n"
            );
        }
        text
    }
}
