//! Lists in the forms that are common in hashing research: a list per split, multi-hot, training
//! images in the gallery.

use std::fs;
use std::path::Path;

use dpq_data::{Dataset, Source, Split};
use image::{GrayImage, Luma};
use tempfile::TempDir;

const QUERY: &str = "a/0.png 1 0 0\n";
const TRAIN: &str = "a/1.png 0 1 1\na/2.png 1 0 0\n";
const GALLERY: &str = "a/3.png 0 0 1\n./a/1.png 0 1 1\na/2.png 1 0 0\n";

/// Opens three lists of images under the folder `pixels`.
fn open(dir: &Path, lists: [&str; 3], top: &str) -> Result<Dataset, dpq_data::Error> {
    open_with(dir, lists, top, "classes = [\"sky\", \"water\", \"person\"]")
}

fn open_without_classes(dir: &Path, lists: [&str; 3]) -> Result<Dataset, dpq_data::Error> {
    open_with(dir, lists, "", "")
}

fn open_with(
    dir: &Path,
    [query, train, gallery]: [&str; 3],
    top: &str,
    classes: &str,
) -> Result<Dataset, dpq_data::Error> {
    let text = format!(
        "name = \"lists\"\n{classes}\n{top}\n\
        shape = {{ channels = 1, height = 2, width = 2 }}\n\
        [images]\nformat = \"lists\"\nroot = \"pixels\"\nlabels = \"multi-hot\"\n\
        query = {{ file = \"q.txt\" }}\ntrain = {{ file = \"t.txt\" }}\ngallery = {{ file = \"g.txt\" }}\n"
    );
    fs::write(dir.join("dataset.toml"), text).unwrap();
    for (name, list) in [("q.txt", query), ("t.txt", train), ("g.txt", gallery)] {
        fs::write(dir.join(name), list).unwrap();
    }
    Dataset::open(dir)
}

const SHARED: &str = "train_in_gallery = true";

#[test]
fn training_images_are_in_the_gallery_if_the_manifest_says_so() {
    let dir = TempDir::new().unwrap();
    fs::create_dir_all(dir.path().join("pixels/a")).unwrap();
    for i in 0..4 {
        GrayImage::from_pixel(2, 2, Luma([i])).save(dir.path().join(format!("pixels/a/{i}.png"))).unwrap();
    }
    let dataset = open(dir.path(), [QUERY, TRAIN, GALLERY], SHARED).unwrap();
    assert_eq!(dataset.class_names(), ["sky", "water", "person"]);
    let splits = [Split::Query, Split::Train, Split::Gallery].map(|split| dataset.split(split).to_vec());
    assert_eq!(splits, [vec![0], vec![1, 2], vec![1, 2, 3]]);
    assert_eq!(dataset.multi_hot(&[0, 1, 3]), [1, 0, 0, 0, 1, 1, 0, 0, 1]);
    let mut image = vec![0; 4];
    dataset.read(3, &mut image).unwrap();
    assert_eq!(image, [3; 4]);

    let disjoint = open(dir.path(), [QUERY, TRAIN, "a/3.png 0 0 1\n"], "").unwrap();
    assert_eq!(disjoint.split(Split::Gallery), [3]);
}

#[test]
fn lists_that_overlap_or_disagree_are_refused() {
    let dir = TempDir::new().unwrap();
    let says = |lists, top, text: &str| {
        let error = open(dir.path(), lists, top).unwrap_err().to_string();
        assert!(error.contains(text), "{error}");
    };
    says([QUERY, TRAIN, GALLERY], "", "`./a/1.png` is in the train list and again in the gallery list");
    says(
        [QUERY, TRAIN, "a/0.png 1 0 0\n"],
        SHARED,
        "`a/0.png` is in the query list and again in the gallery",
    );
    says([QUERY, QUERY, GALLERY], SHARED, "`a/0.png` is in the query list and again in the train list");
    says([QUERY, TRAIN, "a/1.png 0 0 1\n"], SHARED, "`a/1.png` has other classes in the gallery list");
    says([QUERY, TRAIN, "a/1.png 0 1 1\n"], SHARED, "the gallery list has 1 of the 2 training images");
    says([QUERY, "a/1.png 0 1 1\na/2.png 1 0\n", GALLERY], SHARED, "expected a 0 or 1 for each of 3 classes");
    says(["a/0.png 2 0 0\n", TRAIN, GALLERY], SHARED, "is followed by `2 0 0`");
    says(
        ["a/0.png 1 0 0 1\n", TRAIN, GALLERY],
        SHARED,
        "q.txt: line 1: `a/0.png` is followed by `1 0 0 1`, exp",
    );
    let error = open_without_classes(dir.path(), ["a/0.png 1 0 0 1\n", TRAIN, GALLERY]).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("t.txt: line 1: `a/1.png` is followed by `0 1 1`, expected a 0 or 1 for each of 4")
    );
}

