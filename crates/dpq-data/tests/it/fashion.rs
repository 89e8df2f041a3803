//! Fashion-MNIST, which ships with the repository.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use dpq_data::{Dataset, ImageShape, Split};
use tempfile::TempDir;

static FASHION: LazyLock<Dataset> = LazyLock::new(|| Dataset::open(dir()).unwrap());

fn dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../datasets/fashion-mnist")
}

#[test]
fn fashion_mnist_opens_with_the_protocol_of_the_paper() {
    let dataset = &*FASHION;
    assert_eq!((dataset.name(), dataset.len(), dataset.n_classes()), ("Fashion-MNIST", 70_000, 10));
    assert_eq!(dataset.shape(), ImageShape { channels: 1, height: 28, width: 28 });
    let sizes = [(Split::Train, 5000), (Split::Query, 1000), (Split::Gallery, 64_000)];
    let mut owners = vec![0; dataset.len()];
    for (split, size) in sizes {
        let rows = dataset.split(split);
        assert_eq!(rows.len(), size, "{split}");
        assert!(rows.is_sorted_by(|a, b| a < b));
        rows.iter().for_each(|&row| owners[row as usize] += 1);
        for class in 0..10 {
            let n = rows.iter().filter(|&&row| dataset.labels(row as usize) == [class]).count();
            assert_eq!(n, size / 10, "{split} of class {class}");
        }
    }
    assert!(owners.iter().all(|&n| n == 1), "every image is in exactly one split");

    // The first image of the training file is an ankle boot.
    assert_eq!(dataset.labels(0), [9]);
    let mut image = vec![0; 784];
    dataset.read(0, &mut image).unwrap();
    assert_eq!(image.iter().map(|&pixel| u32::from(pixel)).sum::<u32>(), 76_247);
    assert_eq!(
        dataset.multi_hot(&[0, 1]),
        [[0, 0, 0, 0, 0, 0, 0, 0, 0, 1], [1, 0, 0, 0, 0, 0, 0, 0, 0, 0]].concat()
    );
}

/// Opens the data set by a changed `dataset.toml` that names the original files.
fn with_manifest(change: impl Fn(&str) -> String) -> Dataset {
    let text = fs::read_to_string(dir().join("dataset.toml")).unwrap();
    let text = text.replace("file = \"", &format!("file = \"{}/", dir().display()));
    let changed = TempDir::new().unwrap();
    fs::write(changed.path().join("dataset.toml"), change(&text)).unwrap();
    Dataset::open(changed.path()).unwrap()
}

#[test]
fn the_committed_splits_are_what_the_seed_draws() {
    let without_files = |text: &str| text.split_once("[splits]").unwrap().0.to_owned();
    let drawn = with_manifest(without_files);
    let splits = [Split::Train, Split::Query, Split::Gallery];
    splits.iter().for_each(|&split| assert_eq!(drawn.split(split), FASHION.split(split), "{split}"));

    let other = with_manifest(|text| without_files(text).replace("seed = 2", "seed = 3"));
    splits.iter().for_each(|&split| assert_ne!(other.split(split), FASHION.split(split), "{split}"));
}
