//! Data sets through the command: checks, splits, and images that cannot be read.

#![allow(clippy::unwrap_used, reason = "a test that fails may panic")]

mod common;

use std::fs;
use std::path::Path;

use common::{dpq, error, images, json};
use dpq_data::sha256;
use dpq_formats::npy;
use tempfile::TempDir;

#[test]
fn the_data_inside_the_repository_is_verified() {
    let datasets = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../datasets");
    for (name, files, images, gallery) in
        [("fashion-mnist", 6, 70_000, 64_000), ("fashion-collage", 1, 26_000, 20_000)]
    {
        let found = json(&datasets, &format!("data verify {name}"));
        let number = |key: &str| found[key].as_u64().unwrap();
        assert_eq!((number("files"), number("files_without_checksum")), (files, 0));
        assert_eq!((number("images"), number("classes")), (images, 10));
        assert_eq!((number("train"), number("query"), number("gallery")), (5000, 1000, gallery));
        assert_eq!(number("equal_across_splits"), 0);
        let got = json(&datasets, &format!("data get {name}"));
        assert!(got["files"].as_array().unwrap().iter().all(|file| file["downloaded"] == false));
    }
}

#[test]
fn verify_counts_equal_images_and_names_those_that_cannot_be_read() {
    let dir = TempDir::new().unwrap();
    let dir = dir.path();
    images(dir);
    let found = json(dir, "data verify set");
    assert_eq!((&found["images"], &found["equal_across_splits"]), (&60.into(), &0.into()));
    // Twenty equal images of a class: two queries, eight training images, ten in the gallery.
    for i in 1..20 {
        fs::copy(dir.join("set/images/end/00.png"), dir.join(format!("set/images/end/{i:02}.png"))).unwrap();
    }
    assert_eq!(json(dir, "data verify set")["equal_across_splits"], 18);

    fs::write(dir.join("set/images/top/03.png"), "no image").unwrap();
    fs::write(dir.join("set/images/top/05.png"), "").unwrap();
    let output = dpq(dir, "data verify set");
    let stderr = String::from_utf8(output.stderr).unwrap();
    let lines: Vec<&str> = stderr.lines().collect();
    assert_eq!((output.status.code(), lines.len()), (Some(1), 3), "{stderr}");
    assert!(
        lines[0].starts_with("unreadable: set/images/top/03.png cannot be read as an image: "),
        "{stderr}"
    );
    assert!(lines[1].starts_with("unreadable: set/images/top/05.png cannot"), "{stderr}");
    assert_eq!(lines[2], "error: 2 of 60 images cannot be read, get them again");
}

#[test]
fn skipped_files_and_images_without_a_class_are_counted() {
    let dir = TempDir::new().unwrap();
    let dir = dir.path();
    images(dir);
    fs::rename(dir.join("set/images/end/00.png"), dir.join("set/images/end/00.JFIF")).unwrap();
    for file in ["end/a.avif", "top/b.txt", "top/c.TXT", "top/.hidden"] {
        fs::write(dir.join("set/images").join(file), "").unwrap();
    }
    let found = json(dir, "data verify set");
    assert_eq!((&found["images"], &found["without_class"]), (&60.into(), &0.into()));
    assert_eq!(found["skipped"], serde_json::json!({ ".avif": 1, ".txt": 2 }));
    let output = dpq(dir, "data export --data set --split query --out-dir pixels");
    let skipped = "skipped files that are not PNG, JPEG, WebP, GIF, BMP or TIFF: 1 .avif, 2 .txt\n";
    assert_eq!(String::from_utf8(output.stderr).unwrap(), format!("bands: {skipped}"));
    assert!(String::from_utf8(dpq(dir, "data verify set").stdout).unwrap().contains(skipped));

    let line = |i: u32| format!("images/top/{i:02}.png {}\n", ["1 0", "0 0", "0 1"][i as usize % 3]);
    fs::write(dir.join("set/list.txt"), (0..12).map(line).collect::<String>()).unwrap();
    let list = "name = \"zeros\"\nshape = { channels = 1, height = 9, width = 9 }\n\
        images = { format = \"list\", path = \"list.txt\", labels = \"multi-hot\" }\n\
        protocol = { queries = 2, train = 8, seed = 1 }\n";
    fs::write(dir.join("set/dataset.toml"), list).unwrap();
    let found = json(dir, "data verify set");
    assert_eq!(
        (&found["images"], &found["classes"], &found["without_class"]),
        (&12.into(), &2.into(), &4.into())
    );
    let trained =
        json(dir, "train --data set --out run --preset quick --set epochs=1 --set quantizer.codewords=4");
    let (images, left_out) = (trained["images"].as_u64().unwrap(), trained["left_out"].as_u64().unwrap());
    assert!(left_out > 0 && images + left_out == 8, "images without a class teach nothing: {trained}");
}

