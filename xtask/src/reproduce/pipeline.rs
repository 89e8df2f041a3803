//! The stages of one training, and those of the baseline without a network.

use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::dpq::{Built, Encoded, Evaluation, Exported, Fitted, Metrics, Searched, Trained};
use super::stage::{Runner, Stage};
use super::{FOLDER, Settings};

/// The lengths that the paper reports.
pub(crate) const BITS: [u32; 4] = [8, 16, 24, 32];

/// The cut-off of mAP that the paper uses on large sets.
pub(crate) const CUTOFF: u32 = 5000;

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
    let data = format!("datasets/{}", settings.dataset);
    let Settings { preset, device, .. } = settings;
    let train: Stage<Trained> = runner.run_resumable(
        &dir.join("train"),
        &[],
        &format!("train --data {data} --out OUT --preset {preset} --seed {seed} --device {device}"),
    )?;

    let model = train.file("model.safetensors");
    let fingerprint = &train.result.fingerprint;
    let encode = |split: &str| -> Result<Stage<Encoded>> {
        let command =
            format!("encode --model {model} --data {data} --split {split} --device {device} --out-dir OUT");
        runner.run(&dir.join(split), &[&train.key], &command)
    };
    let (gallery, query) = (encode("gallery")?, encode("query")?);
    let scores = index_and_evaluate(runner, &dir, (&model, fingerprint), &gallery, &gallery, &query)?;

    let (index, queries) = (scores.index.file("gallery.dpq"), query.file("features.npy"));
    let search = |bits: &u32| -> Result<Stage<Searched>> {
        let command = format!("search {index} --queries {queries} --bits {bits} -k {HITS} --threads 1");
        runner.run(&dir.join(format!("search-{bits}")), &[&scores.index.key, &query.key], &command)
    };
    let search = BITS.iter().map(search).collect::<Result<Vec<_>>>()?;
    Ok(SeedRun { seed, train, gallery, query, search, scores })
}

/// Does the same with centred, normalised pixels: codes by residual k-means, no network. All presets share it.
pub(crate) fn raw_pixels(runner: &Runner, settings: &Settings) -> Result<Baseline> {
    let dir = Path::new(FOLDER).join(format!("{}-pixels", settings.dataset));
    let data = format!("datasets/{}", settings.dataset);
    let export = |split: &str| -> Result<Stage<Exported>> {
        let command = format!("data export --data {data} --split {split} --out-dir OUT");
        runner.run(&dir.join(split), &[], &command)
    };
    let (train, query, gallery) = (export("train")?, export("query")?, export("gallery")?);

    let (features, levels) = (train.file("features.npy"), BITS.len());
    let fitted: Stage<Fitted> = runner.run(
        &dir.join("codebook"),
        &[&train.key],
        &format!(
            "codebook train --features {features} --levels {levels} --seed 1 --out OUT/codebook.safetensors"
        ),
    )?;

    let (codebook, features) = (fitted.file("codebook.safetensors"), gallery.file("features.npy"));
    let codes: Stage<Encoded> = runner.run(
        &dir.join("codes"),
        &[&fitted.key, &gallery.key],
        &format!("encode --codebook {codebook} --features {features} --out-dir OUT"),
    )?;
    let scores =
        index_and_evaluate(runner, &dir, (&codebook, &fitted.result.fingerprint), &codes, &gallery, &query)?;
    Ok(Baseline { train, codes, scores })
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
    let bits = BITS.map(|bits| bits.to_string()).join(",");
    let index_file = index.file("gallery.dpq");
    let codes = evaluate("evaluate", &index.key, &format!("--index {index_file} --bits {bits}"))?;
    let features = evaluate("evaluate-features", "", &format!("--gallery-features {features}"))?;

    let lacks = |metrics: &Metrics| !metrics.map_at.contains_key(&CUTOFF);
    let bits_lack = BITS.iter().any(|bits| codes.result.by_bits.get(bits).is_none_or(lacks));
    let metrics = features.result.features.filter(|metrics| !lacks(metrics) && !bits_lack);
    let metrics = metrics.with_context(|| format!("dpq eval left out a code length or mAP@{CUTOFF}"))?;
    Ok(Scores { index, codes, features: metrics, features_wall_seconds: features.wall_seconds })
}
