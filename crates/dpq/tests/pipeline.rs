//! From images in a folder to hits and a report, through the command as a user runs it.

#![allow(clippy::unwrap_used, reason = "a test that fails may panic")]

mod common;
#[path = "common/gallery.rs"]
mod gallery;

use std::fs;
use std::process::Command;

use dpq_formats::NpzReader;
use serde_json::Value;
use tempfile::TempDir;

use common::{dpq, error, images, json};
use gallery::{EVAL, gallery};

#[test]
fn images_become_hits_and_a_report() {
    let dir = TempDir::new().unwrap();
    let dir = dir.path();
    gallery(dir);

    let info = json(dir, "index info g.dpq");
    assert_eq!((&info["items"], &info["levels"], &info["metric"]), (&30.into(), &3.into(), &"ip".into()));
    assert_eq!(json(dir, "index verify g.dpq")["items"], 30);

    let found = json(dir, "search g.dpq --queries query/features.npy --bits 16 -k 4");
    assert_eq!((&found["queries"], &found["bits"], &found["threads"]), (&6.into(), &16.into(), &1.into()));
    // Classes are sorted by name (end, middle, top), so an id tells its class.
    for (query, hits) in found["hits"].as_array().unwrap().iter().enumerate() {
        let hits = hits.as_array().unwrap();
        assert_eq!(hits.len(), 4);
        for hit in hits {
            assert_eq!(hit["id"].as_u64().unwrap() / 20, query as u64 / 2, "query {query}: {hit}");
        }
    }

    let report = json(dir, &format!("{EVAL} --out report.json"));
    assert_eq!(report["by_bits"]["8"]["map"], 1.0);
    assert_eq!(report["by_bits"]["24"]["map_at"]["5"], 1.0);
    assert!(report["map_rule"]["text"].as_str().unwrap().contains("ties = expectation"));
    let written: Value = serde_json::from_slice(&fs::read(dir.join("report.json")).unwrap()).unwrap();
    assert_eq!(written["by_bits"], report["by_bits"]);

    let features = "eval --gallery-features gallery/features.npy --queries query/features.npy \
        --query-labels query/labels.npy --gallery-labels gallery/labels.npy --gallery-ids gallery/ids.npy";
    assert_eq!(json(dir, features)["features"]["map"], 1.0);
}

#[test]
fn codes_are_decoded_to_what_search_scores() {
    let dir = TempDir::new().unwrap();
    let dir = dir.path();
    gallery(dir);
    let decode = |words: &str| {
        json(dir, &format!("decode --codes gallery/codes.npy --codebook cb.safetensors --out x.npy {words}"))
    };
    assert_eq!(decode("")["bits"], 24);
    let decoded = decode("--bits 16");
    assert_eq!((&decoded["items"], &decoded["dim"], &decoded["bits"]), (&30.into(), &81.into(), &16.into()));

    let floats = |file: &str| -> Vec<f32> {
        let bytes = fs::read(dir.join(file)).unwrap();
        bytes[128..].chunks_exact(4).map(|x| f32::from_le_bytes(x.try_into().unwrap())).collect()
    };
    let (queries, decoded) = (floats("query/features.npy"), floats("x.npy"));
    let ids = fs::read(dir.join("gallery/ids.npy")).unwrap()[128..].to_vec();
    let rows: Vec<u64> = ids.chunks_exact(8).map(|id| u64::from_le_bytes(id.try_into().unwrap())).collect();
    let found = json(dir, "search g.dpq --queries query/features.npy --bits 16 -k 30");
    for (query, hits) in queries.chunks(81).zip(found["hits"].as_array().unwrap()) {
        let hits = hits.as_array().unwrap();
        assert_eq!(hits.len(), 30);
        for hit in hits {
            let row = rows.iter().position(|id| hit["id"] == *id).unwrap();
            let score: f32 = query.iter().zip(&decoded[row * 81..]).map(|(a, b)| a * b).sum();
            assert!((f64::from(score) - hit["score"].as_f64().unwrap()).abs() < 1e-5, "{score}: {hit}");
        }
    }

    json(
        dir,
        "codebook train --features query/features.npy --levels 3 --codewords 4 --out other.safetensors",
    );
    let other = "decode --codes gallery/codes.npy --codebook other.safetensors --out y.npy";
    assert!(error(dir, other, 1).contains("give the codebook that made these codes"));
    let longer = "decode --codes gallery/codes.npy --codebook cb.safetensors --bits 32 --out y.npy";
    assert!(error(dir, longer, 1).contains("code length in bits is 32, expected at most 24"));
}

