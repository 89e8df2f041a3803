//! Live indexes through the command.

#![allow(clippy::unwrap_used, reason = "a test that fails may panic")]

mod common;
#[path = "common/gallery.rs"]
mod gallery;

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};

use serde_json::{Value, json as value};
use tempfile::TempDir;

use common::{dpq, error, json};
use gallery::{EVAL, gallery};

const ADD: &str = "index add live --codes gallery/codes.npy --ids gallery/ids.npy";
const SEARCH: &str = "--queries query/features.npy -k 7";

fn hits(dir: &Path, index: &str, options: &str) -> Value {
    json(dir, &format!("search {index} {SEARCH} {options}"))["hits"].take()
}

/// The hits are those of an index file of the same items, after changes of every kind.
#[test]
fn a_live_index_is_searched_like_a_file() {
    let dir = TempDir::new().unwrap();
    let dir = dir.path();
    gallery(dir);
    let added = json(dir, &format!("{ADD} --codebook cb.safetensors --commit-every 7"));
    let n = added["added"].as_u64().unwrap();
    assert_eq!((&added["replaced"], added["commit"].as_u64()), (&0.into(), Some(n.div_ceil(7))));
    // The same items again, now encoded by the codebooks of the live index.
    let added = json(dir, "index add live --features gallery/features.npy --ids gallery/ids.npy");
    assert_eq!((&added["added"], &added["replaced"], &added["items"]), (&0.into(), &n.into(), &n.into()));
    let ids = "--allow query/ids.npy";
    let rerank = "--rerank gallery/features.npy --rerank-ids gallery/ids.npy";
    for options in ["", "--bits 8", "--bits 24 --shortlist 20@8", ids, rerank] {
        assert_eq!(hits(dir, "live", options), hits(dir, "g.dpq", options), "{options}");
    }

    let first = hits(dir, "live", "")[0][0]["id"].as_u64().unwrap();
    let deleted = json(dir, &format!("index delete live --id {first}"));
    assert_eq!((&deleted["deleted"], &deleted["items"]), (&1.into(), &(n - 1).into()));
    assert_ne!(hits(dir, "live", "")[0][0]["id"], first);
    for _ in 0..2 {
        let compacted = json(dir, "index compact live");
        assert_eq!((&compacted["segments"], &compacted["tail"]), (&vec![n - 1].into(), &0.into()));
    }
    assert_eq!(json(dir, &format!("{ADD} --codebook cb.safetensors"))["added"], 1);
    assert_eq!(hits(dir, "live", ""), hits(dir, "g.dpq", ""));
    assert_eq!(json(dir, "index verify live")["items"], n);
    let info = json(dir, "index info live");
    // A segment of which all items were replaced is gone.
    assert_eq!((&info["segments"], &info["deleted"], &info["tail"]), (&value!([]), &0.into(), &n.into()));
    let (live, file) = (info, json(dir, "index info g.dpq"));
    for property in ["dim", "levels", "codewords", "metric", "fingerprint"] {
        assert_eq!(live[property], file[property]);
    }
}

/// Images have their paths as names, by which they are replaced, printed and deleted.
#[test]
fn images_are_known_by_their_paths() {
    let dir = TempDir::new().unwrap();
    let dir = dir.path();
    common::images(dir);
    json(dir, "train --data set --preset quick --set epochs=1 --set quantizer.codewords=4 --out run");
    let add = "index add live --images set/images --model run/model.safetensors";
    assert_eq!(json(dir, add)["added"], 60);
    fs::write(dir.join("set/images/top/new.png"), fs::read(dir.join("set/images/top/00.png")).unwrap())
        .unwrap();
    fs::write(dir.join("set/images/top/bad.png"), "").unwrap();
    let added = json(dir, add);
    assert_eq!((&added["added"], &added["replaced"], &added["left_out"]), (&1.into(), &60.into(), &1.into()));
    let search = "search live --model run/model.safetensors --image set/images/top/00.png -k 61";
    let hits = json(dir, search)["hits"][0].take();
    let id_of = |name: &str| {
        let hit = hits.as_array().unwrap().iter().find(|hit| hit["name"] == name);
        hit.map(|hit| hit["id"].clone())
    };
    assert_eq!(id_of("set/images/top/new.png"), Some(60.into()));
    assert!(id_of("set/images/top/00.png").is_some());
    json(dir, "index delete live --name set/images/top/new.png --name set/images/top/01.png");
    let text = String::from_utf8(dpq(dir, search).stdout).unwrap();
    assert_eq!(text.lines().count(), 60);
    assert!(text.contains("set/images/top/00.png") && !text.contains("new.png"), "{text}");
}

