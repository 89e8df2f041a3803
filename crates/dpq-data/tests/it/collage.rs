//! The multi-label data set made of Fashion-MNIST.

use std::fs;
use std::path::{Path, PathBuf};

use dpq_data::{Dataset, ImageShape, Split};
use tempfile::TempDir;

fn dir(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../datasets").join(name)
}

#[test]
fn a_collage_shows_one_to_four_classes_of_its_own_split() {
    let collages = Dataset::open(dir("fashion-collage")).unwrap();
    let source = Dataset::open(dir("fashion-mnist")).unwrap();
    assert_eq!(collages.shape(), ImageShape { channels: 1, height: 56, width: 56 });
    assert_eq!(collages.class_names(), source.class_names());
    let mut images: std::collections::HashMap<Vec<u8>, u32> = Default::default();
    let mut tile = vec![0; 784];
    for row in 0..source.len() as u32 {
        source.read(row as usize, &mut tile).unwrap();
        assert_eq!(images.insert(tile.clone(), row), None, "no two images are equal");
    }

    let mut image = vec![0; 56 * 56];
    for (split, n) in [(Split::Train, 5000), (Split::Query, 1000), (Split::Gallery, 20_000)] {
        let rows = collages.split(split);
        assert_eq!(rows.len(), n);
        let mut by_count = [0; 5];
        for &row in rows.iter().step_by(5) {
            collages.read(row as usize, &mut image).unwrap();
            let mut shown: Vec<u32> = vec![];
            for cell in 0..4 {
                let corner = cell / 2 * 28 * 56 + cell % 2 * 28;
                for y in 0..28 {
                    tile[y * 28..][..28].copy_from_slice(&image[corner + y * 56..][..28]);
                }
                if tile.iter().any(|&pixel| pixel > 0) {
                    let source_row = images[&tile];
                    assert!(source.split(split).binary_search(&source_row).is_ok(), "an image of its split");
                    shown.extend(source.labels(source_row as usize));
                }
            }
            shown.sort_unstable();
            assert_eq!(shown, collages.labels(row as usize), "labels are the classes shown, each once");
            by_count[shown.len()] += 1;
        }
        let share = |count: usize| count as f64 / (n as f64 / 5.0);
        assert!(by_count[0] == 0 && by_count[1..].iter().all(|&n| (0.18..0.32).contains(&share(n))));
    }
}

#[test]
fn collages_of_other_data_sets_are_refused() {
    let folder = TempDir::new().unwrap();
    let text = fs::read_to_string(dir("fashion-collage").join("dataset.toml")).unwrap();
    let text = text.replace("../fashion-mnist", &dir("fashion-mnist").display().to_string());
    let error = |from: &str, to: &str| {
        fs::write(folder.path().join("dataset.toml"), text.replace(from, to)).unwrap();
        Dataset::open(folder.path()).unwrap_err().to_string()
    };
    let sum = error("sha256 = \"", "sha256 = \"0");
    assert!(sum.contains("its sha256 is"), "{sum}");
    let shape = error("width = 56", "width = 28");
    assert!(shape.contains("images of 1x56x28, expected 1x56x56"), "{shape}");
    let twice = error("seed = 1", "seed = 1\n[protocol]\nqueries = 1\ntrain = 1\nseed = 1");
    assert!(twice.contains("these images come with theirs"), "{twice}");

    // A data set cannot be made of itself.
    let sum = text.split("sha256").nth(1).unwrap().split('"').nth(1).unwrap().to_owned();
    let nested = error(
        &format!(
            "source = {{ file = \"{}/dataset.toml\", sha256 = \"{sum}\"",
            dir("fashion-mnist").display()
        ),
        "source = { file = \"dataset.toml\"",
    );
    assert!(nested.contains("collages, expected images of one class each"), "{nested}");
}