#[test]
fn refined_codebooks_and_a_beam_leave_less() {
    let dir = TempDir::new().unwrap();
    let dir = dir.path();
    gallery(dir);
    let features = "--features gallery/features.npy";
    let train = format!("codebook train {features} --levels 3 --codewords 4 --out cb.safetensors");
    let sum = |report: Value| -> f64 {
        let distortion = report["relative_distortion"].as_array().unwrap();
        distortion.iter().map(|distortion| distortion.as_f64().unwrap()).sum()
    };
    let (greedy, fitted) = (json(dir, &train), json(dir, &format!("{train} --beam 4")));
    assert_ne!(fitted["fingerprint"], greedy["fingerprint"]);
    let (greedy, fitted) = (sum(greedy), sum(fitted));
    let refined = sum(json(dir, &format!("{train} --refine 5 --beam 4")));
    assert!(refined < fitted && refined < greedy, "{refined} {fitted} {greedy}");
    let encode = format!("encode --codebook cb.safetensors {features} --out-dir codes");
    let encoded = sum(json(dir, &format!("{encode} --beam 4")));
    assert!((encoded - refined).abs() < 1e-12 * refined, "{encoded} {refined}");
    // The longest code alone: less error there, more at other lengths.
    let longest = |report: Value| report["relative_distortion"][2].as_f64().unwrap();
    let alone = "--beam 4 --length-weights 0,0,1";
    json(dir, &format!("{train} --refine 5 --beam 4"));
    let alike = longest(json(dir, &format!("{encode} --beam 4")));
    let trained = longest(json(dir, &format!("{train} --refine 5 {alone}")));
    let encoded = json(dir, &format!("{encode} {alone}"));
    assert!(
        (longest(encoded.clone()) - trained).abs() < 1e-12 * trained && trained < alike,
        "{trained} {alike}"
    );
    assert!(sum(encoded) > refined);
    let message = error(dir, &format!("{encode} --beam 4 --length-weights 1,1"), 1);
    assert!(message.contains("weights has 2 values, expected 3"), "{message}");
    assert!(error(dir, &format!("{encode} --length-weights 0,0,1"), 2).contains("--beam"));
    assert!(error(dir, &format!("{encode} --beam 0"), 1).contains("beam width is 0, expected at least 1"));
    assert!(error(dir, &format!("{train} --beam 0"), 1).contains("beam width is 0, expected at least 1"));
    let message = error(dir, &train.replace("--levels 3", "--levels 256"), 2);
    assert!(message.contains("256 is not in 1..=255"), "{message}");
    let message = error(dir, &format!("{train} --length-weights 0,0,1"), 1);
    assert!(message.contains("give --beam or --refine, or no weights"), "{message}");
}

