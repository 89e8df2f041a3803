//! Data set folders that users write, and every way in which they can be invalid.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use dpq_data::{Dataset, Protocol, Source, Split};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

/// A gray 2x2 data set of 8 images in IDX files: classes 0 and 1 in turn.
struct Set {
    dir: TempDir,
    images: Vec<u8>,
    labels: Vec<u8>,
    rest: String,
}

impl Set {
    fn new() -> Self {
        let images =
            [&[0, 0, 8, 3, 0, 0, 0, 8, 0, 0, 0, 2, 0, 0, 0, 2][..], &(0..32).collect::<Vec<u8>>()].concat();
        let labels = [&[0, 0, 8, 1, 0, 0, 0, 8][..], &[0, 1, 0, 1, 0, 1, 0, 1]].concat();
        let rest = "[protocol]\nqueries_per_class = 1\ntrain_per_class = 2\nseed = 1\n".to_owned();
        Self { dir: TempDir::new().unwrap(), images, labels, rest }
    }

    fn splits(query: &str, train: &str) -> Self {
        let set = Self::new();
        fs::write(set.dir.path().join("query"), query).unwrap();
        fs::write(set.dir.path().join("train"), train).unwrap();
        let file = |name, text: &str| {
            format!("{name} = {{ file = \"{name}\", sha256 = \"{}\" }}\n", sha(text.as_bytes()))
        };
        Self { rest: format!("[splits]\n{}{}", file("query", query), file("train", train)), ..set }
    }

    fn write(&self) -> &Path {
        let dir = self.dir.path();
        fs::write(dir.join("images"), &self.images).unwrap();
        fs::write(dir.join("labels"), &self.labels).unwrap();
        let mut text =
            "name = \"toy\"\nclasses = [\"even\", \"odd\"]\n[shape]\nchannels = 1\nheight = 2\nwidth = 2\n\
            [images]\nformat = \"idx\"\n[[images.parts]]\n"
                .to_owned();
        for (name, bytes) in [("images", &self.images), ("labels", &self.labels)] {
            writeln!(text, "{name} = {{ file = \"{name}\", sha256 = \"{}\" }}", sha(bytes)).unwrap();
        }
        fs::write(dir.join("dataset.toml"), text + &self.rest).unwrap();
        dir
    }

    fn error(&self) -> String {
        Dataset::open(self.write()).unwrap_err().to_string()
    }
}

