//! Containers survive a round trip, and a change of any byte is an error that names the damage.

#![allow(clippy::unwrap_used, reason = "a test that fails may panic")]

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::PathBuf;

use dpq_file::{Container, Dtype, Error, Section, rename, write, write_atomic};
use tempfile::TempDir;

fn sample(dir: &TempDir) -> PathBuf {
    let path = dir.path().join("sample.safetensors");
    let metadata = BTreeMap::from([
        ("format".to_owned(), "sample".to_owned()),
        ("quoted".to_owned(), "a \"b\" \\ \u{e9}\n".to_owned()),
    ]);
    let numbers: Vec<u8> = [1.5f32, -2.0].iter().flat_map(|x| x.to_le_bytes()).collect();
    let sections = [
        ("z", Section { dtype: Dtype::U8, shape: &[3], bytes: &[7, 8, 9] }),
        ("a", Section { dtype: Dtype::F32, shape: &[2, 1], bytes: &numbers }),
        ("none", Section { dtype: Dtype::U64, shape: &[0], bytes: &[] }),
    ];
    write(&path, &metadata, &sections).unwrap();
    path
}

#[test]
fn contents_survive_and_equal_contents_are_equal_bytes() {
    let dir = TempDir::new().unwrap();
    let path = sample(&dir);
    let file = Container::open(&path).unwrap();
    file.verify().unwrap();
    assert_eq!(file.names().collect::<Vec<_>>(), ["a", "none", "z"]);
    assert_eq!(file.metadata("quoted").unwrap(), "a \"b\" \\ \u{e9}\n");
    assert_eq!(file.floats("a", &[2, 1]).unwrap(), [1.5, -2.0]);
    assert_eq!(file.section("z").unwrap().bytes, [7, 8, 9]);
    assert_eq!(file.section("none").unwrap().shape, [0]);

    let first = fs::read(&path).unwrap();
    sample(&dir);
    assert_eq!(first, fs::read(&path).unwrap());
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no temporary file stays");
}

#[test]
fn a_mapped_file_stays_as_it_was_when_replaced() {
    let dir = TempDir::new().unwrap();
    let path = sample(&dir);
    #[expect(unsafe_code, reason = "the mapped form is under test")]
    // SAFETY: the file lies in a folder of this test, which replaces it and does not change it.
    let file = unsafe { Container::map(&path) }.unwrap();
    assert_eq!(file.bytes(), Container::open(&path).unwrap().bytes());
    write(&path, &BTreeMap::new(), &[]).unwrap();
    file.verify().unwrap();
    assert_eq!(Container::open(&path).unwrap().names().count(), 0);
}

#[test]
fn an_open_file_stays_as_it_was_when_overwritten_and_truncated() {
    let dir = TempDir::new().unwrap();
    let path = sample(&dir);
    let file = Container::open(&path).unwrap();
    let length = fs::metadata(&path).unwrap().len() as usize;
    fs::OpenOptions::new().write(true).open(&path).unwrap().write_all(&vec![0xff; length]).unwrap();
    file.verify().unwrap();
    fs::write(&path, b"").unwrap();
    file.verify().unwrap();
}

#[test]
fn a_file_cut_anywhere_is_refused() {
    let dir = TempDir::new().unwrap();
    let bytes = fs::read(sample(&dir)).unwrap();
    for end in 0..bytes.len() {
        let error = Container::from_bytes(bytes[..end].to_vec()).unwrap_err().to_string();
        let says = if end == 0 { "empty" } else { "truncated" };
        assert!(error.contains(says), "cut at {end}: {error}");
    }
    assert!(Container::from_bytes([&bytes[..], &[0]].concat()).is_err());
}

#[test]
fn every_flipped_byte_is_named() {
    let dir = TempDir::new().unwrap();
    let bytes = fs::read(sample(&dir)).unwrap();
    for at in 0..bytes.len() {
        for bit in [0x01, 0x20, 0x80] {
            let mut damaged = bytes.clone();
            damaged[at] ^= bit;
            let result = Container::from_bytes(damaged).and_then(|file| file.verify());
            assert!(result.is_err(), "byte {at} ^ {bit:#x} went unnoticed");
        }
    }
}

