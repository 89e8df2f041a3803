//! Extensions in upper case, and paths that are not regular files.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use dpq_formats::{
    Error, FaissIndex, FeatureFile, NpzReader, NpzWriter, npy, read_features, read_ids, read_weights,
};
use tempfile::TempDir;

fn write(dir: &TempDir, name: &str, bytes: &[u8]) -> PathBuf {
    let path = dir.path().join(name);
    fs::write(&path, bytes).unwrap();
    path
}

#[test]
fn extensions_are_read_in_upper_case() {
    let dir = TempDir::new().unwrap();
    let row = [&2i32.to_le_bytes()[..], &0.5f32.to_le_bytes(), &(-1f32).to_le_bytes()].concat();
    for name in ["x.FVECS", "x.Fvecs", "x.fvecs"] {
        assert_eq!(read_features(write(&dir, name, &row)).unwrap().values, [0.5, -1.0], "{name}");
    }
    let row = [&2i32.to_le_bytes()[..], &[7, 9]].concat();
    assert_eq!(read_features(write(&dir, "x.BVECS", &row)).unwrap().values, [7.0, 9.0]);
    let row = [2i32, 7, 9].map(i32::to_le_bytes).concat();
    assert_eq!(read_ids(write(&dir, "x.IVECS", &row)).unwrap(), [7, 9]);
    let npy = dir.path().join("x.NPY");
    npy::write(&npy, &[1, 2], &[0.5f32, -1.0]).unwrap();
    assert_eq!(read_features(&npy).unwrap().values, [0.5, -1.0]);
    let npz = dir.path().join("w.NPZ");
    NpzWriter::default().add("a.weights", &[1], &[0.5f32]).unwrap().save(&npz).unwrap();
    assert_eq!(read_weights(&npz).unwrap()["a.weights"], (vec![1], vec![0.5]));
    for name in ["w.NPY", "w.SAFETENSORS"] {
        let error = read_weights(write(&dir, name, b"")).unwrap_err().to_string();
        assert!(!error.contains("extension"), "{error}");
    }
    let error = read_weights(write(&dir, "w.pth", b"")).unwrap_err().to_string();
    assert!(error.contains("w.pth: extension .pth, expected a .npy, .npz or .safetensors file"), "{error}");
}

/// Every reader refuses a pipe, which nobody writes to, and a folder. Reading a pipe would wait
/// forever.
#[cfg(unix)]
#[test]
fn pipes_and_folders_are_refused() {
    type Read = fn(&Path) -> Result<(), Error>;
    let readers: [(&str, Read); 11] = [
        ("x.npy", |path| npy::read_matrix::<u8>(path).map(drop)),
        ("x.npy", |path| npy::read_vector::<u64>(path).map(drop)),
        ("x.npy", |path| FeatureFile::open(path).map(drop)),
        ("x.fvecs", |path| read_features(path).map(drop)),
        ("x.npy", |path| read_ids(path).map(drop)),
        ("x.ivecs", |path| read_ids(path).map(drop)),
        ("x.npz", |path| NpzReader::open(path).map(drop)),
        ("w.npy", |path| read_weights(path).map(drop)),
        ("w.safetensors", |path| read_weights(path).map(drop)),
        ("words.txt", |path| dpq_formats::open(path).map(drop)),
        ("x.index", |path| FaissIndex::open(path).map(drop)),
    ];
    let dir = TempDir::new().unwrap();
    for (name, read) in readers {
        let path = dir.path().join(name);
        for make in ["mkfifo", "mkdir"] {
            assert!(Command::new(make).arg(&path).status().unwrap().success());
            let (sender, receiver) = std::sync::mpsc::channel();
            let start = Instant::now();
            let reading = path.clone();
            std::thread::spawn(move || sender.send(read(&reading)));
            let result = receiver.recv_timeout(Duration::from_secs(20));
            let error = result.unwrap_or_else(|_| panic!("{make} {name} hangs")).unwrap_err().to_string();
            assert!(error.contains(name), "{error}");
            assert!(start.elapsed() < Duration::from_secs(20));
            if make == "mkfifo" { fs::remove_file(&path).unwrap() } else { fs::remove_dir(&path).unwrap() }
        }
    }
}

#[test]
fn ids_of_numpys_own_type_are_read() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("ids.npy");
    npy::write(&path, &[2], &[7i64, 0]).unwrap();
    assert_eq!(read_ids(&path).unwrap(), [7, 0]);
    npy::write(&path, &[2], &[7i64, -1]).unwrap();
    let error = read_ids(&path).unwrap_err().to_string();
    assert!(error.contains("ids.npy: has -1 as an id, expected 0 to 18446744073709551615"), "{error}");
    npy::write(&path, &[2], &[7f32, 1.0]).unwrap();
    assert!(read_ids(&path).unwrap_err().to_string().contains("array holds <f4, expected uint64"));
}
