//! Results for unexpected input files, and for input files in other forms.

#![allow(clippy::unwrap_used, reason = "a test that fails may panic")]

#[path = "common/arrays.rs"]
mod arrays;
mod common;
#[path = "common/gallery.rs"]
mod gallery;

use std::fs;

use tempfile::TempDir;

use arrays::write_array;
use common::{dpq, error, images, json};
use gallery::{EVAL, gallery};

#[test]
fn names_are_those_of_all_hits() {
    let dir = TempDir::new().unwrap();
    let dir = dir.path();
    gallery(dir);
    let names: String = (0..60).map(|id| format!("image {id}\n")).collect();
    fs::write(dir.join("names.txt"), &names).unwrap();
    let search = "search g.dpq --queries query/features.npy -k 30 --names names.txt";
    let found = json(dir, search);
    let hit = &found["hits"][0][0];
    assert_eq!(hit["name"], format!("image {}", hit["id"]));
    assert!(String::from_utf8(dpq(dir, search).stdout).unwrap().contains(hit["name"].as_str().unwrap()));
    fs::write(dir.join("names.txt"), "one\n").unwrap();
    assert!(error(dir, search, 1).contains("has 1 lines, none for id"));
    assert!(error(dir, &format!("{search} --out hits.npz"), 2).contains("--names"));
}

#[test]
fn an_exported_index_is_built_again_as_it_was() {
    let dir = TempDir::new().unwrap();
    let dir = dir.path();
    gallery(dir);
    let build =
        "index build --codes gallery/codes.npy --codebook cb.safetensors --ids gallery/ids.npy --metric l2";
    json(dir, &format!("{build} --out l2.dpq"));
    json(dir, "index export l2.dpq --to npy --out arrays");
    let build =
        "index build --codes arrays/codes.npy --codebook arrays/codebook.safetensors --ids arrays/ids.npy";
    assert_eq!(json(dir, &format!("{build} --out again.dpq"))["metric"], "l2");
    assert_eq!(json(dir, &format!("{build} --metric ip --out ip.dpq"))["metric"], "ip");
    assert_eq!(fs::read(dir.join("again.dpq")).unwrap(), fs::read(dir.join("l2.dpq")).unwrap());
}

#[test]
fn class_numbers_are_labels_too() {
    let dir = TempDir::new().unwrap();
    let dir = dir.path();
    gallery(dir);
    let expected = json(dir, EVAL);
    for split in ["query", "gallery"] {
        // A header of 128 bytes, then a row of three zeros and ones an item.
        let labels = fs::read(dir.join(split).join("labels.npy")).unwrap();
        let numbers: Vec<u8> =
            labels[128..].chunks(3).map(|row| row.iter().position(|&x| x == 1).unwrap() as u8).collect();
        let n = numbers.len();
        let shapes = [format!("({n}, 3, )"), format!("({n}, )   ")];
        let head = String::from_utf8_lossy(&labels[10..128]).replace(&shapes[0], &shapes[1]);
        let file = [&labels[..10], head.as_bytes(), &numbers].concat();
        fs::write(dir.join(split).join("numbers.npy"), file).unwrap();
    }
    let mut found = json(dir, &EVAL.replace("labels.npy", "numbers.npy"));
    found["seconds"] = expected["seconds"].clone();
    found["peak_memory_bytes"] = expected["peak_memory_bytes"].clone();
    assert_eq!(found, expected);
    // A class that no query has.
    let path = dir.join("gallery/numbers.npy");
    let mut file = fs::read(&path).unwrap();
    file[128] = 7;
    fs::write(path, file).unwrap();
    let found = json(dir, &EVAL.replace("labels.npy", "numbers.npy"));
    assert_ne!(found["by_bits"], expected["by_bits"]);
}