#[test]
fn files_of_other_kinds_are_named() {
    let error = |bytes: &[u8]| Container::from_bytes(bytes.to_vec()).unwrap_err().to_string();
    assert!(error(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n").contains("git lfs pull"));
    assert!(error(b"\x93NUMPY\x01\x00v\x00{'descr': '<f4'}").contains("not a safetensors file"));
    assert!(error(&[&u64::MAX.to_le_bytes()[..], b"{}"].concat()).contains("truncated"));
    let overlapping = br#"{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}}"#;
    let file = [&(overlapping.len() as u64).to_le_bytes()[..], overlapping, &[0; 3]].concat();
    assert!(error(&file).contains("not a safetensors file"));
}

#[test]
fn headers_made_to_mislead_are_refused() {
    let attacks: [(&[u8], &str); 9] = [
        (
            br#"{"a":{"dtype":"U8","shape":[18446744073709551615,2],"data_offsets":[0,1]}}"#,
            "a product that overflows",
        ),
        (
            br#"{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,18446744073709551615]}}"#,
            "an end beyond the file",
        ),
        (br#"{"a":{"dtype":"U8","shape":[1],"data_offsets":[1,0]}}"#, "an end before the beginning"),
        (br#"{"a":{"dtype":"U8","shape":[1],"data_offsets":[-1,0]}}"#, "a negative offset"),
        (br#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,1]}}"#, "a type larger than its bytes"),
        (br#"{"a":{"dtype":"F99","shape":[1],"data_offsets":[0,1]}}"#, "an unknown type"),
        (br#"{"b":{"dtype":"U8","shape":[0],"data_offsets":[1,1]}}"#, "a gap at the beginning"),
        (br#"{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}"#, "JSON that ends too early"),
        (
            br#"{"__metadata__":{"x":1},"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}"#,
            "metadata of numbers",
        ),
    ];
    for (header, what) in attacks {
        let file = [&(header.len() as u64).to_le_bytes()[..], header, &[0]].concat();
        assert!(Container::from_bytes(file).is_err(), "{what} went unnoticed");
    }
    let deep = [b"{\"a\":".as_slice(), &[b'['; 100_000]].concat();
    assert!(Container::from_bytes([&(deep.len() as u64).to_le_bytes()[..], &deep].concat()).is_err());
}

#[test]
fn errors_list_the_contents_of_the_file() {
    let dir = TempDir::new().unwrap();
    let file = Container::open(sample(&dir)).unwrap();
    let error = file.section("b").unwrap_err().to_string();
    assert!(error.contains("no section `b`, found `a`, `none`, `z`"), "{error}");
    let error = file.metadata("version").unwrap_err().to_string();
    assert!(error.contains("no metadata `version`, found `format`, `quoted`"), "{error}");
    for (section, shape, says) in
        [("z", 3, "`z` has U8 [3], expected F32 [3]"), ("a", 2, "`a` has F32 [2, 1], expected F32 [2]")]
    {
        let error = file.floats(section, &[shape]).unwrap_err().to_string();
        assert!(error.contains("sample.safetensors: section") && error.contains(says), "{error}");
    }
    assert!(matches!(Container::open(dir.path()), Err(Error::Io { .. })));
    assert!(matches!(Container::open(dir.path().join("absent")), Err(Error::Io { .. })));
}

#[test]
fn files_without_checksums_open_but_cannot_be_verified() {
    let header = br#"{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}"#;
    let file =
        Container::from_bytes([&(header.len() as u64).to_le_bytes()[..], header, &[5]].concat()).unwrap();
    assert_eq!(file.section("a").unwrap().bytes, [5]);
    let error = file.verify().unwrap_err();
    assert!(matches!(error, Error::Format { .. }));
    assert!(error.to_string().ends_with("section `a` carries no checksum, so it cannot be verified"));
}

#[test]
fn existing_checksums_count_if_others_are_missing() {
    // Section `b` has a checksum, that of [6], section `a` has none.
    let verify = |b: u8| {
        let header = format!(
            r#"{{"__metadata__":{{"crc.b":"{:08x}"}},"a":{{"dtype":"U8","shape":[1],"data_offsets":[0,1]}},"b":{{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}}}"#,
            dpq_file::crc32c(&[6]),
        );
        let bytes = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &[5, b]].concat();
        Container::from_bytes(bytes).unwrap().verify().unwrap_err().to_string()
    };
    assert!(verify(6).contains("section `a` carries no checksum"));
    assert!(verify(7).contains("section `b` is damaged"));
}

#[test]
fn a_write_that_fails_leaves_nothing_behind() {
    let dir = TempDir::new().unwrap();
    let path = sample(&dir);
    let before = fs::read(&path).unwrap();
    let failed = write_atomic(&path, |out| {
        out.write_all(b"half")?;
        Err(std::io::Error::other("disk full"))
    });
    assert!(matches!(failed, Err(Error::Io { .. })));
    assert_eq!(fs::read(&path).unwrap(), before);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    let wrong = [("a", Section { dtype: Dtype::F32, shape: &[2], bytes: &[0; 7] })];
    assert!(matches!(write(&path, &BTreeMap::new(), &wrong), Err(Error::Bytes { .. })));
    let half_a_byte = [("a", Section { dtype: Dtype::F4, shape: &[3], bytes: &[0] })];
    assert!(matches!(write(&path, &BTreeMap::new(), &half_a_byte), Err(Error::Bytes { .. })));
    let section = Section { dtype: Dtype::U8, shape: &[0], bytes: &[] };
    for names in [["a", "a"], ["a", "__metadata__"]] {
        let refused = write(&path, &BTreeMap::new(), &names.map(|name| (name, section)));
        assert!(matches!(refused, Err(Error::Name(_))), "{names:?}");
    }
    for key in ["crc", "crc.a"] {
        let metadata = BTreeMap::from([(key.to_owned(), String::new())]);
        assert!(matches!(write(&path, &metadata, &[]), Err(Error::Name(_))), "{key}");
    }
    assert_eq!(fs::read(&path).unwrap(), before);
}

#[test]
fn renaming_replaces_an_old_file() {
    let dir = TempDir::new().unwrap();
    let [part, path] = ["part", "whole"].map(|name| dir.path().join(name));
    fs::write(&part, b"new").unwrap();
    fs::write(&path, b"old").unwrap();
    rename(&part, &path).unwrap();
    assert_eq!((fs::read(&path).unwrap(), part.exists()), (b"new".to_vec(), false));
    let error = rename(&part, &path).unwrap_err().to_string();
    assert!(error.contains("whole"), "{error}");
    assert_eq!(fs::read(&path).unwrap(), b"new");
}

#[test]
fn the_temporary_file_of_another_process_stays_and_does_no_harm() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("out");
    // The names that this process would use next, as a killed process of the same number leaves
    // them.
    let left: Vec<_> =
        (0..100).map(|i| dir.path().join(format!(".dpq-{}-{i}.tmp", std::process::id()))).collect();
    left.iter().for_each(|left| fs::write(left, b"theirs").unwrap());
    write_atomic(&path, |out| out.write_all(b"ours")).unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"ours");
    assert!(left.iter().all(|left| fs::read(left).unwrap() == b"theirs"));
}

#[cfg(unix)]
#[test]
fn only_files_are_opened_and_replaced() {
    let dir = TempDir::new().unwrap();
    let socket = dir.path().join("socket");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    for path in [dir.path(), &socket, std::path::Path::new("/dev/null")] {
        assert!(matches!(Container::open(path), Err(Error::Io { .. })), "{}", path.display());
    }
    for path in [dir.path(), &socket] {
        assert!(matches!(write_atomic(path, |_| Ok(())), Err(Error::Io { .. })), "{}", path.display());
        assert!(!fs::metadata(path).unwrap().is_file());
    }
}

#[cfg(unix)]
#[test]
fn a_pipe_is_refused_without_waiting_for_its_writer() {
    let dir = TempDir::new().unwrap();
    let pipe = dir.path().join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let (opened, answer) = std::sync::mpsc::channel();
    std::thread::spawn(move || opened.send(Container::open(&pipe).unwrap_err().to_string()));
    let error = answer.recv_timeout(std::time::Duration::from_secs(10)).expect("an answer at once");
    assert!(error.contains("pipe"), "{error}");
}

#[cfg(unix)]
#[test]
fn permissions_are_those_of_any_new_file() {
    use std::os::unix::fs::PermissionsExt;
    let dir = TempDir::new().unwrap();
    let plain = dir.path().join("plain");
    fs::write(&plain, b"").unwrap();
    let mode = |path| fs::metadata(path).unwrap().permissions().mode();
    assert_eq!(mode(&sample(&dir)), mode(&plain));
}
