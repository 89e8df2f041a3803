//! Training through the command: its configuration, and that one that is killed goes on as if it
//! never was.

#![allow(clippy::unwrap_used, reason = "a test that fails may panic")]

#[path = "common/arrays.rs"]
mod arrays;
mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::Duration;

use serde_json::{Value, json as json_value};
use tempfile::TempDir;

use arrays::write_array;
use common::{dpq, error, images, json};

#[test]
fn a_configuration_is_changed_by_lines() {
    let dir = TempDir::new().unwrap();
    let print = "train --print-config --preset paper";
    let before = json(dir.path(), print);
    let changed = json(
        dir.path(),
        &format!("{print} --set quantizer.levels=2 --set schedule=\"two-step\" --set loss.soft=0.0 --seed 7"),
    );
    let mut expected = before;
    expected["quantizer"]["levels"] = 2.into();
    expected["schedule"] = "two-step".into();
    expected["loss"]["soft"] = 0.0.into();
    expected["seed"] = 7.into();
    assert_eq!(changed, expected);
    let error = error(dir.path(), &format!("{print} --set quantizer.level=2"), 1);
    assert!(error.contains("--set quantizer.level=2: unknown field `level`"), "{error}");
}

#[test]
fn a_printed_configuration_trains_nothing() {
    let dir = TempDir::new().unwrap();
    let print = "train --print-config --preset quick";
    assert_eq!(json(dir.path(), &format!("{print} --data missing --out run")), json(dir.path(), print));
    assert!(!dir.path().join("run").exists());
}

#[test]
fn another_kind_takes_the_place_of_the_one_before() {
    let dir = TempDir::new().unwrap();
    let print = "train --print-config --preset paper --set";
    for (line, pointer, expected) in [
        (
            "schedule.alternating.features_first=0.25",
            "/schedule",
            json_value!({ "alternating": { "features_first": 0.25 } }),
        ),
        (
            "schedule.joint.features_first=0.25",
            "/schedule",
            json_value!({ "joint": { "features_first": 0.25 } }),
        ),
        (
            "network_optimizer.method.sgd.momentum=0.5",
            "/network_optimizer/method",
            json_value!({ "sgd": { "momentum": 0.5 } }),
        ),
        (
            "codebook_optimizer.rate_schedule.warmup-cosine.warmup=0.5",
            "/codebook_optimizer/rate_schedule",
            json_value!({ "warmup-cosine": { "warmup": 0.5 } }),
        ),
        (
            "network_optimizer.rate_schedule={exponential={factor=0.5,every=9}}",
            "/network_optimizer/rate_schedule",
            json_value!({ "exponential": { "factor": 0.5, "every": 9 } }),
        ),
        (
            "network.body.resnet={block=\"basic\",blocks=[1,1,1,1],width=4}",
            "/network/body",
            json_value!({ "resnet": { "block": "basic", "blocks": [1, 1, 1, 1], "width": 4 } }),
        ),
        ("network.body.small.hidden=64", "/network/body/small/pools", 3.into()),
    ] {
        assert_eq!(json(dir.path(), &format!("{print} {line}")).pointer(pointer), Some(&expected), "{line}");
    }
    let frozen = json(dir.path(), "train --print-config --freeze 2 --set network.input=64");
    assert_eq!((&frozen["network"]["freeze"], &frozen["network"]["input"]), (&2.into(), &64.into()));
    let error = error(dir.path(), &format!("{print} network_optimizer.method.adam-w.beta3=0.5"), 1);
    assert!(error.contains("unknown field `beta3`"), "{error}");
}