fn sha(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[track_caller]
fn assert_contains(error: &str, text: &str) {
    assert!(error.contains(text), "{error}");
}

#[test]
fn splits_are_drawn_or_read() {
    let drawn = Dataset::open(Set::new().write()).unwrap();
    let sizes = [Split::Query, Split::Train, Split::Gallery].map(|split| drawn.split(split).len());
    assert_eq!(sizes, [2, 4, 2]);
    let read = Dataset::open(Set::splits("3\n0\n", "1\n2\n").write()).unwrap();
    assert_eq!(read.split(Split::Query), [0, 3]);
    assert_eq!(read.split(Split::Train), [1, 2]);
    assert_eq!(read.split(Split::Gallery), [4, 5, 6, 7]);
}

#[test]
fn splits_are_drawn_by_a_given_protocol_unless_they_are_in_files() {
    let protocol = Protocol { queries: 3, train: 4, per_class: false, unseen_classes: 0, seed: 5 };
    let set = Set::new();
    let drawn = Dataset::open_drawn(set.write(), protocol).unwrap();
    let sizes = [Split::Query, Split::Train, Split::Gallery].map(|split| drawn.split(split).len());
    assert_eq!(sizes, [3, 4, 1]);
    assert_eq!(
        Source::open(set.dir.path()).unwrap().protocol,
        Some(Protocol { queries: 1, train: 2, per_class: true, unseen_classes: 0, seed: 1 })
    );
    let without = Set { rest: String::new(), ..Set::new() };
    assert_eq!(
        Dataset::open_drawn(without.write(), protocol).unwrap().split(Split::Query),
        drawn.split(Split::Query)
    );
    assert_eq!(Source::open(without.dir.path()).unwrap().protocol, None);

    let written = Dataset::open_drawn(Set::splits("3\n0\n", "1\n2\n").write(), protocol);
    assert_contains(&written.unwrap_err().to_string(), "has [splits], remove it");
    let huge = Protocol { queries: usize::MAX, ..protocol };
    assert_contains(
        &Dataset::open_drawn(set.dir.path(), huge).unwrap_err().to_string(),
        "lower these numbers",
    );
}

#[test]
fn unseen_classes_have_no_training_image_and_are_all_that_is_ranked() {
    let set = Set::new();
    let other = TempDir::new().unwrap();
    let open = |protocol: &str| {
        let source = set.write().join("dataset.toml");
        let text = format!(
            "name = \"unseen\"\nshape = {{ channels = 3, height = 4, width = 4 }}\n[images]\nformat = \"set\"\n\
            source = {{ file = {source:?} }}\n[protocol]\n{protocol}"
        );
        fs::write(other.path().join("dataset.toml"), text).unwrap();
        Dataset::open(other.path())
    };
    let rows = |dataset: &Dataset| {
        [Split::Query, Split::Train, Split::Gallery].map(|split| dataset.split(split).to_vec())
    };
    let mut unseen = [false; 2];
    for seed in 0..8 {
        let per_class =
            format!("queries_per_class = 1\ntrain_per_class = 3\nunseen_classes = 1\nseed = {seed}");
        let dataset = open(&per_class).unwrap();
        assert_eq!(dataset.shape().to_string(), "3x4x4", "the images of the other set, resized");
        let [query, train, gallery] = rows(&dataset);
        assert_eq!([query.len(), train.len(), gallery.len()], [1, 3, 3]);
        let class = query[0] % 2;
        assert!(query.iter().chain(&gallery).all(|row| row % 2 == class) && !gallery.contains(&query[0]));
        assert!(train.iter().all(|row| row % 2 != class));
        assert_eq!(dataset.trained_classes(), [1 - class]);
        unseen[class as usize] = true;
        let totals = open(&per_class.replace("_per_class", "")).unwrap();
        assert_eq!(rows(&totals).map(|rows| rows.len()), [1, 3, 3]);
    }
    assert_eq!(unseen, [true, true], "the seed decides which");
    let error = |protocol: &str| open(protocol).unwrap_err().to_string();
    assert_contains(&error("queries = 1\ntrain = 1\nunseen_classes = 2\nseed = 1"), "2 unseen classes of 2");
    let greedy = "queries = 1\ntrain = 5\nunseen_classes = 1\nseed = 1";
    assert_contains(
        &error(greedy),
        "the set of seen classes has 4 images, the protocol takes 0 queries and 5",
    );
    let itself = format!("[images]\nformat = \"set\"\nsource = {{ file = {:?} }}\n", "dataset.toml");
    let shape = "name = \"itself\"\nshape = { channels = 1, height = 2, width = 2 }\n";
    fs::write(other.path().join("dataset.toml"), format!("{shape}{itself}")).unwrap();
    assert_contains(&Dataset::open(other.path()).unwrap_err().to_string(), "images of another data set");

    // Files of splits may name the gallery, and then rows may be left over.
    let mut files = Set::splits("0\n", "1\n3\n");
    fs::write(files.dir.path().join("gallery"), "2\n4\n").unwrap();
    files.rest += "gallery = { file = \"gallery\" }\n";
    assert_eq!(rows(&Dataset::open(files.write()).unwrap()), [vec![0], vec![1, 3], vec![2, 4]]);
    fs::write(files.dir.path().join("gallery"), "0\n").unwrap();
    assert_contains(&files.error(), "row 0 is in the query split and again in the gallery split");
}

#[test]
fn impossible_splits_are_refused() {
    assert_contains(
        &Set::splits("0\n", "0\n1\n").error(),
        "row 0 is in the query split and again in the train split",
    );
    assert_contains(
        &Set::splits("0\n0\n", "1\n2\n").error(),
        "row 0 is in the query split and again in the query split",
    );
    assert_contains(
        &Set::splits("8\n", "1\n2\n").error(),
        "the query split has row 8, the data set has 8 rows",
    );
    assert_contains(&Set::splits("0\n", "2\n4\n").error(), "class `odd` has no training image");
    assert_contains(&Set::splits("", "1\n2\n").error(), "the query split is empty");
    assert_contains(&Set::splits("0\n3\n5\n7\n4\n6\n", "1\n2\n").error(), "the gallery split is empty");
    assert_contains(&Set::splits("0\nx\n", "1\n2\n").error(), "line 2: `x` is not a row number");
    let greedy = Set { rest: Set::new().rest.replace("= 2", "= 4"), ..Set::new() };
    assert_contains(
        &greedy.error(),
        "class `even` has 4 images, the protocol takes 1 queries and 4 training images",
    );
    assert_contains(&Set { rest: String::new(), ..Set::new() }.error(), "no splits, add [splits]");
}

#[test]
fn splits_of_other_images_are_refused() {
    let set = Set::splits("3\n0\n", "1\n2\n");
    let of = |items: &str| Set { dir: TempDir::new().unwrap(), rest: set.rest.clone() + items, ..Set::new() };
    for (items, message) in
        [("items = 8\n", None), ("items = 9\n", Some("the splits are of 9 images, the set has 8"))]
    {
        let other = of(items);
        for name in ["query", "train"] {
            fs::copy(set.dir.path().join(name), other.dir.path().join(name)).unwrap();
        }
        let opened = Dataset::open(other.write());
        match message {
            None => assert_eq!(opened.unwrap().split(Split::Query), [0, 3]),
            Some(message) => assert_contains(&opened.unwrap_err().to_string(), message),
        }
    }

    // The list has a checksum, and its names have another one.
    let dir = TempDir::new().unwrap();
    let open = |list: &str, top: &str, splits: &str| {
        let text = format!(
            "name = \"mine\"\nshape = {{ channels = 1, height = 2, width = 2 }}\n\
            images = {{ format = \"list\", path = \"list\"{top} }}\n\
            splits = {{ query = {{ file = \"query\" }}, train = {{ file = \"train\" }}{splits} }}\n"
        );
        fs::write(dir.path().join("dataset.toml"), text).unwrap();
        fs::write(dir.path().join("list"), list).unwrap();
        fs::write(dir.path().join("query"), "0\n").unwrap();
        fs::write(dir.path().join("train"), "1\n").unwrap();
        Dataset::open(dir.path())
    };
    let list = "a/0.png x\n./1.png x\n2.png x\n";
    let names = open(list, "", "").unwrap().names_sha256(dir.path()).unwrap();
    assert_eq!(names, sha(b"/a/0.png\n/1.png\n/2.png\n"));
    let names = format!(", items = 3, names_sha256 = \"{names}\"");
    let sum = format!(", sha256 = \"{}\"", sha(list.as_bytes()));
    open(list, &sum, &names).unwrap();
    let other = "1.png x\na/0.png x\n2.png x\n";
    assert_contains(
        &open(other, "", &names).unwrap_err().to_string(),
        "of other names or another order, bring the images back",
    );
    assert_contains(&open(other, &sum, "").unwrap_err().to_string(), "list: its sha256 is");
}

#[test]
fn damaged_files_are_refused_by_name() {
    let set = Set::new();
    set.write();
    fs::write(set.dir.path().join("images"), &set.images[1..]).unwrap();
    let error = Dataset::open(set.dir.path()).unwrap_err().to_string();
    assert_contains(&error, "its sha256 is");
    assert_contains(&error, "get the file again from its source");
    fs::remove_file(set.dir.path().join("labels")).unwrap();
    fs::write(set.dir.path().join("images"), &set.images).unwrap();
    assert_contains(
        &Dataset::open(set.dir.path()).unwrap_err().to_string(),
        "no such file, run `dpq data get` on its folder",
    );

    let mut fewer = Set::new();
    fewer.labels = [&[0, 0, 8, 1, 0, 0, 0, 7][..], &[0, 1, 0, 1, 0, 1, 0]].concat();
    assert_contains(&fewer.error(), "labels of shape [7] for 8 images");
    let mut beyond = Set::new();
    *beyond.labels.last_mut().unwrap() = 2;
    assert_contains(&beyond.error(), "class 2, dataset.toml names 2 classes, counted from 0");
    let mut other = Set::new();
    other.images[11] = 4;
    other.images[15] = 1;
    assert_contains(&other.error(), "an array of shape [8, 4, 1], dataset.toml says images of 1x2x2");
    let mut short = Set::new();
    short.images.pop();
    assert_contains(&short.error(), "claims 32 bytes, 31 follow");
}

#[test]
fn invalid_manifests_are_refused_with_the_reason() {
    let unknown = Set { rest: Set::new().rest + "colour = 3\n", ..Set::new() };
    assert_contains(&unknown.error(), "dataset.toml: line 16: unknown field `colour`");
    assert!(!unknown.error().contains('\n'));
    let dir = TempDir::new().unwrap();
    let error = Dataset::open(dir.path()).unwrap_err().to_string();
    assert_contains(&error, "dataset.toml: no such file, expected a folder with a file dataset.toml");
}

#[test]
fn folders_and_lists_become_data_sets() {
    let dir = TempDir::new().unwrap();
    for class in ["a", "b"] {
        fs::create_dir_all(dir.path().join("images").join(class)).unwrap();
        for i in 0..4 {
            image::GrayImage::new(3, 3).save(dir.path().join(format!("images/{class}/{i}.png"))).unwrap();
        }
    }
    let manifest = "name = \"mine\"\nshape = { channels = 3, height = 5, width = 5 }\n\
        images = { format = \"folder\", path = \"images\" }\n\
        protocol = { queries_per_class = 1, train_per_class = 1, seed = 3 }\n";
    fs::write(dir.path().join("dataset.toml"), manifest).unwrap();
    let dataset = Dataset::open(dir.path()).unwrap();
    assert_eq!((dataset.name(), dataset.split(Split::Gallery).len()), ("mine", 4));

    fs::write(dir.path().join("list"), "images/a/0.png x y\nimages/b/0.png y\n").unwrap();
    let manifest = manifest.replace("\"folder\", path = \"images\"", "\"list\", path = \"list\"");
    fs::write(dir.path().join("dataset.toml"), manifest).unwrap();
    assert_contains(
        &Dataset::open(dir.path()).unwrap_err().to_string(),
        "numbers of each class need one class per image, row 0 has 2",
    );
}

#[test]
fn classes_of_the_manifest_order_those_of_a_list() {
    let dir = TempDir::new().unwrap();
    let open = |classes: &str, list: &str| {
        let text = format!(
            "name = \"mine\"\nclasses = {classes}\nshape = {{ channels = 1, height = 2, width = 2 }}\n\
            images = {{ format = \"list\", path = \"list\" }}\n\
            splits = {{ query = {{ file = \"query\" }}, train = {{ file = \"train\" }} }}\n"
        );
        fs::write(dir.path().join("dataset.toml"), text).unwrap();
        fs::write(dir.path().join("list"), list).unwrap();
        Dataset::open(dir.path())
    };
    fs::write(dir.path().join("query"), "0\n").unwrap();
    fs::write(dir.path().join("train"), "1\n3\n").unwrap();

    let list = "0.png dog\n1.png 1 cat\n2.png dog 0\n3.png 0\n";
    let dataset = open("[\"dog\", \"cat\"]", list).unwrap();
    assert_eq!(dataset.class_names(), ["dog", "cat"]);
    let labels: Vec<_> = (0..4).map(|row| dataset.labels(row)).collect();
    assert_eq!(labels, [&[0][..], &[1], &[0], &[0]], "a class is a name or an index");
    assert_eq!(dataset.split(Split::Gallery), [2]);

    let error = |classes: &str, list: &str| open(classes, list).unwrap_err().to_string();
    assert_contains(
        &error("[\"dog\"]", list),
        "an image has class `1`, expected one of the 1 of dataset.toml",
    );
    assert_contains(&error("[\"dog\", \"cat\", \"cow\"]", list), "class `cow` has no training image");
    assert_contains(&error("[\"dog\", \"cat\", \"dog\"]", list), "class `dog` is named twice");
    assert_contains(
        &error("[\"dog\", \"cat\"]", "0.png dog\n0.png cat\n"),
        "list: line 2: `0.png` is on line 1 too",
    );
}