/// A model makes the codes that `dpq encode` makes, from images of a data set and from features.
#[test]
fn a_model_encodes_what_is_added() {
    let dir = TempDir::new().unwrap();
    let dir = dir.path();
    gallery(dir);
    let train = "train --preset quick --set epochs=1 --set quantizer.codewords=4";
    json(dir, &format!("{train} --data set --out run"));
    json(dir, &format!("{train} --features train/features.npy --labels train/labels.npy --out projection"));
    let features = "--features gallery/features.npy";
    for (model, items, ids) in
        [("run", "--data set --split gallery", ""), ("projection", features, "--ids gallery/ids.npy")]
    {
        let model_file = format!("--model {model}/model.safetensors");
        let encoded = json(dir, &format!("encode {model_file} {items} --out-dir {model}.codes"));
        let live = format!("{model}.live");
        let added = json(dir, &format!("index add {live} {model_file} {items} {ids}"));
        assert_eq!(added["added"], encoded["items"]);
        let folder = if ids.is_empty() { format!("{model}.codes") } else { "gallery".to_owned() };
        json(
            dir,
            &format!(
                "index build --codes {model}.codes/codes.npy --ids {folder}/ids.npy --codebook {model}/model.safetensors \
                 --out {model}.dpq"
            ),
        );
        let search = format!("--queries {model}.codes/features.npy -k 100");
        let [of_live, of_file] = [live, format!("{model}.dpq")]
            .map(|index| json(dir, &format!("search {index} {search}"))["hits"].take());
        assert_eq!(of_live, of_file);
    }
}

/// Names of rows are replaced with their items, and are printed.
#[test]
fn rows_have_names() {
    let dir = TempDir::new().unwrap();
    let dir = dir.path();
    gallery(dir);
    let n = json(dir, "index info g.dpq")["items"].as_u64().unwrap();
    for round in ["first", "second"] {
        let names: String = (0..n).map(|row| format!("{round} {row}\n")).collect();
        fs::write(dir.join("names.txt"), names).unwrap();
        json(dir, &format!("{ADD} --codebook cb.safetensors --names names.txt"));
        let hits = hits(dir, "live", "");
        let all = hits.as_array().unwrap().iter().flat_map(|hits| hits.as_array().unwrap());
        assert!(all.clone().count() > 0);
        assert!(all.clone().all(|hit| hit["name"].as_str().unwrap().starts_with(round)), "{hits}");
    }
    fs::write(dir.join("names.txt"), "one\n").unwrap();
    assert!(error(dir, &format!("{ADD} --names names.txt"), 1).contains("rows, 1 names were given"));
}

