//! Damaged folders: an error that names the file, and no panic.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use dpq_file::{Container, Section};
use dpq_live::{LiveIndex, Metric, Snapshot};

use crate::common::{codebooks, files, tempdir};

/// Makes a folder with two segments, names, deleted items and a tail.
fn folder(dir: &Path, seed: u64) -> PathBuf {
    let folder = dir.join(format!("live-{seed}"));
    let mut live = LiveIndex::create(&folder, &codebooks(seed), Metric::Euclidean).unwrap();
    live.set_max_tail(4).unwrap();
    for id in 0..10 {
        live.upsert_named(id, &[id as u8 % 5, 0, 3], &format!("name {id}")).unwrap();
    }
    live.delete(2).unwrap();
    live.commit().unwrap();
    folder
}

/// Opens and reads everything.
fn read(folder: &Path) -> Result<(), dpq_live::Error> {
    let snapshot = Snapshot::open(folder)?;
    // Files of other bytes than were written may give wrong hits, but nothing worse.
    let _ = snapshot.search(&[0.5, -0.5], 3);
    let _ = (snapshot.ids_and_codes(), snapshot.name_of(4), snapshot.id_of("name 4"));
    snapshot.verify()
}

/// Every file, cut off anywhere or with any byte changed, is an error of one line with its path.
#[test]
fn damaged_bytes_are_found() {
    let dir = tempdir();
    let folder = folder(dir.path(), 1);
    let names = files(&folder);
    assert_eq!(names.len(), 8, "{names:?}");
    read(&folder).unwrap();
    for name in names.iter().filter(|name| *name != "writer.lock") {
        let path = folder.join(name);
        let bytes = fs::read(&path).unwrap();
        // Every byte of the manifest, and about a thousand of each other file.
        let step = if name == "manifest.dpq" { 1 } else { 1 + bytes.len() / 1000 };
        for at in (0..bytes.len()).step_by(step) {
            let mut changed = bytes.clone();
            changed[at] ^= 1 << (at % 8);
            fs::write(&path, &changed).unwrap();
            check(&folder, name, &format!("byte {at} changed"));
        }
        for end in (0..bytes.len()).step_by(8 * step) {
            fs::write(&path, &bytes[..end]).unwrap();
            check(&folder, name, &format!("cut off at {end}"));
        }
        fs::remove_file(&path).unwrap();
        check(&folder, name, "removed");
        fs::write(&path, &bytes).unwrap();
    }
    read(&folder).unwrap();
}

fn check(folder: &Path, name: &str, damage: &str) {
    let Err(error) = read(folder) else { panic!("{name} is read, {damage}") };
    let text = error.to_string();
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(text.contains(folder.to_str().unwrap()) && text.contains(name), "{name}, {damage}: {text}");
}

/// A merge would give damaged bytes new checksums, and remove the file that shows the damage.
#[test]
fn damaged_segments_are_not_merged() {
    let dir = tempdir();
    let folder = folder(dir.path(), 1);
    for kind in ["segment-", "names-"] {
        let before = files(&folder);
        let path = folder.join(before.iter().find(|name| name.starts_with(kind)).unwrap());
        let bytes = fs::read(&path).unwrap();
        let mut changed = bytes.clone();
        *changed.last_mut().unwrap() ^= 0x80;
        fs::write(&path, &changed).unwrap();
        let mut live = LiveIndex::open(&folder).unwrap();
        // Most of the first segment, which is the damaged one.
        [0, 1].into_iter().for_each(|id| live.delete(id).unwrap());
        for error in [live.merge_step().map(drop).unwrap_err(), live.compact().map(drop).unwrap_err()] {
            assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
        }
        drop(live);
        let after = files(&folder);
        assert!(before.iter().all(|name| after.contains(name)), "{before:?} {after:?}");
        assert!(fs::read(&path).unwrap() == changed, "{} was written", path.display());
        fs::write(&path, &bytes).unwrap();
        read(&folder).unwrap();
    }
    LiveIndex::open(&folder).unwrap().compact().unwrap();
}

/// Deleted items that no file lists are refused: they would be there again.
#[test]
fn deleted_items_without_a_list_are_refused() {
    let dir = tempdir();
    let folder = folder(dir.path(), 1);
    let path = folder.join("manifest.dpq");
    let manifest = Container::from_bytes(fs::read(&path).unwrap()).unwrap();
    let mut rows = manifest.section("segments").unwrap().bytes.to_vec();
    // The column of lists.
    rows.chunks_exact_mut(40).for_each(|row| row[24..32].fill(0));
    let sections: Vec<_> = manifest
        .names()
        .map(|name| (name, manifest.section(name).unwrap()))
        .map(|(name, section)| match name {
            "segments" => (name, Section { bytes: &rows[..], ..section }),
            _ => (name, section),
        })
        .collect();
    let keys = ["format", "version", "metric", "fingerprint", "commit", "next"];
    let metadata = keys.map(|key| (key.to_owned(), manifest.metadata(key).unwrap().to_owned())).into();
    dpq_file::write(&path, &metadata, &sections).unwrap();
    let error = Snapshot::open(&folder).map(drop).unwrap_err().to_string();
    assert!(error.contains("segment-"), "{error}");
}

/// Numbers that a writer would give again are refused, though the manifest is whole.
#[test]
fn numbers_that_would_be_given_again_are_refused() {
    let dir = tempdir();
    let folder = folder(dir.path(), 1);
    let path = folder.join("manifest.dpq");
    let manifest = Container::from_bytes(fs::read(&path).unwrap()).unwrap();
    let keys = ["format", "version", "metric", "fingerprint", "commit", "next"];
    let sections: Vec<_> = manifest.names().map(|name| (name, manifest.section(name).unwrap())).collect();
    for (key, value, is_refused) in [
        ("next", "1", true),
        ("next", "18446744073709551615", true),
        ("commit", "18446744073709551615", true),
        ("commit", "-1", true),
        ("next", "1000", false),
    ] {
        let mut metadata: BTreeMap<String, String> =
            keys.map(|key| (key.to_owned(), manifest.metadata(key).unwrap().to_owned())).into();
        metadata.insert(key.to_owned(), value.to_owned());
        dpq_file::write(&path, &metadata, &sections).unwrap();
        assert_eq!(LiveIndex::open(&folder).is_err(), is_refused, "{key} = {value}");
    }
}

/// Files of another live index do not belong together, though each of them is whole.
#[test]
fn files_of_another_folder_are_found() {
    let dir = tempdir();
    let [one, two] = [1, 2].map(|seed| folder(dir.path(), seed));
    let deleted = files(&one).into_iter().find(|name| name.starts_with("deleted-")).unwrap();
    let mut longer = LiveIndex::open(&two).unwrap();
    longer.compact().unwrap();
    longer.commit().unwrap();
    let segment_of_nine = files(&two).into_iter().find(|name| name.starts_with("segment-")).unwrap();
    for (from, to) in [
        (two.join("codebook.safetensors"), "codebook.safetensors".to_owned()),
        (two.join(&segment_of_nine), "segment-1.dpq".to_owned()),
        (two.join(&segment_of_nine), deleted),
    ] {
        let to = one.join(to);
        let kept = fs::read(&to).unwrap();
        fs::copy(from, &to).unwrap();
        let error = Snapshot::open(&one).map(drop).unwrap_err().to_string();
        assert_eq!(error.lines().count(), 1, "{error}");
        assert!(LiveIndex::open(&one).is_err());
        fs::write(&to, kept).unwrap();
    }
    read(&one).unwrap();
}
