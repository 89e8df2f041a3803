//! `--system mopq`: codes learnt from pairs of embeddings, beside codes of the least error.

use std::cell::Cell;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use dpq_report::Metrics;
use dpq_report::results::{ByBits, Machine};
use dpq_report::study::{Row, Section, Study};
use serde::Deserialize;
use serde_json::Value;

use super::hash::Hash;
use super::stage::{Runner, Stage};
use super::{FOLDER, lock};
use crate::process;

const NAME: &str = "mopq";

/// The files of a set: embeddings, the pairs to learn from, and the queries and pairs of the test.
const FILES: [&str; 5] = ["keys", "queries", "pairs", "test-queries", "test-pairs"];

/// Trainings by their name in the report, with what they change in the preset.
const VARIANTS: [(&str, &[&str]); 4] = [
    ("MoPQ, nested", &[]),
    ("maps alone, codes of the least error", &["schedule=\"two-step\""]),
    ("batches of 125 pairs instead of 500", &["batch_size=125"]),
    ("batches of 2000 pairs instead of 500", &["batch_size=2000"]),
];

/// Trainings of a row.
const SEEDS: u16 = 3;

/// The columns of the report.
const COLUMNS: [&str; 5] = ["R@1", "R@10", "R@100", "MRR", "error"];

#[derive(Deserialize)]
struct Encoded {
    relative_distortion: Vec<f64>,
}

#[derive(Deserialize)]
struct Evaluation {
    queries: usize,
    gallery: usize,
    by_bits: ByBits<Metrics>,
    features: Metrics,
}

/// The stages on one set.
struct Mopq {
    runner: Runner,
    data: PathBuf,
    lengths: &'static [usize],
    /// Changes of the preset for a small set.
    changes: &'static [&'static str],
    /// The numbers of test queries and of keys, once they were ranked.
    sizes: Cell<[usize; 2]>,
}

/// Figures of one code length, or of the vectors: R@1, R@10, R@100, MRR, squared error.
type Figures = Vec<[f64; 5]>;

/// Runs the stages on the set in the folder `data`, or on one that is made, and writes the report,
/// with `write_docs` to `docs` as well.
pub(super) fn run(data: Option<&Path>, quick: bool, device: &str, write_docs: bool) -> Result<()> {
    let folder = Path::new(FOLDER).join(if quick { "mopq-quick" } else { NAME });
    let set = folder.join("set");
    let data = match data {
        _ if quick => &set,
        Some(data) => data,
        None => bail!("there are no pairs, give --pairs DIR, or --quick for a set that is made"),
    };
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let _lock = lock()?;
    if quick {
        make(&set)?;
    }
    for name in FILES {
        let path = data.join(name).with_extension("npy");
        ensure!(
            path.exists(),
            "there is no {}; docs/family.md says which files a set of pairs has",
            path.display()
        );
    }
    let runner = Runner::new(process::build_dpq(device)?, data)?;
    let mopq = Mopq {
        runner,
        data: data.to_owned(),
        lengths: if quick { &[1, 2, 3, 4] } else { &[4, 8, 16, 32] },
        changes: if quick {
            &["quantizer.levels=4", "quantizer.codewords=64", "batch_size=100", "network_optimizer.rate=1e-2"]
        } else {
            &["quantizer.levels=32"]
        },
        sizes: Cell::default(),
    };
    let (seeds, variants) = if quick { (1, &VARIANTS[..1]) } else { (SEEDS, &VARIANTS[..]) };
    let mut sections = vec![mopq.unlearnt(&folder.join("unlearnt"))?];
    for (at, (name, changes)) in variants.iter().enumerate() {
        sections.push(mopq.learnt(&folder.join(format!("variant-{at}")), name, changes, seeds)?);
    }
    if quick {
        check(&sections)?;
    }
    let mut hash = Hash::default();
    hash.add_folder(data)?;
    let (name, [queries, keys]) = (data.file_name().unwrap_or_default().to_string_lossy(), mopq.sizes.get());
    let study = Study {
        title: "MoPQ: codes from pairs of a query and a key".to_owned(),
        text: format!(
            "{queries} test queries rank all {keys} keys of the folder `{name}` (SHA-256 {}). Every training has a seed, 1 to {seeds}. One training makes all lengths of a table. Recall@k and \
             MRR are expectations over all orders of tied items. Error is mean ‖k − k̂‖² over mean ‖k‖², of the keys \
             that the table encodes. Numbers after ± are standard deviations over the seeds.",
            hash.finish()
        ),
        sections,
        command: format!(
            "cargo xtask reproduce-paper --system mopq {}",
            match (quick, write_docs) {
                (true, _) => "--quick",
                (false, true) => "--pairs DIR --write-docs",
                (false, false) => "--pairs DIR",
            }
        ),
        commit: process::commit(&["Cargo.toml", "Cargo.lock", "crates", "xtask"]),
        machine: Machine::this(),
    };
    let files = study.write(folder.join("report"))?;
    files.iter().for_each(|file| println!("{}", file.display()));
    if write_docs {
        study.write(Path::new("docs/results").join(NAME))?;
        dpq_report::docs::render("docs")?;
    }
    Ok(())
}