/// Starts `dpq index add live --stdin` with pipes.
fn add_from_stdin(dir: &Path, options: &[&str]) -> Child {
    Command::new(env!("CARGO_BIN_EXE_dpq"))
        .current_dir(dir)
        .args(["index", "add", "live", "--stdin"])
        .args(options)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

#[test]
fn lines_of_stdin_are_items() {
    let dir = TempDir::new().unwrap();
    let dir = dir.path();
    gallery(dir);
    let add = |text: &str| {
        let mut child = add_from_stdin(dir, &["--codebook", "cb.safetensors", "--commit-every", "2"]);
        child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        String::from_utf8(child.wait_with_output().unwrap().stderr).unwrap()
    };
    let dim = json(dir, "index info g.dpq")["dim"].as_u64().unwrap() as usize;
    let features = format!("{:?}", vec![0.5; dim]);
    let text = format!(
        "{{\"id\": 5, \"code\": [1, 2, 3], \"name\": \"five\"}}\n\n{{\"id\": 6, \"features\": {features}}}\n"
    );
    assert_eq!(add(&text), "");
    assert_eq!(json(dir, "index info live")["items"], 2);
    for (line, expected) in [
        ("{\"id\": 7, \"code\": [1, 2]}", "stdin, line 4: the code of id 7 has 2 bytes, expected 3"),
        ("{\"id\": 7, \"features\": [1]}", "stdin, line 4: id 7 has features of 1 dimensions"),
        ("{\"id\": 7}", "stdin, line 4: id 7 needs either \"code\" or \"features\""),
        ("{\"id\": 7, \"code\": [1, 2, 300]}", "stdin, line 4: invalid value"),
        ("{\"id\": 7, \"code\": [1, 2, 3], \"name\": \"five\"}", "stdin, line 4: id 5 has the name \"five\""),
        ("7", "stdin, line 4: invalid type"),
    ] {
        let stderr = add(&format!("{text}{line}\n"));
        assert!(stderr.contains(expected) && stderr.lines().count() == 1, "{stderr}");
        assert!(stderr.contains("stopped after 2 items, the last 0 are not committed"), "{stderr}");
    }
    assert_eq!(json(dir, "index info live")["items"], 2);
}

/// Ctrl-C ends a long call in order, and its last commit stands: also if no line follows it.
#[cfg(unix)]
#[test]
fn an_interrupted_call_leaves_its_last_commit() {
    [false, true].into_iter().for_each(interrupt);
}

#[cfg(unix)]
fn interrupt(stdin_ends: bool) {
    let dir = TempDir::new().unwrap();
    let dir = dir.path();
    gallery(dir);
    let mut child = add_from_stdin(dir, &["--codebook", "cb.safetensors", "--commit-every", "10"]);
    let mut stdin = child.stdin.take().unwrap();
    let put = |stdin: &mut ChildStdin, id: u64| writeln!(stdin, "{{\"id\": {id}, \"code\": [1, 2, 3]}}");
    (0..25).for_each(|id| put(&mut stdin, id).unwrap());
    let items = || dpq(dir, "index info live --json").stdout;
    while !String::from_utf8(items()).unwrap().starts_with("{\"items\":20,") {
        assert_eq!(child.try_wait().unwrap(), None, "it ends before its second commit");
        std::thread::yield_now();
    }
    assert!(error(dir, "index delete live --id 3", 1).contains("another writer has live open"));
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    // The writer waits for a line or the end.
    for id in 25.. {
        if stdin_ends || child.try_wait().unwrap().is_some() {
            break;
        }
        let _ = put(&mut stdin, id);
        std::thread::yield_now();
    }
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), stderr.lines().count()), (Some(1), 1), "{stderr}");
    assert!(stderr.contains("are not committed") && stderr.contains("interrupted"), "{stderr}");
    let items = json(dir, "index verify live")["items"].as_u64().unwrap();
    assert!(items >= 20 && items.is_multiple_of(10), "{items} items");
}

#[test]
fn mistakes_change_nothing() {
    let dir = TempDir::new().unwrap();
    let dir = dir.path();
    gallery(dir);
    let fails = |command: &str, expected: &str| {
        let stderr = error(dir, command, 1);
        assert!(stderr.contains(expected), "{command}: {stderr}");
    };
    fails(ADD, "there is no live index live, give --codebook or --model too");
    fails(&format!("{ADD} --codebook nothing"), "cannot open nothing");
    fails("index add cb.safetensors --features train/features.npy --codebook cb.safetensors", "is a file");
    fails("index delete live --id 1", "so it is not a live index");
    fails("search query --queries query/features.npy", "query has no manifest.dpq");
    fails("index add live --features cb.safetensors --codebook cb.safetensors", "cb.safetensors");
    assert!(!dir.join("live").exists());

    json(dir, &format!("{ADD} --codebook cb.safetensors"));
    let before = json(dir, "index info live");
    json(
        dir,
        "codebook train --features train/features.npy --levels 3 --codewords 4 --out other.safetensors",
    );
    fails(&format!("{ADD} --codebook other.safetensors"), "give the codebook");
    fails(
        "index add live --features train/features.npy --codebook other.safetensors",
        "give the codebooks or the model that made its codes",
    );
    fails(&format!("{ADD} --metric l2"), "live has the metric ip, which stays");
    fails("index add live --codes gallery/codes.npy --ids query/ids.npy", "ids were given");
    fails("index delete live --id 0,999999", "no item has the id 999999");
    fails("index delete live --name cat", "no item of the name \"cat\"");
    fails("search live --queries query/features.npy --bits 64", "code length");
    for command in ["index export live --to npy --out arrays", &EVAL.replace("g.dpq", "live")] {
        fails(command, "live is a live index, this command takes an index file: compact it and give");
    }
    assert_eq!(json(dir, "index info live"), before);
    fs::write(dir.join("live/manifest.dpq"), "no manifest").unwrap();
    fails("index info live", "live/manifest.dpq");
}