/// Every `key = value` between backticks, and `"value"` as another value of the key before it.
#[test]
fn options_are_documented_as_they_are_written() {
    let dir = TempDir::new().unwrap();
    let page = include_str!("../../../docs/deviations.md");
    let (mut last_key, mut n_lines) = ("", 0);
    for span in page.split('`').skip(1).step_by(2) {
        let line = match span.split_once(" = ") {
            Some((key, value)) => {
                last_key = key;
                format!("{key}={value}")
            }
            None if span.starts_with('"') => format!("{last_key}={span}"),
            None => continue,
        };
        let print = format!("train --print-config --preset paper --set {line}");
        assert!(dpq(dir.path(), &print).status.success(), "{line}");
        n_lines += 1;
    }
    assert!(n_lines > 20, "{n_lines}");
}

const EPOCHS: usize = 20;

/// The lines of `epochs.jsonl`, without what depends on time and memory.
fn epochs(run: &Path) -> Vec<Value> {
    let text = fs::read_to_string(run.join("epochs.jsonl")).unwrap_or_default();
    let mut lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for line in &mut lines {
        for key in ["seconds", "images_per_second", "peak_memory_bytes"] {
            line.as_object_mut().unwrap().remove(key);
        }
    }
    lines
}

/// The steps in TensorBoard's files, in the order of the files' names. A step below 128 is one
/// byte.
fn steps(run: &Path) -> Vec<u8> {
    let mut paths: Vec<_> = fs::read_dir(run).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.file_name().unwrap().to_string_lossy().starts_with("events.out.tfevents."));
    paths.sort();
    let mut steps = Vec::new();
    for path in paths {
        let bytes = fs::read(path).unwrap();
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let len = u64::from_le_bytes(rest[..8].try_into().unwrap()) as usize;
            let event = &rest[12..12 + len];
            // After the time: the step, or the version of the file.
            if event[9] == 0x10 {
                steps.push(event[10]);
            }
            rest = &rest[16 + len..];
        }
    }
    steps
}

/// Starts a training and kills it when it has written of `n` epochs; `before` sees the folder just
/// before that.
fn kill(dir: &Path, command: &str, n: usize, before: impl Fn(&Path)) {
    let mut process = Command::new(env!("CARGO_BIN_EXE_dpq"))
        .current_dir(dir)
        .args(command.split_whitespace())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let run = dir.join("killed");
    while epochs(&run).len() < n {
        assert!(process.try_wait().unwrap().is_none(), "the training ended before it was killed");
        thread::sleep(Duration::from_millis(1));
    }
    before(&run);
    process.kill().unwrap();
    process.wait().unwrap();
    assert!(!run.join("model.safetensors").exists(), "the training ended before it was killed");
}

fn ends_as_an_unbroken_run(dir: &Path, loss: &str) {
    for schedule in ["--preset paper", "--preset authors-code --set schedule.alternating.features_first=0.2"]
    {
        let train = format!(
            "train --data set {schedule} --set epochs={EPOCHS} --set quantizer.codewords=8 --set validation.images=6 \
             --set batch_size=8"
        );
        let whole = json(dir, &format!("{train} --out whole"));
        assert_eq!(whole["classification_loss"], loss);
        assert_eq!(epochs(&dir.join("whole")).len(), EPOCHS);

        let killed = format!("{train} --out killed");
        kill(dir, &killed, 2, |_| ());
        let checkpoint = dir.join("killed/checkpoint.safetensors");
        // The second time the checkpoint is older than what was written of epochs, as it is between
        // the two.
        let older = dir.join("older");
        let copy = |_: &Path| _ = fs::copy(&checkpoint, &older).unwrap();
        let resumed = format!("{killed} --resume");
        let other = error(dir, &format!("{resumed} --seed 9"), 1);
        assert!(other.contains("checkpoint"), "{other}");
        kill(dir, &resumed, 6, copy);
        kill(dir, &resumed, 10, |_| ());
        fs::copy(&older, &checkpoint).unwrap();
        let resumed = json(dir, &resumed);

        assert_eq!(resumed["fingerprint"], whole["fingerprint"]);
        let model = |run: &str| fs::read(dir.join(run).join("model.safetensors")).unwrap();
        assert!(model("killed") == model("whole"), "{schedule}");
        assert_eq!(epochs(&dir.join("killed")), epochs(&dir.join("whole")));
        let expected: Vec<u8> = (1..=EPOCHS as u8).collect();
        assert_eq!([steps(&dir.join("whole")), steps(&dir.join("killed"))], [expected.clone(), expected]);
        for run in ["killed", "whole"] {
            fs::remove_dir_all(dir.join(run)).unwrap();
        }
    }
}

