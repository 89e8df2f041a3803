//! Training on pairs of queries and keys.

use std::fs;
use std::path::Path;

use dpq_file::Container;
use dpq_model::config::{MopqConfig, Objective, QuantizerConfig, Schedule};
use dpq_model::{EpochReport, Error, Inputs, Model, TrainConfig, TrainOptions, TrainSet, train};
use tempfile::TempDir;

const DIM: usize = 8;
const N: usize = 120;
/// Keys, of which the last have no query.
const KEYS: usize = 140;

/// Numbers in [−1, 1) without order (splitmix64).
fn number(row: usize, i: usize, salt: usize) -> f32 {
    let place = ((row * 64 + i) * 4 + salt + 1) as u64;
    let mut z = place.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((z ^ (z >> 31)) >> 40) as f32 / (1u32 << 23) as f32 - 1.0
}

fn key(row: usize, out: &mut [f32]) {
    out.iter_mut().enumerate().for_each(|(i, x)| *x = number(row, i, 0));
}

/// A query is its key with noise, in other places: dimension i of a query is dimension i + 1 of its
/// key, so that only a map can tell.
fn query(row: usize, out: &mut [f32]) {
    let mut of_key = [0.0; DIM];
    key(row, &mut of_key);
    for (i, x) in out.iter_mut().enumerate() {
        *x = of_key[(i + 1) % DIM] + 0.2 * number(row, i, 1);
    }
}

fn config() -> TrainConfig {
    let mopq = TrainConfig::mopq();
    let mut config = TrainConfig {
        epochs: 12,
        batch_size: 30,
        schedule: Schedule::Joint { features_first: 0.5 },
        quantizer: QuantizerConfig { levels: 3, codewords: 16, ..mopq.quantizer },
        ..mopq
    };
    config.network.dim = DIM;
    config.network_optimizer.rate = 5e-2;
    config
}

fn pairs() -> Vec<[u32; 2]> {
    (0..N as u32).map(|row| [row; 2]).collect()
}

fn run(
    config: &TrainConfig,
    pairs: &[[u32; 2]],
    out: &Path,
    resume: bool,
    on_epoch: &mut dyn FnMut(&EpochReport) -> bool,
) -> Result<Model, Error> {
    let data = TrainSet {
        n_items: pairs.len(),
        labels: &[],
        n_classes: 0,
        multi_label: false,
        embeddings: None,
        inputs: Inputs::Pairs {
            dim: DIM,
            pairs,
            n_rows: [N, KEYS],
            read: [
                &|row, _, out| {
                    query(row, out);
                    Ok(())
                },
                &|row, _, out| {
                    key(row, out);
                    Ok(())
                },
            ],
        },
        weights: None,
    };
    let mut on_epoch = |report: &EpochReport, _: &dpq_model::Snapshot<'_>| match on_epoch(report) {
        true => Ok(()),
        false => Err("enough".into()),
    };
    train(config, &data, out, TrainOptions { resume, on_epoch: Some(&mut on_epoch), ..Default::default() })
}

/// The share of queries whose own key scores highest among all keys; of tied keys any may be first.
fn recall(queries: &[f32], keys: &[f32]) -> f64 {
    let score = |q: &[f32], k: &[f32]| q.iter().zip(k).map(|(a, b)| a * b).sum::<f32>();
    let of_query = |(row, q): (usize, &[f32])| {
        let own = score(q, &keys[row * DIM..][..DIM]);
        let scores = keys.chunks(DIM).map(|k| score(q, k));
        let best = scores.clone().fold(f32::NEG_INFINITY, f32::max);
        if own < best { 0.0 } else { 1.0 / scores.filter(|&x| x == best).count() as f64 }
    };
    queries.chunks(DIM).enumerate().map(of_query).sum::<f64>() / N as f64
}

fn inputs() -> [Vec<f32>; 2] {
    let (mut queries, mut keys) = (vec![0.0; N * DIM], vec![0.0; KEYS * DIM]);
    queries.chunks_mut(DIM).enumerate().for_each(|(row, out)| query(row, out));
    keys.chunks_mut(DIM).enumerate().for_each(|(row, out)| key(row, out));
    [queries, keys]
}

#[test]
fn maps_and_codes_learn_to_match() {
    let dir = TempDir::new().unwrap();
    let mut losses = Vec::new();
    let mut record = |report: &EpochReport| {
        losses.push(report.losses.clone());
        true
    };
    let model = run(&config(), &pairs(), dir.path(), false, &mut record).unwrap();
    let names: Vec<_> = losses[11].keys().cloned().collect();
    assert_eq!(names, ["codes", "keys", "reconstruction"]);
    assert!(losses[5].keys().eq(["keys"]) && losses[5]["keys"] < 0.1 * losses[0]["keys"], "{losses:?}");
    assert!(losses[11]["codes"] < losses[6]["codes"], "{losses:?}");

    let [queries, keys] = inputs();
    let (mapped_queries, mapped_keys) =
        (model.forward_queries(&queries).unwrap(), model.forward_features(&keys).unwrap());
    assert_eq!((mapped_keys.logits.len(), model.n_classes()), (0, 0));
    let [before, after] = [recall(&queries, &keys), recall(&mapped_queries, &mapped_keys.features)];
    assert!(before < 0.05 && after > 0.4, "{before} {after}");
    let codes = model.encode(&mapped_keys.features).unwrap();
    let by_length = model
        .codebooks()
        .lengths()
        .map(|length| recall(&mapped_queries, &model.codebooks().decode(&codes, length).unwrap()));
    let by_length: Vec<f64> = by_length.collect();
    assert!(by_length[2] > 0.3 && by_length.is_sorted(), "{by_length:?}");

    let path = dir.path().join("model.safetensors");
    let names: Vec<String> = Container::open(&path).unwrap().names().map(str::to_owned).collect();
    assert_eq!(names, ["codebook", "embed.weight", "queries.weight"]);
    let again = Model::open(&path).unwrap();
    assert_eq!(again.forward_queries(&queries).unwrap(), mapped_queries);
    assert_eq!(again.encode(&mapped_keys.features).unwrap(), codes);
    // A query does not depend on the others.
    assert_eq!(again.forward_queries(&queries[..DIM]).unwrap(), mapped_queries[..DIM]);
}