#[test]
fn shipped_images_that_are_in_two_splits_are_an_error() {
    let dir = TempDir::new().unwrap();
    let dir = dir.path();
    let [mut pixels, labels] = [
        vec![0, 0, 8, 3, 0, 0, 0, 6, 0, 0, 0, 1, 0, 0, 0, 1],
        vec![0, 0, 8, 1, 0, 0, 0, 6, 0, 0, 0, 0, 0, 0],
    ];
    pixels.extend([10, 11, 12, 13, 14, 15]);
    let write = |pixels: &[u8]| {
        let text = format!(
            "name = \"s\"\nclasses = [\"a\"]\nshape = {{ channels = 1, height = 1, width = 1 }}\n\
            [images]\nformat = \"idx\"\n[[images.parts]]\nimages = {{ file = \"i\", sha256 = \"{}\" }}\n\
            labels = {{ file = \"l\", sha256 = \"{}\" }}\n[protocol]\nqueries = 2\ntrain = 2\nseed = 1\n",
            sha256(pixels),
            sha256(&labels)
        );
        fs::write(dir.join("dataset.toml"), text).unwrap();
        fs::write(dir.join("i"), pixels).unwrap();
        fs::write(dir.join("l"), &labels).unwrap();
    };
    write(&pixels);
    assert_eq!(json(dir, "data verify .")["equal_across_splits"], 0);
    pixels[16..].fill(10);
    write(&pixels);
    assert!(error(dir, "data verify .", 1).contains("4 images equal an image in another split"));
}

#[test]
fn splits_are_written_once_and_then_used() {
    let dir = TempDir::new().unwrap();
    let dir = dir.path();
    images(dir);
    let before = json(dir, "data export --data set --split query --out-dir before");
    let small = json(dir, "data export --data set --split query --max-values 30 --out-dir small");
    assert_eq!((&small["shape"], &small["dim"]), (&serde_json::json!([1, 5, 5]), &25.into()));
    assert_eq!(before["shape"], serde_json::json!([1, 9, 9]));
    let text = String::from_utf8(dpq(dir, "data split set").stdout).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[..2], ["[splits]", "items = 60"]);
    assert!(lines[2].starts_with("names_sha256 = \""), "{text}");
    assert!(lines[3].starts_with("query = { file = \"splits/query.txt\", sha256 = \""), "{text}");
    let rows = |split: &str| -> Vec<u32> {
        let text = fs::read_to_string(dir.join(format!("set/splits/{split}.txt"))).unwrap();
        text.lines().map(|line| line.parse().unwrap()).collect()
    };
    let mut all = [rows("query"), rows("train"), rows("gallery")];
    assert_eq!(all.each_ref().map(Vec::len), [6, 24, 30]);
    let queries = all[0].clone();
    let mut union = all.iter_mut().flat_map(|rows| rows.drain(..)).collect::<Vec<_>>();
    union.sort_unstable();
    assert!(union.into_iter().eq(0..60), "every row is in exactly one");

    assert!(error(dir, "data split set", 1).contains("query.txt exists and is not overwritten"));
    let manifest = fs::read_to_string(dir.join("set/dataset.toml")).unwrap();
    fs::write(dir.join("set/dataset.toml"), manifest.clone() + &text).unwrap();
    assert!(error(dir, "data split set", 1).contains("has [splits], remove it"));
    let after = json(dir, "data export --data set --split query --out-dir after");
    assert_eq!(before["items"], after["items"]);
    let bytes = |run: &str| fs::read(dir.join(run).join("ids.npy")).unwrap();
    assert_eq!(bytes("before"), bytes("after"), "the same seed draws the same");
    let verified = json(dir, "data verify set");
    for split in ["query", "train", "gallery"] {
        let rows = fs::read(dir.join(format!("set/splits/{split}.txt"))).unwrap();
        assert_eq!(verified["splits_sha256"][split], sha256(&rows));
    }
    let (from, to) = (dir.join("set/images/end/00.png"), dir.join("set/images/end/99.png"));
    fs::rename(&from, &to).unwrap();
    assert!(error(dir, "data verify set", 1).contains("the splits are of images of other names"));
    fs::remove_file(&to).unwrap();
    assert!(error(dir, "data verify set", 1).contains("the splits are of 60 images, the set has 59"));
    fs::copy(dir.join("set/images/end/01.png"), from).unwrap();

    fs::write(dir.join("set/dataset.toml"), manifest).unwrap();
    fs::remove_dir_all(dir.join("set/splits")).unwrap();
    let drawn = json(dir, "data split set --n-queries 4 --n-train 9 --seed 7");
    assert_eq!((&drawn["seed"], &drawn["files"][2]["rows"]), (&7.into(), &47.into()));
    assert_ne!(rows("query"), queries);
    let bytes = fs::read(dir.join("set/splits/train.txt")).unwrap();
    assert_eq!(drawn["files"][1]["sha256"], sha256(&bytes));
}