#[test]
fn a_killed_training_goes_on_as_if_nothing_had_been() {
    let dir = TempDir::new().unwrap();
    images(dir.path());
    ends_as_an_unbroken_run(dir.path(), "softmax");
}

/// A list of the images, in which those of a class that `several` says have another class, too.
fn list(dir: &Path, several: impl Fn(u32) -> bool) {
    images(dir);
    let mut list = String::new();
    for class in ["top", "middle", "end"] {
        for i in 0..20 {
            let other = if several(i) { " even" } else { "" };
            list += &format!("images/{class}/{i:02}.png {class}{other}\n");
        }
    }
    fs::write(dir.join("set/list.txt"), list).unwrap();
    let manifest = "name = \"bands\"\nshape = { channels = 1, height = 9, width = 9 }\n\
        images = { format = \"list\", path = \"list.txt\" }\n";
    fs::write(dir.join("set/dataset.toml"), manifest).unwrap();
}

fn append(path: &Path, text: &str) {
    let before = fs::read_to_string(path).unwrap();
    fs::write(path, before + text).unwrap();
}

#[test]
fn so_does_one_of_images_of_several_classes() {
    let dir = TempDir::new().unwrap();
    list(dir.path(), |i| i % 2 == 0);
    append(&dir.path().join("set/dataset.toml"), "protocol = { queries = 6, train = 24, seed = 1 }\n");
    ends_as_an_unbroken_run(dir.path(), "sigmoid");
}

#[test]
fn the_whole_set_decides_what_the_classifier_learns_by() {
    let dir = TempDir::new().unwrap();
    let dir = dir.path();
    // Only images that nothing learns from have several classes; one of `even` alone is learnt.
    list(dir, |i| i == 19);
    append(&dir.join("set/list.txt"), "images/even.png even\n");
    fs::copy(dir.join("set/images/top/00.png"), dir.join("set/images/even.png")).unwrap();
    append(
        &dir.join("set/dataset.toml"),
        "splits = { query = { file = \"query\" }, train = { file = \"train\" } }\n",
    );
    fs::write(dir.join("set/query"), "19\n").unwrap();
    let train = (0..15).chain(20..35).chain(40..55).chain([60]).map(|row| format!("{row}\n"));
    fs::write(dir.join("set/train"), train.collect::<String>()).unwrap();
    let train = "train --data set --out run --preset quick --set epochs=1 --set quantizer.codewords=8";
    assert_eq!(json(dir, train)["classification_loss"], "sigmoid");
    let text = String::from_utf8(dpq(dir, &train.replace("--out run", "--out text")).stdout).unwrap();
    assert!(text.contains("loss of the classifier: sigmoid"), "{text}");
}

