//! `dpq attack`: queries that differ from images by a little and find something else.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, ensure};
use dpq_codebook::CodeLength;
use dpq_data::{Dataset, Split, encode_png};
use dpq_eval::{Labels, MapRule};
use dpq_formats::{Matrix, npy};
use dpq_index::{Index, SearchOptions};
use dpq_model::{Attack, AttackLoss, Device, Model};
use dpq_report::attacks::{Attacked, Attacks, Ranked};
use dpq_report::results::Machine;
use dpq_report::{Example, ExampleHit, sheet};
use rayon::prelude::*;

use crate::encode::Outputs;
use crate::eval::{self, Protocol};
use crate::inputs::{Items, Source};
use crate::{gallery, images, output, train};

/// Change queries by a little so that a model's searches find something else
///
/// Follows the gradient of a loss to the pixels of each query; the gallery stays as it is. Writes
/// the changed images (PNG) with features.npy, ids.npy and labels.npy, and a report: mAP at each
/// length of the queries as they are, with random noise of the same size, and attacked, and a
/// sheet of pictures. docs/robustness.md says what to do about it.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  dpq attack --model runs/a/model.safetensors --data datasets/fashion-mnist --out runs/a/attack\n  \
    dpq attack --model runs/a/model.safetensors --data datasets/fashion-mnist --target-level 1 --transfer runs/b/model.safetensors \
    --out runs/a/first-level"
)]
pub(crate) struct Args {
    /// A trained model of images
    #[arg(long, value_name = "SAFETENSORS")]
    model: PathBuf,
    /// The data set folder, whose images have classes
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Split that the queries are of: train, query or gallery
    #[arg(long, default_value = "query", value_parser = |s: &str| s.parse::<Split>())]
    split: Split,
    /// The quantity that grows: `aod` the distance between the distributions of codewords before
    /// and after, `apd` the improbability of the codewords, `basic` the distance of features
    #[arg(long, default_value = "aod", value_parser = |s: &str| s.parse::<AttackLoss>())]
    loss: AttackLoss,
    /// Maximum change of a pixel, as a share of white
    #[arg(long, default_value = "8/255", value_parser = epsilon)]
    epsilon: u8,
    /// Number of steps along the signs of the gradient, from a random start
    #[arg(long, default_value_t = 5, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    steps: u16,
    /// Attack the choice of one level alone: 1 is the first byte of a code [default: all]
    #[arg(long, value_name = "LEVEL", value_parser = clap::value_parser!(u16).range(1..))]
    target_level: Option<u16>,
    /// Also attack by the gradients of another model, as one who does not have yours would
    #[arg(long, value_name = "SAFETENSORS")]
    transfer: Option<PathBuf>,
    /// The gallery, coded by the model, with rows of the data set as ids [default: encode the
    /// split gallery]
    #[arg(long, value_name = "DPQ")]
    index: Option<PathBuf>,
    /// Maximum number of queries, taken at equal distances in the split [default: all]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    queries: Option<u32>,
    /// Device of the networks: cpu, or cuda:N in a program built with --features cuda
    #[arg(long, value_name = "DEVICE", default_value = "cpu")]
    device: Device,
    /// Folder for the results
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

/// Reads a share such as `8/255` or `0.03`, and returns the largest whole byte within it.
fn epsilon(text: &str) -> Result<u8> {
    let number = |text: &str| text.trim().parse::<f64>().ok();
    let share = match text.split_once('/') {
        Some((a, b)) => number(a).zip(number(b)).map(|(a, b)| a / b),
        None => number(text),
    };
    // Room for the rounding of 8/255.
    share
        .filter(|share| (0.0..=1.0).contains(share))
        .map(|share| (share, (255.0 * share + 1e-9) as u8))
        .filter(|&(share, bytes)| bytes > 0 || share == 0.0)
        .map(|(_, bytes)| bytes)
        .ok_or_else(|| anyhow!("expected 0, or a share from 1/255 to 1, such as 8/255 or 0.03"))
}

/// Hits of an example.
const HITS: usize = 10;

/// The maximum number of queries that are drawn: the first of each class.
const EXAMPLES: usize = 10;

/// Numbers of pictures that are no images of the data set: attacked queries and differences.
const ATTACKED: u64 = 1 << 32;
const DIFFERENCE: u64 = 2 << 32;

/// A set of changed queries: their features f32 `[Q, D]`.
struct Changed {
    name: &'static str,
    features: Vec<f32>,
}

/// A query that the sheet shows, and its pixels before and after.
struct Shown {
    /// The place among the queries.
    place: usize,
    row: u32,
    pixels: [Vec<u8>; 2],
}

impl Args {
    pub(crate) fn run(self, json: bool) -> Result<()> {
        let model = Model::open(&self.model)?.on(self.device)?;
        let shape = images::model_shape(&model)?;
        let dataset = Dataset::open(&self.data)?.resized(shape)?;
        let other = self.transfer.as_ref().map(|path| -> Result<_> {
            let other = Model::open(path)?.on(self.device)?;
            let (path, found) = (path.display(), images::model_inputs(&other));
            let expected = images::model_inputs(&model);
            ensure!(found == expected, "{path} takes {found}, the attacked model takes {expected}");
            Ok(other)
        });
        let other = other.transpose()?;
        ensure!(
            dataset.n_classes() > 0,
            "{} has no classes, which say what a query should find",
            self.data.display()
        );
        let level = self.target_level.unwrap_or(1);
        for (which, model) in [("the model", Some(&model)), ("the model of --transfer", other.as_ref())] {
            let n_levels = model.map_or(usize::MAX, |model| model.codebooks().n_levels());
            ensure!(
                usize::from(level) <= n_levels,
                "--target-level is {level}, {which} has levels 1 to {n_levels}"
            );
        }
        ensure!(
            self.loss != AttackLoss::Basic || self.target_level.is_none(),
            "--loss basic knows no codewords, leave out --target-level or take another loss"
        );
        let pictures = self.out.join("images");
        ensure!(!pictures.exists(), "{} exists, give --out another folder", pictures.display());
        let all = dataset.split(self.split);
        let n = self.queries.map_or(all.len(), |n| n as usize).min(all.len());
        let rows: Vec<u32> = (0..n).map(|i| all[i * all.len() / n]).collect();
        let source = Source::Images { dataset: Box::new(dataset), rows, has_names: false };
        train::check_split(&self.model, Some(&self.data), &source)?;
        let _dir = output::ResultDir::create(&self.out)?;

        let attack = Attack {
            loss: self.loss,
            epsilon: self.epsilon,
            steps: self.steps.into(),
            level: self.target_level.map(|level| usize::from(level) - 1),
            seed: model.config().seed,
        };
        let (index, ids) = self.gallery(&model, &source)?;
        let mut work = Work {
            model: &model,
            other: other.as_ref(),
            out: &self.out,
            rows: Vec::new(),
            changed: ["clean", "noise", "attacked", "transferred"]
                .into_iter()
                .take(if other.is_some() { 4 } else { 3 })
                .map(|name| Changed { name, features: Vec::new() })
                .collect(),
            shown: Vec::new(),
            seconds: Duration::ZERO,
        };
        work.attack(&source, &attack)?;

        let Source::Images { dataset, .. } = &source else { unreachable!("images were attacked") };
        let attacked = self.rank(&work, &attack, dataset, &index, ids)?;
        let report = Attacks {
            commit: format!("dpq {}", env!("CARGO_PKG_VERSION")),
            machine: Machine::this(),
            attacks: vec![attacked],
        };
        let pictures = self.sheet(&work, dataset, &index)?;
        let paths = report.write(&self.out, Some(pictures))?;
        let mut text = report.summary();
        paths.iter().for_each(|path| text += &format!("wrote {}\n", path.display()));
        output::print(json, &report.attacks[0], &text)
    }