#[test]
fn a_resumed_run_ends_with_the_bytes_of_an_unbroken_one() {
    let bytes = |dir: &TempDir| fs::read(dir.path().join("model.safetensors")).unwrap();
    let [whole, broken] = [(); 2].map(|()| TempDir::new().unwrap());
    run(&config(), &pairs(), whole.path(), false, &mut |_| true).unwrap();
    for last in [3, 9] {
        let mut until = |report: &EpochReport| report.epoch < last;
        run(&config(), &pairs(), broken.path(), last > 3, &mut until).unwrap_err();
    }
    let mut other = pairs();
    other.swap(0, 1);
    let error = run(&config(), &other, broken.path(), true, &mut |_| true).unwrap_err().to_string();
    assert!(error.contains("another configuration or data set"), "{error}");
    run(&config(), &pairs(), broken.path(), true, &mut |_| true).unwrap();
    assert!(bytes(&whole) == bytes(&broken));
}

#[test]
fn workers_share_their_negatives() {
    let losses = |workers: usize| {
        let dir = TempDir::new().unwrap();
        let mut losses = Vec::new();
        let mut record = |report: &EpochReport| {
            losses.extend(report.losses.values().copied());
            true
        };
        let objective = Objective::Mopq(MopqConfig { workers, ..mopq() });
        let config = TrainConfig { objective, epochs: 2, ..config() };
        run(&config, &pairs(), dir.path(), false, &mut record).unwrap();
        losses
    };
    let (one, four) = (losses(1), losses(4));
    assert_eq!(one.len(), four.len());
    // Rounding differs.
    assert!(one.iter().zip(&four).all(|(a, b)| (a - b).abs() < 1e-3 * a), "{one:?} {four:?}");
}

fn mopq() -> MopqConfig {
    match TrainConfig::mopq().objective {
        Objective::Mopq(mopq) => mopq,
        Objective::Dpq | Objective::Mecoq(_) => unreachable!("the preset is for pairs"),
    }
}

#[test]
fn what_cannot_be_learnt_from_is_named() {
    let dir = TempDir::new().unwrap();
    let error = |config: &TrainConfig, pairs: &[[u32; 2]]| {
        run(config, pairs, dir.path(), false, &mut |_| true).unwrap_err().to_string()
    };
    let with = |mopq| TrainConfig { objective: Objective::Mopq(mopq), ..config() };
    let message = error(&config(), &[[0, 0], [1, 140]]);
    assert_eq!(message, "pairs: pair 1 names key 140, expected a row from 0 below 140");
    let message = error(&config(), &[[0, 0], [120, 1]]);
    assert_eq!(message, "pairs: pair 1 names query 120, expected a row from 0 below 120");
    assert!(error(&config(), &[[0, 0]]).starts_with("pairs: found 1 pairs, expected at least 2"));
    assert!(error(&with(MopqConfig { workers: 31, ..mopq() }), &pairs()).contains("at most 30, the pairs"));
    for temperature in [0.0, f64::NAN] {
        let message = error(&with(MopqConfig { temperature, ..mopq() }), &pairs());
        assert_eq!(message, "objective.mopq.temperature: expected a finite number above 0");
    }
    let schedule = Schedule::Alternating { features_first: 0.5 };
    let message = error(&TrainConfig { schedule, ..config() }, &pairs());
    assert_eq!(message, "schedule: expected `joint` or `two-step` for the objectives `mopq` and `mecoq`");
    let mut wider = config();
    wider.network.dim = 9;
    assert!(error(&wider, &pairs()).contains("network.dim: found 9, expected 8, the dimension of"));
    let of_labels = TrainConfig { objective: Objective::Dpq, ..config() };
    let message = error(&of_labels, &pairs());
    assert!(message.starts_with("network.feature: expected `linear` for"), "{message}");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "nothing is written");
}

/// Two queries match one key, and one query two keys: neither is a negative of the other.
#[test]
fn a_key_may_match_several_queries() {
    let dir = TempDir::new().unwrap();
    let mut many = pairs();
    many.extend([[0, 1], [1, 0]]);
    let config = TrainConfig { batch_size: 200, epochs: 2, ..config() };
    let mut losses = Vec::new();
    let mut record = |report: &EpochReport| {
        losses.push(report.losses["keys"]);
        true
    };
    run(&config, &many, dir.path(), false, &mut record).unwrap();
    assert!(losses.iter().all(|loss| loss.is_finite()));
}