#[test]
fn an_earlier_training_is_not_replaced() {
    let dir = TempDir::new().unwrap();
    let dir = dir.path();
    images(dir);
    let train = "train --data set --out run --preset quick --set epochs=1 --set quantizer.codewords=8";
    json(dir, train);
    let files = || {
        let paths = fs::read_dir(dir.join("run")).unwrap().map(|entry| entry.unwrap().path());
        paths.map(|path| (path.clone(), fs::read(path).unwrap())).collect::<BTreeMap<_, _>>()
    };
    let before = files();
    let refused = "is of an earlier training, which a new one would replace: continue it with --resume, or train into \
                   another folder";
    let message = error(dir, &format!("{train} --seed 9"), 1);
    assert!(message.contains("run/model.safetensors") && message.contains(refused), "{message}");
    assert_eq!(files(), before);
    let resumed = json(dir, &format!("{train} --resume"));
    assert_eq!(resumed["epochs"], 1);

    let [model, checkpoint] = ["model", "checkpoint"].map(|name| dir.join(format!("run/{name}.safetensors")));
    let kept = fs::read(&model).unwrap();
    fs::rename(&checkpoint, dir.join("checkpoint")).unwrap();
    let output = dpq(dir, &format!("{train} --resume"));
    assert!(String::from_utf8(output.stderr).unwrap().contains(refused));
    assert_eq!(fs::read(&model).unwrap(), kept);

    fs::rename(dir.join("checkpoint"), &checkpoint).unwrap();
    fs::remove_file(&model).unwrap();
    let message = error(dir, train, 1);
    assert!(message.contains("run/checkpoint.safetensors") && message.contains(refused), "{message}");
    json(dir, &format!("{train} --resume"));
    assert_eq!(fs::read(&model).unwrap(), kept);
}

#[cfg(unix)]
#[test]
fn ctrl_c_ends_a_training_that_can_be_continued() {
    let dir = TempDir::new().unwrap();
    let dir = dir.path();
    images(dir);
    let train = "train --data set --out run --preset quick --set epochs=60 --set quantizer.codewords=8";
    let process = Command::new(env!("CARGO_BIN_EXE_dpq"))
        .current_dir(dir)
        .args(train.split_whitespace())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    while !dir.join("run/checkpoint.safetensors").exists() {
        thread::sleep(Duration::from_millis(1));
    }
    let signal = Command::new("kill").args(["-INT", &process.id().to_string()]).status().unwrap();
    assert!(signal.success());
    let output = process.wait_with_output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    let last = stderr.lines().last().unwrap();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    let n = epochs(&dir.join("run")).len();
    let expected = format!("error: training was interrupted in epoch {}, continue it with --resume", n + 1);
    assert_eq!(last, expected);
    assert!(!dir.join("run/model.safetensors").exists());
    assert_eq!(json(dir, &format!("{train} --resume"))["epochs"], 60);
    assert_eq!(epochs(&dir.join("run")).len(), 60);
}

#[test]
fn classes_without_items_are_reported_before_the_work() {
    let dir = TempDir::new().unwrap();
    let dir = dir.path();
    images(dir);
    json(dir, "data export --data set --split train --out-dir x");
    let train = "train --features x/features.npy --labels y.npy --out run --preset quick --set epochs=1 \
                 --set quantizer.codewords=8";
    let stderr = |classes: [i64; 3]| {
        let labels: Vec<u8> = (0..24).flat_map(|i| classes[i / 8].to_le_bytes()).collect();
        write_array(&dir.join("y.npy"), "<i8", "(24,)", &labels);
        fs::remove_dir_all(dir.join("run")).unwrap_or_default();
        String::from_utf8(dpq(dir, train).stderr).unwrap()
    };
    assert!(!stderr([0, 1, 2]).contains("have no items"));
    let gaps = stderr([1, 4, 9]);
    assert!(
        gaps.starts_with("y.npy: 7 of 10 classes have no items, number classes from 0 without gaps"),
        "{gaps}"
    );
    assert!(gaps.contains("epoch"), "{gaps}");
}

/// Queries and keys [40, 4]: a query is its key, turned around.
fn write_pairs(dir: &Path) {
    let number = |row: usize, i: usize| ((row * 7919 + i * 104_729) % 1013) as f32 / 506.0 - 1.0;
    let write = |name: &str, columns: usize, value: &dyn Fn(usize, usize) -> f32| {
        let values = (0..40).flat_map(|row| (0..columns).map(move |i| (row, i)));
        let bytes: Vec<u8> = values.flat_map(|(row, i)| value(row, i).to_le_bytes()).collect();
        write_array(&dir.join(name), "<f4", &format!("(40, {columns})"), &bytes);
    };
    write("k.npy", 4, &number);
    write("q.npy", 4, &|row, i| number(row, 3 - i));
    write("wide.npy", 5, &number);
    write("nan.npy", 4, &|row, i| if (row, i) == (7, 2) { f32::NAN } else { number(row, i) });
}