#[test]
fn product_codes_have_one_length_in_every_command() {
    let dir = TempDir::new().unwrap();
    let dir = dir.path();
    gallery(dir);
    let train = "codebook train --features gallery/features.npy --product --codewords 4 --out pq.safetensors";
    // 9 × 9 pixels.
    let trained = json(dir, &format!("{train} --levels 9"));
    assert_eq!((&trained["form"], &trained["dim"]), (&"product".into(), &81.into()));
    let n_lengths = |report: &Value| report["relative_distortion"].as_array().unwrap().len();
    let encode = "encode --codebook pq.safetensors --features gallery/features.npy --out-dir pq";
    let encoded = json(dir, encode);
    assert_eq!((n_lengths(&trained), n_lengths(&encoded)), (1, 1));
    assert_eq!(encoded["usage"].as_array().unwrap().len(), 9);
    let text = String::from_utf8(dpq(dir, encode).stdout).unwrap();
    assert_eq!(text.lines().count(), 2, "{text}");
    assert!(text.contains("\n 72 bits: distortion 0."), "{text}");
    json(dir, "decode --codes pq/codes.npy --codebook pq.safetensors --out decoded.npy");

    for metric in ["ip", "l2"] {
        let index = format!("{metric}.dpq");
        let build = "--codes pq/codes.npy --codebook pq.safetensors --ids gallery/ids.npy";
        let built = json(dir, &format!("index build {build} --metric {metric} --out {index}"));
        assert_eq!((&built["version"], &built["form"]), (&3.into(), &"product".into()));
        assert_eq!(built["norms"].as_array().unwrap().len(), 0);
        let labels = "--query-labels query/labels.npy --gallery-labels gallery/labels.npy --gallery-ids gallery/ids.npy";
        let evaluated = json(dir, &format!("eval --index {index} --queries query/features.npy {labels}"));
        let by_bits = evaluated["by_bits"].as_object().unwrap();
        assert_eq!(by_bits.keys().collect::<Vec<_>>(), ["72"]);
        assert!(by_bits["72"]["map"].as_f64().unwrap() > 0.9, "{evaluated}");
        let tuned = json(dir, &format!("tune {index} --queries query/features.npy -k 1"));
        let measured = tuned["measured"].as_array().unwrap();
        assert!(measured.len() == 1 && measured[0]["options"] == "--bits 72", "{tuned}");
        for (words, text) in [
            (
                "--bits 8",
                "code length is 8 bits, expected 72 bits: the codes of product codebooks have one length",
            ),
            ("--shortlist 10@16", "code length is 16 bits, expected 72 bits"),
        ] {
            let message = error(dir, &format!("search {index} --queries query/features.npy {words}"), 1);
            assert!(message.contains(text), "{message}");
        }
    }
    let live = "index add live --codes pq/codes.npy --codebook pq.safetensors --ids gallery/ids.npy";
    json(dir, live);
    let hits =
        |index: &str| json(dir, &format!("search {index} --queries query/features.npy"))["hits"].clone();
    assert_eq!(hits("live"), hits("ip.dpq"));

    let message = error(dir, &format!("{train} --levels 4"), 1);
    assert!(
        message.contains("dimension is 81, expected a multiple of 4, the levels of product"),
        "{message}"
    );
    for option in ["--beam 4", "--refine 3", "--length-weights 1,1"] {
        assert!(error(dir, &format!("{train} {option}"), 2).contains("--product"));
    }
    let message = error(dir, &format!("{encode} --beam 4"), 1);
    assert!(message.contains("leave out beam search"), "{message}");
}