    /// Opens the index, or encodes the gallery. Returns the row of each item, too.
    fn gallery(&self, model: &Model, source: &Source) -> Result<(Index, Vec<u64>)> {
        let Source::Images { dataset, .. } = source else { unreachable!("images were attacked") };
        if let Some(path) = &self.index {
            let index = gallery::map(path)?;
            images::check_model(model, index.codebooks())?;
            let ids = index.distinct_codes(index.max_length())?.ids().to_vec();
            let n = dataset.len();
            let unknown = ids.iter().find(|&&id| id >= n as u64);
            ensure!(
                unknown.is_none(),
                "{} has id {}, the data set has {n} images: build it with the ids that `dpq encode --data` writes",
                path.display(),
                unknown.unwrap_or(&0)
            );
            return Ok((index, ids));
        }
        let outputs = Outputs::new(model, source, dataset.split(Split::Gallery), false, false)?;
        ensure!(!outputs.rows.is_empty(), "none of the images of the gallery can be read");
        let ids: Vec<u64> = outputs.rows.iter().map(|&row| row.into()).collect();
        Ok((Index::builder(model.codebooks(), &outputs.codes).ids(&ids).build()?, ids))
    }

    /// Evaluates what each set of queries finds, and compares their codes with those of the images.
    fn rank(
        &self,
        work: &Work,
        attack: &Attack,
        dataset: &Dataset,
        index: &Index,
        ids: Vec<u64>,
    ) -> Result<Attacked> {
        let labels = |rows: &[u32]| Labels::from_multi_hot(&dataset.multi_hot(rows), dataset.n_classes());
        let gallery: Vec<u32> = ids.iter().map(|&id| id as u32).collect();
        // The gallery of an index may have the queries, whatever their split is.
        let exclude_self = work.rows.iter().any(|row| gallery.contains(row));
        let queries = exclude_self.then(|| work.rows.iter().map(|&row| row.into()).collect());
        let rule = MapRule { exclude_self, ..MapRule::dpq() };
        let n_gallery = ids.len();
        let relevance = [labels(&work.rows)?, labels(&gallery)?].into();
        let protocol = Protocol::new(relevance, ids, queries, eval::rules(rule, &[]))?;

        let (n_levels, columns) = (index.codebooks().n_levels(), index.codebooks().dim());
        let lengths: Vec<CodeLength> = index.codebooks().lengths().collect();
        let clean_codes = work.model.encode(&work.changed[0].features)?;
        let bar = output::progress(work.rows.len() * lengths.len() * work.changed.len(), "evaluating");
        let mut ranked = BTreeMap::new();
        for Changed { name, features } in &work.changed {
            let queries = Matrix { rows: work.rows.len(), columns, values: features.clone() };
            let codes = work.model.encode(features)?;
            let (mut map, mut changed) = (BTreeMap::new(), BTreeMap::new());
            for &length in &lengths {
                let bits = length.bits() as u32;
                let report = protocol.evaluate_codes(index, length, &queries, &bar)?.report;
                map.insert(bits, eval::metrics(report).map);
                let prefix = |codes: &[u8], at: usize| codes[at * n_levels..][..length.levels()].to_vec();
                let differs = |&at: &usize| prefix(&codes, at) != prefix(&clean_codes, at);
                let n = (0..queries.rows).filter(differs).count();
                changed.insert(bits, n as f64 / queries.rows as f64);
            }
            ranked.insert((*name).to_owned(), Ranked { map, changed });
        }
        bar.finish_and_clear();
        let body = &work.model.config().network.body;
        Ok(Attacked {
            dataset: dataset.name().to_owned(),
            network: body.to_string(),
            other: work.other.map(|other| other.config().network.body.to_string()),
            queries: work.rows.len(),
            gallery: n_gallery,
            loss: attack.loss.to_string(),
            epsilon: attack.epsilon,
            steps: attack.steps,
            level: self.target_level.map(u32::from),
            map_rule: rule.to_string(),
            ranked,
            images_per_second: work.rows.len() as f64 / work.seconds.as_secs_f64(),
        })
    }