#[test]
fn a_network_is_judged_on_classes_that_it_has_not_seen() {
    let dir = TempDir::new().unwrap();
    let dir = dir.path();
    images(dir);
    let drawn = json(dir, "data split set --unseen-classes 1 --seed 2 --out-dir unseen");
    let numbers = ["train", "query", "gallery"].map(|key| drawn[key].as_u64().unwrap());
    assert_eq!(numbers, [16, 2, 18]);
    assert!(
        error(dir, "data split set --unseen-classes 1 --out-dir unseen", 1).contains("is not overwritten")
    );
    assert_eq!(json(dir, "data verify unseen")["gallery"], 18);
    let options = "--preset quick --set epochs=1 --set quantizer.codewords=4";
    assert_eq!(json(dir, &format!("train --data unseen --out run {options}"))["images"], 16);
    let encode =
        "encode --model run/model.safetensors --data unseen --split gallery --posteriors --out-dir g";
    assert!(json(dir, encode)["accuracy"].is_null(), "no class of the gallery is known");
    let shape = npy::read_matrix::<u8>(dir.join("g/labels.npy")).unwrap();
    assert_eq!((shape.rows, shape.columns), (18, 3));
    let posteriors = dpq_formats::read_features(dir.join("g/posteriors.npy")).unwrap();
    assert_eq!((posteriors.rows, posteriors.columns), (18, 2), "two classes were learnt");
    assert!(posteriors.values.chunks(2).all(|p| (p[0] + p[1] - 1.0).abs() < 1e-6));
    let results = json(dir, "report run --baselines");
    assert!(results["accuracy"].is_null() && results["baselines"].as_array().unwrap().len() == 4);
}

