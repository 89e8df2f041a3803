//! The stages of one training, those of its variants, and those of the baseline without a network.

use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::dpq::{Built, Configuration, Encoded, Evaluation, Exported, Fitted, Metrics, Searched, Trained};
use super::hash::Hash;
use super::stage::{Runner, Stage};
use super::variants::{Change, Variant};
use super::{FOLDER, Settings};

/// The lengths that the paper reports.
pub(crate) const BITS: [u32; 4] = [8, 16, 24, 32];

/// The cut-off of mAP that the paper uses on large sets.
pub(crate) const CUTOFF: u32 = 5000;

/// Numbers of an image in the baseline, at most: 200,000 images of as many are a file of 3.3 GB.
const PIXELS: usize = 4096;

/// Hits of the searches that are timed and shown.
pub(crate) const HITS: usize = 10;

/// The stages of one training.
pub(crate) struct SeedRun {
    pub(crate) seed: u16,
    pub(crate) train: Stage<Trained>,
    pub(crate) gallery: Stage<Encoded>,
    pub(crate) query: Stage<Encoded>,
    /// By code length, in the order of [`BITS`].
    pub(crate) search: Vec<Stage<Searched>>,
    pub(crate) scores: Scores,
}

/// The stages of the baseline: residual k-means on pixels.
pub(crate) struct Baseline {
    pub(crate) train: Stage<Exported>,
    pub(crate) codes: Stage<Encoded>,
    pub(crate) scores: Scores,
}

/// The stages of one training, or of other features of one, as far as they say what a change of the preset is worth.
pub(crate) struct VariantRun {
    /// None where nothing was trained.
    pub(crate) train: Option<Stage<Trained>>,
    pub(crate) accuracy: Option<f64>,
    pub(crate) scores: Scores,
}

/// What follows when there are codes.
pub(crate) struct Scores {
    pub(crate) index: Stage<Built>,
    pub(crate) codes: Stage<Evaluation>,
    /// Of the features before quantization.
    pub(crate) features: Metrics,
    pub(crate) features_wall_seconds: f64,
}

/// Trains with one seed, encodes, indexes, searches and evaluates.
pub(crate) fn train_and_evaluate(
    runner: &Runner,
    settings: &Settings,
    folder: &Path,
    seed: u16,
) -> Result<SeedRun> {
    let dir = folder.join(format!("seed-{seed}"));
    let train = train(runner, settings, &dir, seed, &[])?;
    let (gallery, query, scores) = encode_and_evaluate(runner, settings, &dir, &train)?;

    let (index, queries) = (scores.index.file("gallery.dpq"), query.file("features.npy"));
    let search = |bits: &u32| -> Result<Stage<Searched>> {
        let command = format!("search {index} --queries {queries} --bits {bits} -k {HITS} --threads 1");
        runner.run(&dir.join(format!("search-{bits}")), &[&scores.index.key, &query.key], &command)
    };
    let search = BITS.iter().map(search).collect::<Result<Vec<_>>>()?;
    Ok(SeedRun { seed, train, gallery, query, search, scores })
}

/// Trains or encodes a variant of the training `run`, indexes and evaluates.
pub(crate) fn variant(
    runner: &Runner,
    settings: &Settings,
    folder: &Path,
    run: &SeedRun,
    variant: &Variant,
) -> Result<VariantRun> {
    let dir = folder.join(variant.slug).join(format!("seed-{}", run.seed));
    match variant.change {
        Change::Train(lines) => {
            let train = train(runner, settings, &dir, run.seed, lines)?;
            let (gallery, _, scores) = encode_and_evaluate(runner, settings, &dir, &train)?;
            Ok(VariantRun { train: Some(train), accuracy: gallery.result.accuracy, scores })
        }
        Change::Features(options) => {
            let encode = |split| -> Result<Stage<Exported>> {
                runner.run(
                    &dir.join(split),
                    &[&run.train.key],
                    &format!("features {} {options}", of_split(settings, &run.train, split)),
                )
            };
            let (train, query, gallery) = (encode("train")?, encode("query")?, encode("gallery")?);
            let (_, scores) = fit_and_evaluate(runner, &dir, [&train, &query, &gallery])?;
            Ok(VariantRun { train: None, accuracy: None, scores })
        }
    }
}