/// Refuses figures of the made set that do not show what they should: more bytes find more, and
/// maps that learnt find far more than the embeddings as they are.
fn check(sections: &[Section]) -> Result<()> {
    let recalls = sections.iter().map(|section| {
        let recalls: Vec<f64> = section.rows.iter().map(|row| row.cells[1][0]).collect();
        ensure!(recalls.is_sorted(), "{}: R@10 by length is {recalls:?}", section.heading);
        recalls.last().copied().context("a table has no rows")
    });
    let recalls = recalls.collect::<Result<Vec<f64>>>()?;
    ensure!(recalls[1] > 1.5 * recalls[0], "R@10 is {} unlearnt and {} learnt", recalls[0], recalls[1]);
    Ok(())
}

impl Mopq {
    fn file(&self, name: &str) -> String {
        self.data.join(name).with_extension("npy").to_string_lossy().into_owned()
    }

    /// Codes of the embeddings as they are, by refined residual k-means.
    fn unlearnt(&self, dir: &Path) -> Result<Section> {
        let keys = self.file("keys");
        let levels = self.lengths.iter().max().context("no lengths")?;
        let codewords = self.changes.iter().find_map(|line| line.strip_prefix("quantizer.codewords="));
        let codewords = codewords.map(|n| format!(" --codewords {n}")).unwrap_or_default();
        let fit =
            format!("codebook train --features {keys} --levels {levels}{codewords} --beam 5 --refine 10");
        let command = format!("{fit} --out OUT/codebook.safetensors");
        let fitted: Stage<Value> = self.runner.run(&dir.join("codebook"), &[], &command)?;
        let codebook = fitted.file("codebook.safetensors");
        let command = format!("encode --codebook {codebook} --features {keys} --beam 5 --out-dir OUT");
        let codes = self.runner.run(&dir.join("keys"), &[&fitted.key], &command)?;
        let figures = self.evaluate(dir, &codebook, &codes, [&keys, &self.file("test-queries")], &[])?;
        let text = "The keys as they are, by `dpq codebook train --beam 5 --refine 10`.".to_owned();
        Ok(self.section("Embeddings as they are, codes of the least error", text, &[figures]))
    }

    /// Trainings with seeds 1 to `seeds`.
    fn learnt(&self, dir: &Path, name: &str, changes: &[&str], seeds: u16) -> Result<Section> {
        let changes: String =
            self.changes.iter().chain(changes).map(|line| format!(" --set {line}")).collect();
        let mut trainings = Vec::new();
        let mut seconds = Vec::new();
        for seed in 1..=seeds {
            let dir = dir.join(format!("seed-{seed}"));
            let command = format!(
                "train --queries {} --keys {} --pairs {} --out OUT --preset mopq{changes} --seed {seed} --resume",
                self.file("queries"),
                self.file("keys"),
                self.file("pairs")
            );
            let trained: Stage<Value> = self.runner.run(&dir.join("train"), &[], &command)?;
            let model = trained.file("model.safetensors");
            let command = format!("encode --model {model} --features {} --out-dir OUT", self.file("keys"));
            let codes = self.runner.run(&dir.join("codes"), &[&trained.key], &command)?;
            let features = |side: &str, file: &str, option: &str| -> Result<Stage<Value>> {
                let features = self.file(file);
                let command = format!("features --model {model} --features {features}{option} --out-dir OUT");
                self.runner.run(&dir.join(side), &[&trained.key], &command)
            };
            let keys = features("keys", "keys", "")?;
            let queries = features("queries", "test-queries", " --queries")?;
            let [mapped, asked] = [&keys, &queries].map(|stage| stage.file("features.npy"));
            let upstream = [keys.key.as_str(), queries.key.as_str()];
            trainings.push(self.evaluate(&dir, &model, &codes, [&mapped, &asked], &upstream)?);
            seconds.push(trained.result["seconds"].as_f64().context("dpq prints no seconds")?);
        }
        let [mean, _] = dpq_report::mean_sd(&seconds);
        let text = format!("`dpq train --preset mopq{changes}`, {mean:.0} s per training.");
        Ok(self.section(name, text, &trainings))
    }