#[test]
fn images_that_cannot_be_read_are_left_out_and_rows_stay_together() {
    let dir = TempDir::new().unwrap();
    let dir = dir.path();
    images(dir);
    let config = String::from_utf8(dpq(dir, "train --print-config --preset quick").stdout).unwrap();
    let config = config.replace("epochs = 12", "epochs = 2").replace("codewords = 256", "codewords = 8");
    fs::write(dir.join("c.toml"), config).unwrap();
    let whole = json(dir, "train --data set --out run --config c.toml");
    assert_eq!(
        (&whole["images"], &whole["left_out"], &whole["embeddings"]),
        (&24.into(), &0.into(), &"seeded".into())
    );
    let encode = "encode --model run/model.safetensors";
    json(dir, &format!("{encode} --images set/images --out-dir all"));
    json(dir, &format!("{encode} --data set --split train --out-dir train"));

    // Half of a PNG, no PNG, and a JPEG without its last bytes.
    let png = fs::read(dir.join("set/images/end/00.png")).unwrap();
    fs::write(dir.join("set/images/end/00.png"), &png[..png.len() / 2]).unwrap();
    fs::write(dir.join("set/images/middle/19.png"), "no image").unwrap();
    let mut jpeg = std::io::Cursor::new(vec![]);
    image::GrayImage::new(9, 9).write_to(&mut jpeg, image::ImageFormat::Jpeg).unwrap();
    let jpeg = jpeg.into_inner();
    fs::write(dir.join("set/images/top/07.png"), &jpeg[..jpeg.len() - 4]).unwrap();
    let folder = json(dir, &format!("{encode} --images set/images --out-dir some"));
    assert_eq!((&folder["items"], &folder["left_out"]), (&57.into(), &3.into()));
    let lines = |run: &str| -> Vec<String> {
        let text = fs::read_to_string(dir.join(run).join("names.txt")).unwrap();
        text.lines().map(str::to_owned).collect()
    };
    let bytes = |path: &str| fs::read(dir.join(path)).unwrap()[128..].to_vec();
    // Returns the rows of an array as bytes, without those in `out`.
    let without = |path: &str, n: usize, out: &[usize]| -> Vec<u8> {
        let values = bytes(path);
        let rows = values.chunks(values.len() / n).enumerate();
        rows.filter(|(row, _)| !out.contains(row)).flat_map(|(_, bytes)| bytes.to_vec()).collect()
    };
    let out = [0, 39, 47];
    let names = lines("all");
    let kept: Vec<_> = (0..60).filter(|row| !out.contains(row)).map(|row| names[row].clone()).collect();
    assert_eq!(lines("some"), kept, "names.txt tells which");
    for array in ["codes", "features", "labels"] {
        let expected = without(&format!("all/{array}.npy"), 60, &out);
        assert!(bytes(&format!("some/{array}.npy")) == expected, "{array}");
    }
    let positions: Vec<u8> = (0..57u64).flat_map(u64::to_le_bytes).collect();
    assert_eq!(bytes("some/ids.npy"), positions, "line i of names.txt is id i");

    let ids = bytes("train/ids.npy");
    let ids: Vec<u64> = ids.chunks(8).map(|id| u64::from_le_bytes(id.try_into().unwrap())).collect();
    let out: Vec<usize> = (0..24).filter(|&i| out.contains(&(ids[i] as usize))).collect();
    assert!(!out.is_empty(), "the seed puts one of the three into the training split");
    let split = json(dir, &format!("{encode} --data set --split train --out-dir some-train"));
    assert_eq!(split["left_out"], out.len());
    for array in ["codes", "features", "labels", "ids"] {
        let expected = without(&format!("train/{array}.npy"), 24, &out);
        assert!(bytes(&format!("some-train/{array}.npy")) == expected, "{array}");
    }
    for (name, rows) in [("train", 24), ("query", 6), ("gallery", 30)] {
        let exported =
            json(dir, &format!("data export --data set --split {name} --out-dir some-{name}-pixels"));
        let n = exported["items"].as_u64().unwrap();
        assert_eq!(n + exported["left_out"].as_u64().unwrap(), rows);
        for (array, width) in [("features", 81 * 4), ("labels", 3), ("ids", 8)] {
            assert_eq!(bytes(&format!("some-{name}-pixels/{array}.npy")).len() as u64, width * n, "{array}");
        }
        assert_eq!(fs::read_dir(dir.join(format!("some-{name}-pixels"))).unwrap().count(), 3);
    }
    assert!(bytes("some-train-pixels/ids.npy") == bytes("some-train/ids.npy"));
    let trained = json(dir, "train --data set --out other --config c.toml");
    assert_eq!((&trained["images"], &trained["left_out"]), (&(24 - out.len()).into(), &out.len().into()));

    for command in [
        &format!("{encode} --images set/images --out-dir strict --strict"),
        &format!("{encode} --data set --split train --out-dir strict --strict"),
        "train --data set --out strict --config c.toml --strict",
        "data export --data set --split query --out-dir strict --strict",
    ] {
        let error = error(dir, command, 1);
        let is_named =
            error.contains(".png cannot be read as an image: ") || error.contains("07.png is cut off");
        assert!(is_named, "{command}: {error}");
    }
    fs::create_dir(dir.join("bad")).unwrap();
    fs::write(dir.join("bad/1.png"), "no image").unwrap();
    let none = dpq(dir, &format!("{encode} --images bad --out-dir none"));
    assert_eq!(none.status.code(), Some(1));
    assert!(String::from_utf8(none.stderr).unwrap().ends_with("none of the 1 images of bad can be read\n"));
}