#[test]
fn a_network_is_trained_and_finds_an_image_by_its_file() {
    let dir = TempDir::new().unwrap();
    let dir = dir.path();
    images(dir);
    let config = String::from_utf8(dpq(dir, "train --print-config --preset quick").stdout).unwrap();
    let config = config.replace("epochs = 12", "epochs = 30").replace("codewords = 256", "codewords = 8");
    fs::write(dir.join("c.toml"), config).unwrap();
    let trained = json(dir, "train --data set --out run --config c.toml --seed 3");
    assert_eq!((&trained["epochs"], &trained["config"]["seed"]), (&30.into(), &3.into()));
    let epochs = fs::read_to_string(dir.join("run/epochs.jsonl")).unwrap();
    let epochs: Vec<Value> = epochs.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(epochs.len(), 30);
    assert!(epochs[29]["losses"]["margin"].as_f64() < epochs[0]["losses"]["margin"].as_f64());
    assert_eq!(epochs[29]["usage"].as_array().unwrap().len(), 4);

    let model = "--model run/model.safetensors";
    let split = json(dir, &format!("encode {model} --data set --split gallery --out-dir split"));
    assert_eq!((&split["items"], &split["accuracy"]), (&30.into(), &1.0.into()));
    let folder = json(dir, &format!("encode {model} --images set/images --out-dir folder"));
    assert_eq!((&folder["items"], &folder["fingerprint"]), (&60.into(), &trained["fingerprint"]));
    let names = fs::read_to_string(dir.join("folder/names.txt")).unwrap();
    assert_eq!(names.lines().next(), Some("set/images/end/00.png"));

    json(dir, "index build --codes folder/codes.npy --codebook run/model.safetensors --out f.dpq");
    let by_image = json(dir, &format!("search f.dpq {model} --image set/images/end/00.png -k 20"));
    let by_feature = json(dir, "search f.dpq --queries folder/features.npy -k 20");
    assert_eq!(by_image["hits"][0], by_feature["hits"][0], "the file is the first row");
    let hits = by_image["hits"][0].as_array().unwrap();
    assert!(hits.iter().all(|hit| hit["id"].as_u64().unwrap() < 20), "the twenty of its class: {hits:?}");
    let text = dpq(
        dir,
        &format!("search f.dpq {model} --image set/images/end/00.png -k 1 --names folder/names.txt"),
    );
    assert!(String::from_utf8(text.stdout).unwrap().contains("set/images/end/"));

    // The posterior is a feature as any other, of a split as of one file.
    let posterior = |input: &str, out: &str| {
        json(dir, &format!("features {model} {input} --posterior=0.5 --out-dir {out}"))
    };
    let gallery = posterior("--data set --split gallery", "posterior");
    assert_eq!((&gallery["items"], &gallery["dim"]), (&30.into(), &300.into()));
    assert!(!dir.join("posterior/codes.npy").exists());
    posterior("--images set/images/end", "queries");
    json(
        dir,
        "codebook train --features posterior/features.npy --levels 2 --codewords 4 --out p.safetensors",
    );
    json(dir, "encode --codebook p.safetensors --features posterior/features.npy --out-dir posterior");
    json(
        dir,
        "index build --codes posterior/codes.npy --codebook p.safetensors --ids posterior/ids.npy --out p.dpq",
    );
    let found = json(dir, "search p.dpq --queries queries/features.npy -k 5");
    let hits = found["hits"].as_array().unwrap().iter().flat_map(|hits| hits.as_array().unwrap());
    assert!(hits.map(|hit| hit["id"].as_u64().unwrap()).all(|id| id < 20), "{found}");
    posterior("--data set --split gallery", "posterior");
    assert!(!dir.join("posterior/codes.npy").exists(), "codes of other features");

    // A process of its own for each number of threads, since candle keeps threads of its own.
    for threads in ["1", "2"] {
        let train =
            format!("train --data set --out threads-{threads} --config c.toml --seed 3 --threads {threads}");
        let command = Command::new(env!("CARGO_BIN_EXE_dpq"))
            .current_dir(dir)
            .args(train.split_whitespace())
            .env("RAYON_NUM_THREADS", threads)
            .output()
            .unwrap();
        assert!(command.status.success());
        let bytes = |run: &str| fs::read(dir.join(run).join("model.safetensors")).unwrap();
        assert!(bytes("run") == bytes(&format!("threads-{threads}")), "{threads} threads");
    }

    json(dir, "train --data set --out other --config c.toml --seed 4");
    let error = error(dir, "search f.dpq --model other/model.safetensors --image set/images/end/00.png", 1);
    assert!(error.contains("give the model that made its codes"), "{error}");
}

