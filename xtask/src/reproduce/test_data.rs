//! Results as of a good run, for the tests of what reads them.

use super::Settings;
use super::gather::gather;
use super::pipeline::{BITS, Baseline, Scores, SeedRun};
use super::results::Results;
use super::stage::Stage;

/// Results of trainings that differ a little.
pub(crate) fn results(seeds: u16) -> Results {
    let runs: Vec<SeedRun> = (1..=seeds).map(seed_run).collect();
    let baseline = Baseline {
        train: stage(r#"{"items": 5000, "left_out": 0, "shape": [1, 28, 28], "seconds": 0.1}"#),
        codes: stage(&encoded(64_000, "0badcafe", "null")),
        scores: scores([0.480, 0.475, 0.476, 0.475], 0.475, "0badcafe"),
    };
    let mut results = gather(&Settings::quick(), &runs, &baseline, 123.4).unwrap();
    // What the machine and the tree say differs from test to test.
    results.commit = "0123456789abcdef".to_owned();
    results.machine.cpu = "Some Processor".to_owned();
    results.machine.cores = 2;
    results.machine.system = "linux x86_64".to_owned();
    results
}

fn seed_run(seed: u16) -> SeedRun {
    let shift = f64::from(seed - 1) * 0.001;
    let fingerprint = format!("{seed:08x}");
    let searched = |bits| {
        let text = format!(
            r#"{{"threads": 1, "kernel": "scalar", "queries": 1000, "k": 10, "bits": {bits}, "ns_per_query_median": {bits}000,
                 "ns_per_query_p99": {bits}500}}"#
        );
        stage(&text)
    };
    SeedRun {
        seed,
        train: stage(&format!(
            r#"{{"model": "model.safetensors", "fingerprint": "{fingerprint}", "epochs": 8, "seconds": 40.5,
                 "images": 5000, "left_out": 0, "embeddings": "seeded", "classification_loss": "softmax",
                 "images_per_second": 1000, "config": {{"epochs": 8, "seed": {seed}}}, "peak_memory_bytes": 524288000}}"#
        )),
        gallery: stage(&encoded(64_000, &fingerprint, &format!("{}", 0.9 + shift))),
        query: stage(&encoded(1000, &fingerprint, "0.91")),
        search: BITS.map(searched).into(),
        scores: scores([0.8537, 0.858, 0.8585, 0.8587].map(|map| map + shift), 0.8588 + shift, &fingerprint),
    }
}

fn encoded(items: usize, fingerprint: &str, accuracy: &str) -> String {
    format!(
        r#"{{"items": {items}, "left_out": 0, "dim": 300, "levels": 4, "seconds": 20.25, "items_per_second": 3200,
             "accuracy": {accuracy}, "relative_distortion": [0.05, 0.01, 0.002, 0.0005],
             "usage": [{{"used": 256, "perplexity": 200.5, "distinct": 256}}, {{"used": 256, "perplexity": 210, "distinct": 9000}},
                       {{"used": 255, "perplexity": 220, "distinct": 40000}}, {{"used": 256, "perplexity": 230, "distinct": 63000}}],
             "fingerprint": "{fingerprint}", "peak_memory_bytes": 1048576000}}"#
    )
}

fn scores(maps: [f64; 4], features: f64, fingerprint: &str) -> Scores {
    let by_bits: Vec<String> =
        BITS.iter().zip(maps).map(|(bits, map)| format!(r#""{bits}": {}"#, metrics(map))).collect();
    let evaluation = format!(
        r#"{{"map_rule": {{"text": "mAP@all, denominator = relevant retrieved"}}, "queries": 1000, "gallery": 64000,
             "by_bits": {{{}}}, "seconds": {{"search": 10, "evaluate": 5}}, "peak_memory_bytes": 209715200}}"#,
        by_bits.join(",")
    );
    let index = format!(
        r#"{{"items": 64000, "distinct": 63000, "bytes": 800000, "bytes_per_item": 12.5, "seconds": 0.5,
             "fingerprint": "{fingerprint}"}}"#
    );
    Scores {
        index: stage(&index),
        codes: stage(&evaluation),
        features: serde_json::from_str(&metrics(features)).unwrap(),
        features_wall_seconds: 1.0,
    }
}

fn metrics(map: f64) -> String {
    format!(
        r#"{{"map": {map}, "map_by_id": {map}, "map_min": {}, "map_max": {}, "map_at": {{"5000": {}}},
             "precision_at": {{"100": 0.9, "1000": 0.89}}, "recall_at": {{"100": 0.014, "1000": 0.139}},
             "pr_curve": {{"recall": [0.0, 0.5, 1.0], "precision": [1.0, {map}, 0.1]}}}}"#,
        map - 0.01,
        map + 0.01,
        map + 0.03
    )
}

fn stage<T: serde::de::DeserializeOwned>(printed: &str) -> Stage<T> {
    Stage::for_test(serde_json::from_str(printed).unwrap())
}
