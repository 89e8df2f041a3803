//! The data set inside the repository.

use std::path::{Path, PathBuf};

use dpq_data::{Dataset, ImageShape, Protocol, Split};

fn dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../datasets/fashion-mnist")
}

#[test]
fn it_opens_with_the_papers_protocol() {
    let dataset = Dataset::open(&dir()).unwrap();
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

    // The first image of the training file is an ankle boot whose row 14 begins dark and ends bright.
    assert_eq!(dataset.labels(0), [9]);
    let mut image = vec![0; 784];
    dataset.read(0, &mut image).unwrap();
    assert_eq!(image.iter().map(|&pixel| u32::from(pixel)).sum::<u32>(), 76_247);
    assert_eq!(
        dataset.multi_hot(&[0, 1]),
        [[0, 0, 0, 0, 0, 0, 0, 0, 0, 1], [1, 0, 0, 0, 0, 0, 0, 0, 0, 0]].concat()
    );
}

#[test]
fn the_committed_splits_are_what_the_seed_draws() {
    let dataset = Dataset::open(&dir()).unwrap();
    let labels: Vec<u32> = (0..dataset.len()).map(|row| dataset.labels(row)[0]).collect();
    let protocol = Protocol { queries_per_class: 100, train_per_class: 500, seed: 1 };
    let [query, train] = protocol.draw(&labels, dataset.class_names()).unwrap();
    assert_eq!(query, dataset.split(Split::Query));
    assert_eq!(train, dataset.split(Split::Train));
    let [other, _] = Protocol { seed: 2, ..protocol }.draw(&labels, dataset.class_names()).unwrap();
    assert_ne!(query, other);
}
