//! Any bytes given as the manifest of a live index, also with right checksums, beside the files
//! that it names: opening, searching and verifying may fail, never panic.

#![no_main]

use std::fs;
use std::sync::LazyLock;

use dpq_file::{Container, Dtype, Section};
use dpq_live::{Assignment, Codebooks, LiveIndex, Metric, SearchOptions, Snapshot};
use tempfile::TempDir;

/// A folder with two segments, names, deleted items and a tail, and its manifest.
static LIVE: LazyLock<(TempDir, Container)> = LazyLock::new(|| {
    let dir = TempDir::new().expect("a folder");
    let values = (0..3 * 4 * 2).map(|i| (i * i % 7) as f32 - 3.0).collect();
    let codebooks = Codebooks::new(values, 3, 4, 2, Assignment::Euclidean).expect("codebooks");
    let mut live = LiveIndex::create(dir.path(), &codebooks, Metric::Euclidean).expect("a live index");
    live.set_max_tail(70).expect("a number in range");
    for id in 0..200 {
        live.upsert_named(id, &[id as u8 % 4, 1, 2], &format!("name {id}")).expect("an item");
    }
    live.delete(3).expect("an item");
    live.commit().expect("a commit");
    let manifest = Container::open(dir.path().join("manifest.dpq")).expect("a manifest");
    (dir, manifest)
});

/// The sections of a manifest, and the bytes of a row.
const SECTIONS: [(&str, Dtype, usize); 6] = [
    ("segments", Dtype::U64, 40),
    ("tail.codes", Dtype::U8, 3),
    ("tail.ends", Dtype::U64, 8),
    ("tail.ids", Dtype::U64, 8),
    ("tail.named", Dtype::U64, 8),
    ("tail.text", Dtype::U8, 1),
];

/// Returns the manifest with changes by `input`: four bytes each.
fn changed(original: &Container, input: &[u8]) -> Option<Vec<u8>> {
    let bytes = |name| Some(original.section(name).ok()?.bytes.to_vec());
    let mut sections: Vec<Vec<u8>> = SECTIONS.iter().map(|(name, ..)| bytes(name)).collect::<Option<_>>()?;
    for &[which, a, b, value] in input.as_chunks::<4>().0 {
        let at = usize::from(which) % SECTIONS.len();
        let (section, row) = (&mut sections[at], SECTIONS[at].2);
        match (which, section.len()) {
            (128.., _) => section.resize(usize::from(a) * row, value),
            (_, 0) => {}
            (_, n) => section[usize::from(u16::from_le_bytes([a, b])) % n] = value,
        }
    }
    let keys = ["format", "version", "metric", "fingerprint", "commit", "next"];
    let metadata = keys.map(|key| Some((key.to_owned(), original.metadata(key).ok()?.to_owned())));
    let metadata = metadata.into_iter().collect::<Option<_>>()?;
    let shape = |(bytes, (name, _, row)): (&Vec<u8>, (&str, Dtype, usize))| match name {
        "segments" => vec![bytes.len() / row, 5],
        "tail.codes" => vec![bytes.len() / row, row],
        _ => vec![bytes.len() / row],
    };
    let shapes: Vec<Vec<usize>> = sections.iter().zip(SECTIONS).map(shape).collect();
    let parts: Vec<(&str, Section)> = SECTIONS
        .into_iter()
        .zip(&sections)
        .zip(&shapes)
        .map(|(((name, dtype, _), bytes), shape)| (name, Section { dtype, shape, bytes }))
        .collect();
    dpq_file::to_bytes(&metadata, &parts).ok()
}

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let Some((&kind, input)) = input.split_first() else { return };
    let (dir, original) = &*LIVE;
    let manifest = if kind < 64 { Some(input.to_vec()) } else { changed(original, input) };
    let Some(manifest) = manifest else { return };
    fs::write(dir.path().join("manifest.dpq"), manifest).expect("a file");
    let Ok(snapshot) = Snapshot::open(dir.path()) else { return };
    let _ = snapshot.search(&[0.5, -1.0], 3);
    let filter = snapshot.deny(&[1]).and(&snapshot.allow(&[0, 1, 190]).not());
    if let Ok(filter) = filter {
        let _ = snapshot.search_filtered(&[0.5, -1.0], &SearchOptions::new(usize::MAX), &filter);
    }
    let _ = (snapshot.name_of(5), snapshot.id_of("name 199"), snapshot.ids_and_codes(), snapshot.verify());
    // A writer removes files that this manifest does not name.
    let copy = TempDir::new().expect("a folder");
    for entry in fs::read_dir(dir.path()).expect("a folder") {
        let entry = entry.expect("a file");
        fs::copy(entry.path(), copy.path().join(entry.file_name())).expect("a copy");
    }
    let Ok(mut live) = LiveIndex::open(copy.path()) else { return };
    let _ = (live.delete(5), live.upsert(1000, &[0, 1, 2]), live.commit(), live.merge_step(), live.compact());
    if let Ok(snapshot) = live.snapshot() {
        let _ = (snapshot.verify(), live.len(), live.max_id());
    }
});