/// Pairs of a query and each item of its class are relevance by class, and say more.
#[test]
fn pairs_say_what_is_relevant() {
    let dir = TempDir::new().unwrap();
    let dir = dir.path();
    gallery(dir);
    // A header of 128 bytes, then a row of three zeros and ones an item.
    let [queries, items] =
        ["query", "gallery"].map(|split| fs::read(dir.join(split).join("labels.npy")).unwrap());
    let row = |labels: &[u8], i: usize| labels[128 + 3 * i..][..3].to_vec();
    let pairs: Vec<i64> = (0..6)
        .flat_map(|q| (0..30).map(move |i| [q, i]))
        .filter(|&[q, i]| row(&queries, q) == row(&items, i))
        .flatten()
        .map(|row| row as i64)
        .collect();
    let write = |pairs: &[i64]| {
        let bytes: Vec<u8> = pairs.iter().flat_map(|row| row.to_le_bytes()).collect();
        write_array(&dir.join("pairs.npy"), "<i8", &format!("({}, 2)", pairs.len() / 2), &bytes);
    };
    write(&pairs);
    let of_pairs = EVAL.replace(
        "--query-labels query/labels.npy --gallery-labels gallery/labels.npy",
        "--relevant pairs.npy",
    );
    let (expected, found) = (json(dir, EVAL), json(dir, &of_pairs));
    for bits in ["8", "24"] {
        let [expected, found] = [&expected, &found].map(|report| &report["by_bits"][bits]);
        for figure in ["map", "map_min", "map_at", "pr_curve"] {
            assert_eq!(found[figure], expected[figure], "{figure}");
        }
        // Ten items of each class, and nothing but them first.
        assert_eq!((&found["mrr"], &found["ndcg_at"]["10"]), (&1.0.into(), &1.0.into()));
        assert!((found["recall_at"]["1"].as_f64().unwrap() - 0.1).abs() < 1e-12);
        assert!(found["recall_at"].get("50").is_some() && expected.get("mrr").is_none());
    }
    let text = String::from_utf8(dpq(dir, &of_pairs).stdout).unwrap();
    assert!(text.contains("R@1") && text.contains("nDCG@10"), "{text}");

    // One pair, of the last item: without --index the features say how many items there are.
    write(&[5, 29]);
    let of_features = "eval --gallery-features gallery/features.npy --queries query/features.npy";
    let found = json(dir, &format!("{of_features} --relevant pairs.npy"));
    assert_eq!(found["features"]["empty_queries"], 5);
    write(&[5, 30]);
    let message = error(dir, &of_pairs, 1);
    assert!(message.contains("pair 0 names item 30, expected a row from 0 below 30"), "{message}");
    error(dir, of_features, 2);
    error(dir, &format!("{EVAL} --relevant pairs.npy"), 2);
}

#[test]
fn an_index_serves_as_a_codebook() {
    let dir = TempDir::new().unwrap();
    let dir = dir.path();
    gallery(dir);
    let codes = |codebook: &str| {
        json(dir, &format!("encode --codebook {codebook} --features query/features.npy --out-dir x"));
        fs::read(dir.join("x/codes.npy")).unwrap()
    };
    assert_eq!(codes("g.dpq"), codes("cb.safetensors"));
}