fn train(
    runner: &Runner,
    settings: &Settings,
    dir: &Path,
    seed: u16,
    changes: &[&str],
) -> Result<Stage<Trained>> {
    let changes = changes.iter().map(|line| format!(" --set {line}")).collect::<String>();
    let command = format!(
        "train --data {} --out OUT{}{changes} --seed {seed}",
        settings.dataset.display(),
        configuration(settings)
    );
    let inputs = inputs(settings)?;
    let upstream: Vec<&str> = inputs.iter().map(String::as_str).collect();
    runner.run_resumable(&dir.join("train"), &upstream, &command)
}

/// The options of all trainings that decide what is trained, and where.
fn configuration(settings: &Settings) -> String {
    let Settings { preset, changes, device, weights, embeddings, .. } = settings;
    let starts_from = weights.iter().map(|path| format!(" --weights {}", path.display()));
    let embeddings = embeddings.iter().map(|path| format!(" --embeddings {}", path.display()));
    let changes = changes.iter().map(|line| format!(" --set {line}"));
    let options: String = starts_from.chain(embeddings).chain(changes).collect();
    format!(" --preset {preset}{options} --device {device}")
}

/// The hashes of what trainings read beside the data set: pretrained weights, label embeddings.
fn inputs(settings: &Settings) -> Result<Vec<String>> {
    settings.weights.iter().chain(&settings.embeddings).map(|path| Hash::of_file(path)).collect()
}

/// Refuses a configuration that cannot be trained here, or that a report has no room for.
pub(crate) fn check_configuration(runner: &Runner, settings: &Settings, folder: &Path) -> Result<()> {
    let inputs = inputs(settings)?;
    let upstream: Vec<&str> = inputs.iter().map(String::as_str).collect();
    let command = format!("train --print-config{}", configuration(settings));
    let config: Stage<Configuration> = runner.run(&folder.join("configuration"), &upstream, &command)?;
    let levels = config.result.quantizer.levels;
    ensure!(
        levels == BITS.len(),
        "quantizer.levels is {levels}, a report is of 8, 16, 24 and 32 bits: leave it at {}",
        BITS.len()
    );
    Ok(())
}

/// The options of `dpq encode` and `dpq features` for a split and the model of a training.
fn of_split(settings: &Settings, train: &Stage<Trained>, split: &str) -> String {
    let Settings { dataset, device, .. } = settings;
    let (model, data) = (train.file("model.safetensors"), dataset.display());
    format!("--model {model} --data {data} --split {split} --device {device} --out-dir OUT")
}

/// Gallery, queries and what they give.
fn encode_and_evaluate(
    runner: &Runner,
    settings: &Settings,
    dir: &Path,
    train: &Stage<Trained>,
) -> Result<(Stage<Encoded>, Stage<Encoded>, Scores)> {
    let encode = |split: &str| -> Result<Stage<Encoded>> {
        let command = format!("encode {}", of_split(settings, train, split));
        runner.run(&dir.join(split), &[&train.key], &command)
    };
    let (gallery, query) = (encode("gallery")?, encode("query")?);
    let (model, fingerprint) = (train.file("model.safetensors"), &train.result.fingerprint);
    let scores = index_and_evaluate(runner, dir, (&model, fingerprint), &gallery, &gallery, &query)?;
    Ok((gallery, query, scores))
}