#[test]
fn heads_are_trained_on_features_of_any_origin() {
    let dir = TempDir::new().unwrap();
    let dir = dir.path();
    images(dir);
    let config = String::from_utf8(dpq(dir, "train --print-config --preset quick").stdout).unwrap();
    let config = config.replace("epochs = 12", "epochs = 30").replace("codewords = 256", "codewords = 8");
    fs::write(dir.join("c.toml"), config.replace("images = 0", "images = 12")).unwrap();
    json(dir, "train --data set --out run --config c.toml");
    for split in ["train", "query", "gallery"] {
        let body = format!(
            "features --model run/model.safetensors --data set --split {split} --body --out-dir {split}"
        );
        let written = json(dir, &body);
        assert_eq!((&written["dim"], &written["left_out"]), (&512.into(), &0.into()));
    }
    let trained = json(
        dir,
        "train --features train/features.npy --labels train/labels.npy --out heads --config c.toml",
    );
    assert_eq!((&trained["config"]["network"]["body"], &trained["images"]), (&"features".into(), &12.into()));

    let model = "--model heads/model.safetensors";
    let encoded = json(dir, &format!("encode {model} --features gallery/features.npy --out-dir g"));
    assert_eq!((&encoded["items"], &encoded["fingerprint"]), (&30.into(), &trained["fingerprint"]));
    json(dir, &format!("encode {model} --features query/features.npy --out-dir q"));
    json(
        dir,
        "index build --codes g/codes.npy --codebook heads/model.safetensors --ids gallery/ids.npy --out g.dpq",
    );
    let report = json(
        dir,
        "eval --index g.dpq --queries q/features.npy --query-labels query/labels.npy --gallery-labels \
         gallery/labels.npy --gallery-ids gallery/ids.npy --bits 8,32",
    );
    assert!(report["by_bits"]["32"]["map"].as_f64() > Some(0.95), "{report}");

    let posterior = format!("features {model} --features gallery/features.npy --posterior=0.5 --out-dir g");
    let encoded = json(dir, &posterior);
    assert_eq!((&encoded["items"], &encoded["dim"]), (&30.into(), &300.into()));
    assert!(!dir.join("g/codes.npy").exists(), "codes of other features");

    let says = |command: &str, text: &str| {
        let error = error(dir, command, 1);
        assert!(error.contains(text), "{command}: {error}");
    };
    says(
        &format!("encode {model} --images set/images --out-dir x"),
        "takes features of 512 numbers, give --feat",
    );
    says(
        &format!("encode {model} --features g/features.npy --out-dir x"),
        "features of 300 numbers, the model takes",
    );
    let images = "encode --model run/model.safetensors --features g/features.npy --out-dir x";
    says(images, "the model takes images of 1x");
    assert!(!dir.join("x").exists(), "a folder with nothing in it");
    let before = fs::read(dir.join("gallery/features.npy")).unwrap();
    says(
        &format!("encode {model} --features gallery/features.npy --out-dir gallery"),
        "would be overwritten",
    );
    assert_eq!(fs::read(dir.join("gallery/features.npy")).unwrap(), before);
    says("train --features g/features.npy --labels query/labels.npy --out x", "30 items");
    says("train --features g/features.npy --out x", "give --labels");
}