#[test]
fn wrong_input_is_one_line_that_says_what_to_do() {
    let dir = TempDir::new().unwrap();
    let dir = dir.path();
    gallery(dir);
    let says = |command: &str, text: &str| {
        let error = error(dir, command, 1);
        assert!(error.contains(text), "{command}: {error}");
    };
    says("search g.dpq --queries gallery/codes.npy", "expected float32");
    says(
        "index build --codes query/features.npy --codebook cb.safetensors --out x.dpq",
        "expected uint8: convert it with .astype('uint8') if no value changes",
    );
    let train = "codebook train --features train/features.npy --codewords 8 --out";
    says(&format!("{train} nowhere/x"), "there is no folder for nowhere/x, create it");
    says(&format!("{train} train/features.npy"), "would be overwritten");
    says(&format!("{train} gallery"), "gallery exists and is not a file");
    let encode = "encode --codebook cb.safetensors --out-dir new/deep --features";
    says(&format!("{encode} train/labels.npy"), "expected float32");
    says(&format!("{encode} query/features.npy --beam 0"), "beam");
    assert!(!dir.join("new").exists(), "folders with nothing in them");
    fs::create_dir(dir.join("floats")).unwrap();
    fs::copy(dir.join("query/features.npy"), dir.join("floats/codes.npy")).unwrap();
    let encode = "encode --codebook cb.safetensors --features floats/codes.npy --out-dir floats";
    says(encode, "would be overwritten");
    says("search g.dpq --queries query/features.npy --bits 12", "expected a multiple of 8");
    says("search g.dpq --queries query/features.npy --bits 32", "32");
    says("search cb.safetensors --queries query/features.npy", "cb.safetensors");
    says("index info missing.dpq", "missing.dpq");
    says(
        "encode --model cb.safetensors --features query/features.npy --out-dir x",
        "made by `dpq train`; codebooks alone go to `dpq encode --codebook`",
    );
    says(
        "train --data set --out x",
        "found 256, expected at most the 24 training items, give --set quantizer.codewords=24 or less",
    );
    let tune = "tune g.dpq --queries query/features.npy --recall";
    assert!(error(dir, &format!("{tune} 95"), 2).contains("expected 0 to 1, such as 0.95"));
    json(dir, &format!("{tune} 0.5"));
    says("data export --data nowhere --split train --out-dir x", "nowhere/dataset.toml");
    says("codebook train --features query/features.npy --out x", "6 features cannot fit 256 codewords");
    says(&EVAL.replace(" --gallery-ids gallery/ids.npy", ""), "give them with --gallery-ids");
    says(&EVAL.replace("gallery/labels.npy", "query/labels.npy"), "give files of the same items");

    json(
        dir,
        "codebook train --features gallery/features.npy --levels 3 --codewords 8 --out other.safetensors",
    );
    says(
        "index build --codes gallery/codes.npy --codebook other.safetensors --out x.dpq",
        "give the codebook that made these codes",
    );
    assert!(!dir.join("x.dpq").exists());
    json(dir, "data export --data set --split query --out-dir gallery");
    assert!(!dir.join("gallery/codes.npy").exists(), "codes of other features");
    assert!(!dir.join("gallery/codes.json").exists());

    let index = fs::read(dir.join("g.dpq")).unwrap();
    fs::write(dir.join("cut.dpq"), &index[..index.len() - 1]).unwrap();
    says("index info cut.dpq", "truncated");
    let mut damaged = index;
    *damaged.last_mut().unwrap() ^= 1;
    fs::write(dir.join("damaged.dpq"), damaged).unwrap();
    says("index verify damaged.dpq", "damaged");

    assert!(error(dir, "search", 2).contains("Usage: dpq search"));
    assert!(
        error(dir, "data export --data set --split test --out-dir x", 2)
            .contains("expected `train`, `query` or `gallery`")
    );
}

#[test]
fn results_of_other_items_do_not_lie_beside_each_other() {
    let dir = TempDir::new().unwrap();
    let dir = dir.path();
    gallery(dir);
    let files = |folder: &str| {
        let entries = fs::read_dir(dir.join(folder)).unwrap().map(|entry| entry.unwrap().file_name());
        let mut names: Vec<_> = entries.map(|name| name.into_string().unwrap()).collect();
        names.sort();
        names.join(" ")
    };
    let encode = "encode --codebook cb.safetensors --features gallery/features.npy --out-dir";
    for command in [format!("{encode} query"), "index export g.dpq --to npy --out gallery".to_owned()] {
        let message = error(dir, &command, 1);
        assert!(message.contains(".npy is of other items than those to be written beside it"), "{message}");
    }
    assert_eq!(files("query"), "features.npy ids.npy labels.npy");
    // Ids and labels of the features themselves stay.
    json(dir, &format!("{encode} gallery"));
    assert_eq!(files("gallery"), "codes.json codes.npy features.npy ids.npy labels.npy");
    json(dir, &format!("{encode} codes"));
    json(dir, &format!("{encode} codes"));
    fs::copy(dir.join("query/features.npy"), dir.join("codes/features.npy")).unwrap();
    json(dir, &format!("{encode} codes"));
    assert_eq!(files("codes"), "codes.json codes.npy");
    // New ids take old names with them.
    fs::write(dir.join("query/names.txt"), "one\n").unwrap();
    json(dir, "data export --data set --split train --out-dir query");
    assert_eq!(files("query"), "features.npy ids.npy labels.npy");
}