#[test]
fn multi_hot_rows_of_zeros_are_images_without_a_class() {
    let dir = TempDir::new().unwrap();
    let train = "a/1.png 0 1 1\na/2.png 1 0 0\na/9.png 0 0 0\n";
    let dataset = open(dir.path(), ["a/0.png 0 0 0\n", train, "a/3.png 0 0 1\n"], "").unwrap();
    let classes: Vec<_> = (0..dataset.len()).map(|row| dataset.labels(row).to_vec()).collect();
    assert_eq!(classes, [vec![], vec![1, 2], vec![0], vec![], vec![2]]);
    assert_eq!(dataset.multi_hot(&[0, 4]), [0, 0, 0, 0, 0, 1]);
}

#[test]
fn columns_are_classes_by_their_places() {
    let dir = TempDir::new().unwrap();
    let dataset = open_without_classes(dir.path(), [QUERY, TRAIN, "a/3.png 0 0 1\n"]).unwrap();
    assert_eq!(dataset.class_names(), ["0", "1", "2"]);
    let digits =
        open_with(dir.path(), [QUERY, TRAIN, "a/3.png 0 0 1\n"], "", "classes = [\"2\", \"0\", \"1\"]");
    let digits = digits.unwrap();
    assert_eq!(digits.class_names(), ["2", "0", "1"]);
    let rows: Vec<u32> = (0..4).collect();
    assert_eq!(digits.multi_hot(&rows), [1, 0, 0, 0, 1, 1, 1, 0, 0, 0, 0, 1]);
    assert_eq!(digits.multi_hot(&rows), dataset.multi_hot(&rows));
    // A column of zeros is a class too, and no training image has it.
    let error = open_without_classes(dir.path(), [QUERY, "a/1.png 0 0 1\n", "a/3.png 0 0 1\n"]).unwrap_err();
    assert!(error.to_string().contains("class `0` has no training image"), "{error}");
}

#[test]
fn numbers_in_all_draw_from_images_of_several_classes() {
    let dir = TempDir::new().unwrap();
    let list: String = (0..40).map(|i| format!("{i}.png {}\n", ["0 1", "1 1", "1 0"][i % 3])).collect();
    let open = |protocol: &str| {
        let text = format!(
            "name = \"one list\"\nshape = {{ channels = 1, height = 2, width = 2 }}\ntrain_in_gallery = true\n\
            images = {{ format = \"list\", path = \"lists/all.txt\", root = \".\", labels = \"multi-hot\" }}\n\
            protocol = {{ {protocol}, seed = 1 }}\n"
        );
        fs::create_dir_all(dir.path().join("lists")).unwrap();
        fs::write(dir.path().join("lists/all.txt"), &list).unwrap();
        fs::write(dir.path().join("dataset.toml"), text).unwrap();
        Dataset::open(dir.path())
    };
    let dataset = open("queries = 5, train = 20").unwrap();
    assert_eq!(dataset.path(7).unwrap(), dir.path().join("./7.png"));
    let [query, train, gallery] =
        [Split::Query, Split::Train, Split::Gallery].map(|split| dataset.split(split));
    assert_eq!((query.len(), train.len(), gallery.len()), (5, 20, 35));
    assert!(query.iter().all(|row| !train.contains(row) && !gallery.contains(row)));
    assert!(train.iter().all(|row| gallery.contains(row)));

    let error = |protocol| open(protocol).unwrap_err().to_string();
    assert!(error("queries = 30, train = 11").contains("the data set has 40 images"));
    assert!(error("queries = 5, train_per_class = 1").contains("expected `queries_per_class` and"));
    assert!(
        error("queries_per_class = 5, train_per_class = 1").contains("need one class per image, row 1 has 2")
    );
}

#[test]
fn the_data_sets_of_this_repository_state_their_origin() {
    let datasets = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../datasets");
    let mut n = 0;
    for entry in fs::read_dir(datasets).unwrap() {
        let dir = entry.unwrap().path();
        if !dir.is_dir() {
            continue;
        }
        n += 1;
        let source = Source::open(&dir).unwrap();
        assert_eq!(source.shipped, dir.file_name().unwrap().to_string_lossy().starts_with("fashion-"));
        assert!(source.origin.is_some() && source.licence.is_some(), "{}", source.name);
        for file in source.files {
            let name = file.path.display();
            assert!(
                file.path.exists() || file.url.is_some() || source.instructions.is_some(),
                "{name} is not here, and nothing says where it is"
            );
            if file.path.exists() {
                file.check(&fs::read(&file.path).unwrap()).unwrap();
            }
        }
    }
    assert_eq!(n, 7);
}