    /// Draws queries before and after the attack, with what they find.
    fn sheet(&self, work: &Work, dataset: &Dataset, index: &Index) -> Result<String> {
        let dim = index.codebooks().dim();
        let mut pngs = BTreeMap::new();
        let mut examples = Vec::new();
        for Shown { place, row, pixels: [clean, attacked] } in &work.shown {
            let id = u64::from(*row);
            let classes = dataset.labels(*row as usize);
            for (features, id, second, note) in [
                (&work.changed[0].features, id, None, ""),
                (
                    &work.changed[2].features,
                    ATTACKED | id,
                    Some(DIFFERENCE | id),
                    "attacked; below, the difference",
                ),
            ] {
                let query = &features[place * dim..][..dim];
                let mut hits = BTreeMap::new();
                for length in index.codebooks().lengths() {
                    let found =
                        index.search_batch(query, &SearchOptions::new(HITS + 1).length(length))?.remove(0);
                    let others = found.into_iter().filter(|hit| hit.id != u64::from(*row)).take(HITS);
                    let judged = others.map(|hit| ExampleHit {
                        id: hit.id,
                        relevant: dataset.labels(hit.id as usize).iter().any(|class| classes.contains(class)),
                    });
                    hits.insert(length.bits() as u32, judged.collect());
                }
                let classes = classes.iter().map(|&class| class as usize).collect();
                examples.push(Example { id, second, note: note.to_owned(), classes, hits });
            }
            // Gray where nothing changed.
            let scale = 127.0 / f32::from(self.epsilon.max(1));
            let gray = |(a, b): (&u8, &u8)| (128.0 + scale * (f32::from(*b) - f32::from(*a))) as u8;
            let difference: Vec<u8> = clean.iter().zip(attacked).map(gray).collect();
            for (id, pixels) in [(id, clean), (ATTACKED | id, attacked), (DIFFERENCE | id, &difference)] {
                pngs.insert(id, encode_png(dataset.shape(), pixels)?);
            }
        }
        let mut pixels = vec![0; dataset.shape().len()];
        for hit in examples.iter().flat_map(|example| example.hits.values().flatten()) {
            if let Entry::Vacant(entry) = pngs.entry(hit.id) {
                dataset.read(hit.id as usize, &mut pixels)?;
                entry.insert(encode_png(dataset.shape(), &pixels)?);
            }
        }
        Ok(sheet(&examples.iter().collect::<Vec<_>>(), &pngs, dataset.class_names()))
    }
}

/// The queries so far.
struct Work<'a> {
    model: &'a Model,
    other: Option<&'a Model>,
    out: &'a Path,
    /// The rows of the queries that could be read.
    rows: Vec<u32>,
    /// The queries as they are, with noise, attacked, and attacked by the other model.
    changed: Vec<Changed>,
    shown: Vec<Shown>,
    /// The time of the attack by the model.
    seconds: Duration,
}