/// Does the same with centred, normalised pixels: codes by residual k-means, no network. All presets share it.
pub(crate) fn raw_pixels(runner: &Runner, settings: &Settings) -> Result<Baseline> {
    let dir = Path::new(FOLDER).join(format!("{}-pixels", settings.dataset_name()));
    let data = settings.dataset.display();
    let export = |split: &str| -> Result<Stage<Exported>> {
        let command = format!("data export --data {data} --split {split} --at-most {PIXELS} --out-dir OUT");
        runner.run(&dir.join(split), &[], &command)
    };
    let (train, query, gallery) = (export("train")?, export("query")?, export("gallery")?);

    let (codes, scores) = fit_and_evaluate(runner, &dir, [&train, &query, &gallery])?;
    Ok(Baseline { train, codes, scores })
}

/// Codebooks by residual k-means on the features of the first of `splits`: training images, queries, gallery.
fn fit_and_evaluate(
    runner: &Runner,
    dir: &Path,
    [train, query, gallery]: [&Stage<Exported>; 3],
) -> Result<(Stage<Encoded>, Scores)> {
    let (features, levels) = (train.file("features.npy"), BITS.len());
    let fitted: Stage<Fitted> = runner.run(
        &dir.join("codebook"),
        &[&train.key],
        &format!("codebook train --features {features} --levels {levels} --out OUT/codebook.safetensors"),
    )?;

    let (codebook, features) = (fitted.file("codebook.safetensors"), gallery.file("features.npy"));
    let codes: Stage<Encoded> = runner.run(
        &dir.join("codes"),
        &[&fitted.key, &gallery.key],
        &format!("encode --codebook {codebook} --features {features} --out-dir OUT"),
    )?;
    let scores =
        index_and_evaluate(runner, dir, (&codebook, &fitted.result.fingerprint), &codes, gallery, query)?;
    Ok((codes, scores))
}

/// Builds the index of `codes` and evaluates it, and evaluates the features of `gallery` that the codes were made from.
fn index_and_evaluate<G, Q>(
    runner: &Runner,
    dir: &Path,
    (codebook, fingerprint): (&str, &str),
    codes: &Stage<Encoded>,
    gallery: &Stage<G>,
    query: &Stage<Q>,
) -> Result<Scores> {
    let (ids, features) = (gallery.file("ids.npy"), gallery.file("features.npy"));
    let codes_file = codes.file("codes.npy");
    let index: Stage<Built> = runner.run(
        &dir.join("index"),
        &[&codes.key, &gallery.key],
        &format!("index build --codes {codes_file} --codebook {codebook} --ids {ids} --out OUT/gallery.dpq"),
    )?;

    for (what, found) in [("codes", &codes.result.fingerprint), ("index", &index.result.fingerprint)] {
        ensure!(
            found == fingerprint,
            "{codebook} has codebooks {fingerprint}, but its {what} carry {found}: this is a defect of dpq"
        );
    }

    let judged = format!(
        "--queries {} --query-labels {} --gallery-labels {} --gallery-ids {ids} --at {CUTOFF}",
        query.file("features.npy"),
        query.file("labels.npy"),
        gallery.file("labels.npy")
    );
    let evaluate = |name: &str, upstream: &str, ranked: &str| -> Result<Stage<Evaluation>> {
        runner.run(&dir.join(name), &[upstream, &gallery.key, &query.key], &format!("eval {ranked} {judged}"))
    };
    let lengths = &BITS[..codes.result.relative_distortion.len().min(BITS.len())];
    let bits = lengths.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
    let index_file = index.file("gallery.dpq");
    let evaluated = evaluate("evaluate", &index.key, &format!("--index {index_file} --bits {bits}"))?;
    let features = evaluate("evaluate-features", "", &format!("--gallery-features {features}"))?;

    let lacks = |metrics: &Metrics| !metrics.map_at.contains_key(&CUTOFF);
    let bits_lack = lengths.iter().any(|bits| evaluated.result.by_bits.get(bits).is_none_or(lacks));
    let metrics = features.result.features.filter(|metrics| !lacks(metrics) && !bits_lack);
    let metrics = metrics.with_context(|| format!("dpq eval left out a code length or mAP@{CUTOFF}"))?;
    Ok(Scores { index, codes: evaluated, features: metrics, features_wall_seconds: features.wall_seconds })
}