/// `names.txt` has one name per line, so a name that a line cannot hold is refused before anything
/// is written.
#[cfg(unix)]
#[test]
fn names_that_a_line_cannot_hold_are_refused_before_the_work() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    let dir = TempDir::new().unwrap();
    let dir = dir.path();
    images(dir);
    json(dir, "train --data set --out run --preset quick --set epochs=1 --set quantizer.codewords=8");
    for name in [&b"x\ny.png"[..], b"x\ry.png", b"x\xffy.png"] {
        let folder = dir.join("p");
        fs::create_dir(&folder).unwrap();
        fs::copy(dir.join("set/images/top/00.png"), folder.join(OsStr::from_bytes(name))).unwrap();
        for command in ["encode", "features"] {
            let command = format!("{command} --model run/model.safetensors --images p --out-dir q");
            let error = error(dir, &command, 1);
            assert!(error.contains("is not UTF-8 text in one line, rename the file"), "{error}");
            assert!(!dir.join("q").exists());
        }
        fs::remove_dir_all(&folder).unwrap();
    }
}

/// A column [N, 1] of class numbers, as a table gives it, is N labels; read as a multi-hot matrix
/// of one class it would make all items of class 0 relevant to nobody.
#[test]
fn a_column_of_class_numbers_is_labels() {
    let dir = TempDir::new().unwrap();
    let dir = dir.path();
    let floats = |rows: &[[f32; 2]]| rows.iter().flatten().flat_map(|x| x.to_le_bytes()).collect::<Vec<_>>();
    let gallery = [[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9]];
    write_array(&dir.join("g.npy"), "<f4", "(4, 2)", &floats(&gallery));
    write_array(&dir.join("q.npy"), "<f4", "(2, 2)", &floats(&[[1.0, 0.0], [0.0, 1.0]]));
    let eval = "eval --gallery-features g.npy --queries q.npy --query-labels a.npy --gallery-labels b.npy";
    let map = |a: &str, b: &str| {
        for dtype in ["|u1", "<i8"] {
            let classes = |classes: &[u8]| match dtype {
                "|u1" => classes.to_vec(),
                _ => classes.iter().flat_map(|&class| i64::from(class).to_le_bytes()).collect(),
            };
            write_array(&dir.join("a.npy"), dtype, a, &classes(&[0, 1]));
            write_array(&dir.join("b.npy"), dtype, b, &classes(&[0, 0, 1, 1]));
            assert_eq!(json(dir, eval)["features"]["map"], 1.0, "{dtype} {a} {b}");
        }
    };
    map("(2,)", "(4,)");
    map("(2, 1)", "(4, 1)");
    map("(2,)", "(4, 1)");

    let ids = |values: &[i64]| values.iter().flat_map(|id| id.to_le_bytes()).collect::<Vec<_>>();
    write_array(&dir.join("ids.npy"), "<i8", "(4,)", &ids(&[5, 6, 7, 8]));
    assert_eq!(json(dir, &format!("{eval} --gallery-ids ids.npy"))["features"]["map"], 1.0);
    write_array(&dir.join("ids.npy"), "<i8", "(4,)", &ids(&[5, 6, -1, 8]));
    let message = error(dir, &format!("{eval} --gallery-ids ids.npy"), 1);
    assert_eq!(
        message,
        "error: ids.npy: has -1 as an id, expected 0 to 18446744073709551615: convert or replace the ids\n"
    );
    write_array(&dir.join("ids.npy"), "<u8", "(4, 1)", &ids(&[5, 6, 7, 8]));
    assert!(error(dir, &format!("{eval} --gallery-ids ids.npy"), 1).contains(".ravel()"));
}