#[test]
fn held_out_images_are_ranked_and_change_no_weight() {
    let dir = TempDir::new().unwrap();
    let dir = dir.path();
    images(dir);
    let config = String::from_utf8(dpq(dir, "train --print-config --preset paper").stdout).unwrap();
    let config = config.replace("epochs = 32", "epochs = 4").replace("codewords = 256", "codewords = 4");
    let train = |out: &str, images: &str, every: &str| {
        let config = config.replace("images = 0", images).replace("every = 1", every);
        fs::write(dir.join("c.toml"), config).unwrap();
        json(dir, &format!("train --data set --out {out} --config c.toml"));
        let lines = fs::read_to_string(dir.join(out).join("epochs.jsonl")).unwrap();
        let epochs: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let file = dpq_file::Container::open(dir.join(out).join("model.safetensors")).unwrap();
        let weights = |name| (String::from(name), file.section(name).unwrap().bytes.to_vec());
        let events = fs::read_dir(dir.join(out)).unwrap().filter(|entry| {
            entry.as_ref().unwrap().file_name().to_string_lossy().starts_with("events.out.tfevents.")
        });
        assert_eq!(events.count(), 1);
        (epochs, file.names().map(weights).collect::<Vec<_>>())
    };
    let (epochs, weights) = train("often", "images = 12", "every = 1");
    let (seldom, other_weights) = train("seldom", "images = 12", "every = 3");
    assert!(weights == other_weights);
    assert!(train("never", "images = 0", "every = 1").1 != weights, "fewer images to learn from");
    let with = |epochs: &[Value]| {
        epochs.iter().map(|epoch| epoch["validation"]["images"].as_u64()).collect::<Vec<_>>()
    };
    assert_eq!(with(&epochs), [Some(12); 4]);
    assert_eq!(with(&seldom), [None, None, Some(12), Some(12)]);

    // The same images as a gallery of their own, through the files and the index.
    let set = dpq_data::Dataset::open(dir.join("set")).unwrap();
    let [_, held_out] = dpq_data::hold_out(set.split(dpq_data::Split::Train), 12, 1).unwrap();
    for row in held_out {
        let path = set.path(row as usize).unwrap();
        let class = dir.join("held").join(path.parent().unwrap().file_name().unwrap());
        fs::create_dir_all(&class).unwrap();
        fs::copy(path, class.join(path.file_name().unwrap())).unwrap();
    }
    json(dir, "encode --model often/model.safetensors --images held --out-dir h");
    json(dir, "index build --codes h/codes.npy --codebook often/model.safetensors --out h.dpq");
    let each_other = "--queries h/features.npy --query-labels h/labels.npy --gallery-labels h/labels.npy \
        --query-ids h/ids.npy";
    let by_bits = json(dir, &format!("eval --index h.dpq {each_other}"));
    let features = json(dir, &format!("eval --gallery-features h/features.npy {each_other}"));
    let found = &epochs[3]["validation"];
    assert_eq!(found["map_rule"], by_bits["map_rule"]["text"]);
    // One scorer ranks in both, so the means are the same to the last bit.
    for bits in ["8", "16", "24", "32"] {
        assert_eq!(found["map_by_bits"][bits], by_bits["by_bits"][bits]["map"]);
    }
    assert_eq!(found["map_features"], features["features"]["map"]);
}

#[test]
fn hits_are_written_as_numpy_arrays_and_filters_hold() {
    let dir = TempDir::new().unwrap();
    let dir = dir.path();
    gallery(dir);
    json(dir, "search g.dpq --queries query/features.npy -k 50 --out hits.npz");
    let mut archive = NpzReader::open(dir.join("hits.npz")).unwrap();
    let (shape, ids) = archive.read::<u64>("ids").unwrap();
    assert_eq!(shape, [6, 30], "there are only 30 items");
    let (_, scores) = archive.read::<f32>("scores").unwrap();
    for (ids, scores) in ids.chunks(30).zip(scores.chunks(30)) {
        let order = |i: usize| scores[i] > scores[i + 1] || scores[i] == scores[i + 1] && ids[i] < ids[i + 1];
        assert!((0..29).all(order), "score descending, then id ascending");
    }

    fs::copy(dir.join("query/ids.npy"), dir.join("none.npy")).unwrap();
    let found = json(dir, "search g.dpq --queries query/features.npy --allow none.npy");
    assert!(found["hits"].as_array().unwrap().iter().all(|hits| hits.as_array().unwrap().is_empty()));
}