    /// Ranks all keys for the test queries, by codes and by the vectors. Returns the figures of
    /// each length, and of the vectors.
    fn evaluate(
        &self,
        dir: &Path,
        codebook: &str,
        codes: &Stage<Encoded>,
        [keys, queries]: [&str; 2],
        upstream: &[&str],
    ) -> Result<Figures> {
        let file = codes.file("codes.npy");
        let command = format!("index build --codes {file} --codebook {codebook} --out OUT/index.dpq");
        let index: Stage<Value> = self.runner.run(&dir.join("index"), &[&codes.key], &command)?;
        let bits: Vec<String> = self.lengths.iter().map(|bytes| (8 * bytes).to_string()).collect();
        let command = format!(
            "eval --index {} --gallery-features {keys} --queries {queries} --relevant {} --bits {}",
            index.file("index.dpq"),
            self.file("test-pairs"),
            bits.join(",")
        );
        let upstream = [&[index.key.as_str()], upstream].concat();
        let Evaluation { queries, gallery, by_bits, features } =
            self.runner.run(&dir.join("eval"), &upstream, &command)?.result;
        self.sizes.set([queries, gallery]);
        let lengths = self.lengths.iter().map(|&bytes| {
            let metrics = by_bits.get(&(8 * bytes as u32)).context("dpq ranks by another length")?;
            let error =
                codes.result.relative_distortion.get(bytes - 1).context("dpq prints no distortion")?;
            figures(metrics, *error)
        });
        lengths.chain([figures(&features, 0.0)]).collect()
    }

    fn section(&self, name: &str, text: String, trainings: &[Figures]) -> Section {
        let names = self.lengths.iter().map(ToString::to_string).chain(["unquantised".to_owned()]);
        let rows = names.enumerate().map(|(at, name)| {
            let values = |column: usize| trainings.iter().map(|figures| figures[at][column]).collect();
            Row { name, cells: (0..COLUMNS.len()).map(values).collect() }
        });
        Section {
            heading: name.to_owned(),
            text,
            first: "bytes".to_owned(),
            columns: COLUMNS.map(str::to_owned).into(),
            rows: rows.collect(),
        }
    }
}

fn figures(metrics: &Metrics, error: f64) -> Result<[f64; 5]> {
    let recall = |at: u32| metrics.recall_at.get(&at).copied().context("dpq prints no recall");
    let mrr = metrics.mrr.context("dpq prints no reciprocal rank")?;
    Ok([recall(1)?, recall(10)?, recall(100)?, mrr, error])
}

/// Writes a set whose queries have noise in half of the dimensions, which a map can learn to leave
/// out.
fn make(dir: &Path) -> Result<()> {
    const N: usize = 2000;
    const TRAIN: usize = 1500;
    const DIM: usize = 16;
    fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    let mut state = 1_u64;
    let mut number = || {
        // Knuth's constant of a linear congruential generator, upper bits, in [−1, 1).
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    let keys: Vec<f32> = (0..N * DIM).map(|_| number()).collect();
    let noise = |at: usize| if at % DIM < DIM / 2 { 0.3 } else { 3.0 };
    let queries: Vec<f32> = keys.iter().enumerate().map(|(at, x)| x + number() * noise(at)).collect();
    let unit = |values: &[f32]| -> Vec<u8> {
        let norm = |row: &[f32]| row.iter().map(|x| x * x).sum::<f32>().sqrt();
        let rows = values.chunks_exact(DIM).flat_map(|row| row.iter().map(move |x| x / norm(row)));
        rows.flat_map(f32::to_le_bytes).collect()
    };
    let pairs = |pairs: &mut dyn Iterator<Item = [usize; 2]>| -> Vec<u8> {
        pairs.flatten().flat_map(|row| (row as i64).to_le_bytes()).collect()
    };
    for (name, dtype, shape, bytes) in [
        ("keys", "<f4", [N, DIM], unit(&keys)),
        ("queries", "<f4", [N, DIM], unit(&queries)),
        ("pairs", "<i8", [TRAIN, 2], pairs(&mut (0..TRAIN).map(|row| [row; 2]))),
        ("test-queries", "<f4", [N - TRAIN, DIM], unit(&queries[TRAIN * DIM..])),
        ("test-pairs", "<i8", [N - TRAIN, 2], pairs(&mut (TRAIN..N).map(|row| [row - TRAIN, row]))),
    ] {
        let [rows, columns] = shape;
        let header =
            format!("{{'descr': '{dtype}', 'fortran_order': False, 'shape': ({rows}, {columns}), }}");
        // The length of the header in bytes is that which the ten bytes before it announce.
        let header = format!("{header:<117}\n");
        let file = [b"\x93NUMPY\x01\0v\0", header.as_bytes(), &bytes].concat();
        fs::write(dir.join(name).with_extension("npy"), file)?;
    }
    Ok(())
}