#[test]
fn label_embeddings_come_from_a_file() {
    let dir = TempDir::new().unwrap();
    let dir = dir.path();
    images(dir);
    let config = String::from_utf8(dpq(dir, "train --print-config --preset quick").stdout).unwrap();
    let config = config
        .replace("epochs = 12", "epochs = 2")
        .replace("codewords = 256", "codewords = 8")
        .replace("dim = 300", "dim = 3");
    fs::write(dir.join("c.toml"), config).unwrap();
    let train = "train --data set --config c.toml --out";
    // Classes in the order of their names: end, middle, top.
    fs::write(dir.join("words.txt"), "Top 0 0 1\nof 0 0 0\nend 1 0 0\nmiddle 0 1 0.5\ntop 0 0 2\n").unwrap();
    let words = json(dir, &format!("{train} words --embeddings words.txt"));
    let mut npy =
        b"\x93NUMPY\x01\x00\x76\x00{'descr': '<f4', 'fortran_order': False, 'shape': (3, 3), }".to_vec();
    npy.resize(127, b' ');
    npy.push(b'\n');
    npy.extend([1.0f32, 0.0, 0.0, 0.0, 1.0, 0.5, 0.0, 0.0, 2.0].iter().flat_map(|x| x.to_le_bytes()));
    fs::write(dir.join("vectors.npy"), &npy).unwrap();
    let array = json(dir, &format!("{train} array --embeddings vectors.npy"));
    let seeded = json(dir, &format!("{train} seeded"));

    assert!(words["embeddings"].as_str().unwrap().starts_with("given, crc32c "));
    assert_eq!(
        (&words["embeddings"], &words["embeddings_file"]),
        (&array["embeddings"], &"words.txt".into())
    );
    assert_eq!(seeded["embeddings"], "seeded");
    let model = |run: &str| fs::read(dir.join(run).join("model.safetensors")).unwrap();
    assert!(model("words") == model("array"), "the same vectors from either file");
    assert_ne!(words["fingerprint"], seeded["fingerprint"]);
    let says = |run: &str| {
        let model = dpq_model::Model::open(dir.join(run).join("model.safetensors")).unwrap();
        model.embeddings().unwrap().to_owned()
    };
    assert_eq!([says("words"), says("seeded")], [words["embeddings"].as_str().unwrap(), "seeded"]);

    let says = |file: &str, text: &str| {
        let error = error(dir, &format!("{train} x --embeddings {file}"), 1);
        assert!(error.contains(text), "{error}");
    };
    fs::write(dir.join("few.txt"), "end 1 0 0\n").unwrap();
    says("few.txt", "few.txt: no vector for `middle`, `top`, rename these classes");
    fs::write(dir.join("short.txt"), "end 1 0\nmiddle 0 1\ntop 1 1\n").unwrap();
    says("short.txt", "vectors of 2 numbers, features have 3: give others or set `dim`");
    fs::write(dir.join("zero.txt"), "end 1 0 0\nmiddle 0 0 0\ntop 1 1 1\n").unwrap();
    says("zero.txt", "the vector of class 1 is 0 or not finite");
    fs::copy(dir.join("vectors.npy"), dir.join("v.bin")).unwrap();
    says("v.bin", "no vector for `end`, `middle`, `top`");
    let wide = String::from_utf8_lossy(&npy[6..128]).replace("(3, 3)", "(1, 9)");
    fs::write(
        dir.join("wide.npy"),
        [&npy[..6], &[1, 0, 0x76, 0], &wide.as_bytes()[4..], &npy[128..]].concat(),
    )
    .unwrap();
    says("wide.npy", "has 1 rows, expected one per class: 3");
}

#[test]
fn images_are_written_under_their_ids() {
    let dir = TempDir::new().unwrap();
    let dir = dir.path();
    images(dir);
    let written = json(dir, "data images --data set --ids 0,45 --out-dir found");
    assert_eq!(written["items"], 2);
    assert_eq!(written["classes"], serde_json::json!(["end", "middle", "top"]));
    for (id, file) in [("0", "end/00.png"), ("45", "top/05.png")] {
        let open = |path: std::path::PathBuf| image::open(path).unwrap().into_luma8();
        let (found, source) =
            (open(dir.join(format!("found/{id}.png"))), open(dir.join("set/images").join(file)));
        assert!(found == source, "{id}");
    }
    let error = error(dir, "data images --data set --ids 7,60 --out-dir found", 1);
    assert!(error.contains("bands has no id 60, expected 0 to 59"), "{error}");
    assert!(!dir.join("found/7.png").exists());

    let source = dir.join("set/images/end/0.png");
    fs::rename(dir.join("set/images/end/00.png"), &source).unwrap();
    let before = fs::read(&source).unwrap();
    let error = common::error(dir, "data images --data set --ids 0 --out-dir set/images/end", 1);
    assert!(error.contains("0.png is an input of this command and would be overwritten"), "{error}");
    assert_eq!(fs::read(source).unwrap(), before);
}