#[test]
fn pairs_train_codes_of_keys() {
    let dir = TempDir::new().unwrap();
    let dir = dir.path();
    write_pairs(dir);
    let pairs: Vec<u8> = (0..30i64).flat_map(|row| [row, row]).flat_map(i64::to_le_bytes).collect();
    write_array(&dir.join("pairs.npy"), "<i8", "(30, 2)", &pairs);
    let train = "train --queries q.npy --keys k.npy --set quantizer.levels=2 --set quantizer.codewords=8 \
        --set epochs=4 --set batch_size=10 --set network_optimizer.rate=0.05 --out";
    let found = json(dir, &format!("{train} run --pairs pairs.npy"));
    assert_eq!((&found["preset"], &found["images"]), (&"mopq".into(), &30.into()));
    assert_eq!(
        (&found["config"]["network"]["dim"], &found["classification_loss"]),
        (&4.into(), &"none".into())
    );
    assert_eq!(json(dir, &format!("{train} all"))["images"], 40);

    let model = "--model run/model.safetensors --features";
    assert_eq!(json(dir, &format!("encode {model} k.npy --out-dir keys"))["items"], 40);
    json(dir, &format!("features {model} q.npy --queries --out-dir queries"));
    json(dir, &format!("features {model} q.npy --out-dir others"));
    let features = |folder: &str| fs::read(dir.join(folder).join("features.npy")).unwrap();
    assert_ne!(features("queries"), features("others"), "queries and keys have maps of their own");
    json(dir, "index build --codes keys/codes.npy --codebook run/model.safetensors --out keys.dpq");
    let found =
        json(dir, "eval --index keys.dpq --queries queries/features.npy --relevant pairs.npy --bits 16");
    assert!(found["by_bits"]["16"]["recall_at"]["10"].as_f64().unwrap() > 0.4, "{found}");

    let says = |command: &str, expected: &str| {
        let message = error(dir, command, 1);
        assert!(message.contains(expected), "{command}: {message}");
    };
    let refused = train.replace("--out", "--out refused");
    says(&refused.replace("k.npy", "wide.npy"), "has queries of 4 dimensions, wide.npy has keys of 5");
    says(&refused.replace("k.npy", "nan.npy"), "row 7");
    let far: Vec<u8> = [[0, 1i64], [3, 40]].concat().into_iter().flat_map(i64::to_le_bytes).collect();
    write_array(&dir.join("far.npy"), "<i8", "(2, 2)", &far);
    says(&format!("{refused} --pairs far.npy"), "pair 1 names item 40, expected a row from 0 below 40");
    says(&format!("{refused} --preset best"), "`mopq` for pairs, as the preset `mopq` has");
    says(&format!("{refused} --set validation.images=4"), "pairs cannot be held out");
    says(&format!("encode {model} k.npy --posteriors --out-dir x"), "has no classifier");
    assert!(!dir.join("refused").exists());
    error(dir, "train --queries q.npy --out x", 2);
}

/// A program that trains by the words of the command does not train by those that only print.
#[test]
fn words_that_print_do_not_train() {
    let dir = TempDir::new().unwrap();
    let out = dir.path().join("run");
    let words = ["--print-config", "--data", "missing", "--out", out.to_str().unwrap()];
    let train = || dpq::train(words.map(Into::into), &AtomicBool::new(false), &mut |_| Ok(()));
    assert_eq!(train().unwrap_err().to_string(), "--print-config trains nothing, leave it out");
}