/// Symmetric figures are those of the queries that their codes decode to.
#[test]
fn symmetric_evaluation_quantizes_queries() {
    let dir = TempDir::new().unwrap();
    let dir = dir.path();
    gallery(dir);
    json(dir, "encode --codebook cb.safetensors --features query/features.npy --out-dir codes");
    // One item for each query, so that every rank counts.
    let pairs: Vec<u8> =
        (0..6i64).flat_map(|query| [query, 5 * query + 2]).flat_map(i64::to_le_bytes).collect();
    write_array(&dir.join("pairs.npy"), "<i8", "(6, 2)", &pairs);
    let eval =
        "eval --index g.dpq --queries query/features.npy --relevant pairs.npy --gallery-ids gallery/ids.npy";
    for bits in [8, 24] {
        json(
            dir,
            &format!(
                "decode --codebook cb.safetensors --codes codes/codes.npy --bits {bits} --out decoded.npy"
            ),
        );
        let eval = format!("{eval} --bits {bits}");
        let expected = json(dir, &eval.replace("query/features.npy", "decoded.npy"));
        let found = json(dir, &format!("{eval} --symmetric"));
        assert_eq!(found["by_bits"], expected["by_bits"]);
        // Long codes tell these queries apart as well as their numbers do.
        let asymmetric = json(dir, &eval);
        assert_eq!(found["by_bits"] == asymmetric["by_bits"], bits == 24);
        assert_eq!((&found["symmetric"], &expected["symmetric"]), (&true.into(), &false.into()));
    }
    let text = String::from_utf8(dpq(dir, &format!("{eval} --symmetric")).stdout).unwrap();
    assert!(text.contains("items, queries are quantized, too"), "{text}");
}

/// Views of images as features, and training on them or on images without labels.
#[test]
fn views_train_codes_without_labels() {
    let dir = TempDir::new().unwrap();
    let dir = dir.path();
    images(dir);
    let train = "--preset mecoq --set quantizer.levels=2 --set quantizer.codewords=8 --set batch_size=8 \
        --set network.dim=8 --set epochs=4";
    let body = "--set network.body.small.channels=[4] --set network.body.small.pools=1 \
        --set network.body.small.order=\"conv-pool-norm-relu\" --set network.body.small.hidden=8";
    let of_images = json(dir, &format!("train --data set {train} {body} --out images"));
    assert_eq!((&of_images["classification_loss"], &of_images["embeddings"]), (&"none".into(), &().into()));
    // Images without classes have the same bytes, labels or not.
    let again = json(dir, &format!("train --data set {train} {body} --out again"));
    assert_eq!(again["fingerprint"], of_images["fingerprint"]);

    let body = "features --model images/model.safetensors --data set --split train --body";
    json(dir, &format!("{body} --out-dir plain"));
    json(dir, &format!("{body} --views 3 --out-dir views"));
    json(dir, &format!("{body} --views 3 --threads 1 --out-dir same"));
    json(dir, &format!("{body} --views 3 --seed 2 --out-dir others"));
    let rows = |name: &str| -> Vec<u8> {
        let file = fs::read(dir.join(name).join("features.npy")).unwrap();
        file[128..].to_vec()
    };
    let (plain, views) = (rows("plain"), rows("views"));
    assert_eq!(views.len(), 3 * plain.len());
    let width = plain.len() / 24;
    for (plain, views) in plain.chunks(width).zip(views.chunks(3 * width)) {
        assert_eq!(plain, &views[..width], "the first view is the image itself");
        assert_ne!(views[width..2 * width], views[2 * width..]);
    }
    assert_eq!(views, rows("same"));
    assert_ne!(views, rows("others"));

    let found = json(dir, &format!("train --features views/features.npy --views 3 {train} --out run"));
    assert_eq!((&found["images"], &found["classification_loss"]), (&24.into(), &"none".into()));
    let encode = "encode --model run/model.safetensors --features plain/features.npy --out-dir codes";
    assert_eq!(json(dir, encode)["items"], 24);
    let says = |command: &str, expected: &str| {
        let message = error(dir, command, 1);
        assert!(message.contains(expected), "{command}: {message}");
    };
    says(&format!("train --features views/features.npy --views 5 {train} --out x"), "not 5 views");
    says(&format!("train --features views/features.npy --views 2 {train} --out x"), "expected at least 3");
    json(dir, "encode --model images/model.safetensors --data set --split gallery --out-dir unlabelled");
    says("train --features views/features.npy --out x", "give --labels, or train without by --preset mecoq");
    error(dir, "features --model m --features f.npy --views 2 --out-dir x", 2);
}