impl Work<'_> {
    /// Attacks all queries, batch by batch, and writes them.
    fn attack(&mut self, source: &Source, attack: &Attack) -> Result<()> {
        let Source::Images { dataset, .. } = source else { unreachable!("images are attacked") };
        let mut classes = Vec::new();
        let all = source.rows()?;
        let bar = output::progress(all.len(), "attacking");
        // Few images fit into memory at any size.
        for rows in all.chunks(images::BATCH / 4) {
            source.for_each_batch(rows, false, |rows, items| {
                let Items::Images(clean) = items else { unreachable!("images are attacked") };
                let start = Instant::now();
                let attacked = self.model.attack(&clean, rows, attack)?;
                self.seconds += start.elapsed();
                let noise = attack.noise(&clean, rows)?;
                let mut sets = vec![clean, noise, attacked];
                if let Some(other) = self.other {
                    sets.push(other.attack(&sets[0], rows, attack)?);
                }
                for (changed, pixels) in self.changed.iter_mut().zip(&sets) {
                    changed.features.extend(self.model.forward(pixels)?.features);
                }
                for (name, pixels) in ["images", "transfer/images"].iter().zip(&sets[2..]) {
                    let folder = self.out.join(name);
                    fs::create_dir_all(&folder)?;
                    let len = dataset.shape().len();
                    rows.par_iter().zip(pixels.par_chunks(len)).try_for_each(|(row, pixels)| {
                        let png = encode_png(dataset.shape(), pixels)?;
                        Ok::<_, anyhow::Error>(fs::write(folder.join(format!("{row}.png")), png)?)
                    })?;
                }
                for (at, &row) in rows.iter().enumerate() {
                    let class = dataset.labels(row as usize).first().copied();
                    if classes.len() < EXAMPLES && !classes.contains(&class) {
                        classes.push(class);
                        let len = dataset.shape().len();
                        let of = |set: &Vec<u8>| set[at * len..][..len].to_vec();
                        let pixels = [of(&sets[0]), of(&sets[2])];
                        self.shown.push(Shown { place: self.rows.len() + at, row, pixels });
                    }
                }
                self.rows.extend_from_slice(rows);
                bar.set_position(self.rows.len() as u64);
                Ok(())
            })?;
        }
        bar.finish_and_clear();
        for (folder, changed) in
            [self.out.to_owned(), self.out.join("transfer")].iter().zip(&self.changed[2..])
        {
            source.write_ids(folder, &self.rows)?;
            let dim = changed.features.len() / self.rows.len();
            npy::write(folder.join("features.npy"), &[self.rows.len(), dim], &changed.features)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_a_whole_number_of_bytes() {
        let read = |text: &str| epsilon(text).ok();
        for n in 0..=255u8 {
            assert_eq!(read(&format!("{n}/255")), Some(n));
        }
        assert_eq!(["0", "1", "0.03", "2.5/255"].map(read), [0, 255, 7, 2].map(Some));
        for text in ["", "8", "0.0039", "-1/255", "1/0", "0/0", "NaN", "8/255/1", "256/255"] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
