//! CIFAR's binary version, in archives made here in its format.

use std::fs;
use std::path::Path;

use dpq_data::{Dataset, Error, ImageShape, Split, parse_cifar, sha256};
use flate2::Compression;
use flate2::write::GzEncoder;
use tempfile::TempDir;

/// A record: labels, then planes of one value each.
fn record(labels: &[u8], [red, green, blue]: [u8; 3]) -> Vec<u8> {
    [labels, &[red; 1024], &[green; 1024], &[blue; 1024]].concat()
}

fn archive(files: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut tar = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
    for (name, bytes) in files {
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, &bytes[..]).unwrap();
    }
    tar.into_inner().unwrap().finish().unwrap()
}

/// Six images in two batches. The archive has them in reverse order, after a file that is not a
/// batch.
fn cifar_10() -> Vec<u8> {
    let batch = |first: u8| {
        (first..first + 3).flat_map(|i| record(&[i % 2], [i, 10 + i, 20 + i])).collect::<Vec<_>>()
    };
    archive(&[("c/readme.html", b"no batch".to_vec()), ("c/2.bin", batch(3)), ("c/1.bin", batch(0))])
}

fn write(dir: &Path, archive: &[u8], label_bytes: usize, classes: usize) {
    let classes: Vec<String> = (0..classes).map(|class| format!("class {class}")).collect();
    let sum = sha256(archive);
    let text = format!(
        "name = \"tiny\"\nclasses = {classes:?}\nshape = {{ channels = 3, height = 32, width = 32 }}\n\
        [images]\nformat = \"cifar\"\narchive = {{ file = \"a.tar.gz\", sha256 = \"{sum}\" }}\n\
        members = [\"c/1.bin\", \"c/2.bin\"]\nlabel_bytes = {label_bytes}\n\
        [protocol]\nqueries_per_class = 1\ntrain_per_class = 1\nseed = 1\n"
    );
    fs::write(dir.join("dataset.toml"), text).unwrap();
    fs::write(dir.join("a.tar.gz"), archive).unwrap();
}

#[test]
fn members_are_pooled_in_the_order_of_the_manifest() {
    let dir = TempDir::new().unwrap();
    write(dir.path(), &cifar_10(), 1, 2);
    let dataset = Dataset::open(dir.path()).unwrap();
    assert_eq!((dataset.len(), dataset.n_classes(), dataset.split(Split::Gallery).len()), (6, 2, 2));
    let mut image = vec![0; 3072];
    for i in 0..6u8 {
        dataset.read(i.into(), &mut image).unwrap();
        assert_eq!(image, [[i; 1024], [10 + i; 1024], [20 + i; 1024]].concat());
        assert_eq!(dataset.labels(i.into()), [u32::from(i % 2)]);
    }
}

#[test]
fn the_class_of_a_record_is_its_last_label() {
    let archive = archive(&[("train.bin", [record(&[19, 99], [1; 3]), record(&[0, 7], [2; 3])].concat())]);
    let (labels, pixels) = parse_cifar(&archive, &["train.bin"], 2).unwrap();
    assert_eq!(labels, [99, 7]);
    assert_eq!(pixels, [[1; 3072], [2; 3072]].concat());
}

#[test]
fn invalid_archives_are_refused() {
    let error = |archive: &[u8]| parse_cifar(archive, &["c/1.bin"], 1).unwrap_err().to_string();
    assert!(error(b"<html>").starts_with("damaged data"));
    let whole = cifar_10();
    assert!(error(&whole[..whole.len() / 2]).starts_with("damaged data"));
    assert!(error(&archive(&[("x", vec![])])).starts_with("no file c/1.bin in this archive"));
    assert!(matches!(parse_cifar(&whole, &["c/1.bin"], 0), Err(Error::Records(..))));
    let cut = archive(&[("c/1.bin", vec![0; 3072])]);
    assert!(error(&cut).starts_with("c/1.bin has 3072 bytes, expected records of 3073 bytes"));

    let dir = TempDir::new().unwrap();
    let open = || Dataset::open(dir.path()).unwrap_err().to_string();
    write(dir.path(), &whole, 1, 1);
    assert!(open().contains("class 1, dataset.toml names 1 classes"), "{}", open());
    fs::write(dir.path().join("a.tar.gz"), &whole[1..]).unwrap();
    assert!(open().contains("its sha256 is"), "{}", open());
}

#[test]
fn images_in_memory_are_resized_on_demand() {
    let dir = TempDir::new().unwrap();
    write(dir.path(), &cifar_10(), 1, 2);
    let shape = |channels| ImageShape { channels, height: 227, width: 100 };
    let dataset = Dataset::open(dir.path()).unwrap().resized(shape(3)).unwrap();
    assert_eq!(dataset.shape(), shape(3));
    let mut image = vec![0; shape(3).len()];
    dataset.read(4, &mut image).unwrap();
    assert_eq!(image, [[4; 22_700], [14; 22_700], [24; 22_700]].concat(), "planes of one value");
    assert!(dataset.resized(shape(1)).unwrap_err().to_string().contains("they cannot become 1x227x100"));
}
