//! Zip and tar archives of images, and every way in which they can be invalid.

use std::fs;
use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};

use dpq_data::{Dataset, ImageShape, Source, Split, sha256};
use flate2::Compression;
use flate2::write::GzEncoder;
use image::{GrayImage, ImageFormat, Luma};
use tar::{EntryType, Header};
use tempfile::TempDir;
use zip::write::FileOptions;
use zip::{CompressionMethod, ZipWriter};

const SHAPE: ImageShape = ImageShape { channels: 1, height: 2, width: 3 };

/// Path, classes and pixels of an image.
type Row = (PathBuf, Vec<u32>, Vec<u8>);

type Members = Vec<(&'static str, Vec<u8>)>;

fn png(value: u8) -> Vec<u8> {
    let mut bytes = Cursor::new(vec![]);
    GrayImage::from_pixel(3, 2, Luma([value])).write_to(&mut bytes, ImageFormat::Png).unwrap();
    bytes.into_inner()
}

/// Two roots with the same classes, in no order, with what operating systems add.
fn two_roots() -> Members {
    vec![
        ("set/test/c2/9.png", png(50)),
        ("set/train/c10/1.png", png(40)),
        ("set/train/c2/2.PNG", png(30)),
        ("set/train/c2/1.png", png(20)),
        ("set/test/c10/1.png", png(60)),
        ("__MACOSX/set/train/c2/._1.png", vec![0]),
        ("set/train/c2/.DS_Store", vec![1]),
        ("set/train/c2/notes.txt", b"notes".to_vec()),
        ("set/README", vec![]),
    ]
}

fn zip(members: &Members, method: CompressionMethod) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(vec![]));
    zip.add_directory("set", FileOptions::default()).unwrap();
    for (name, bytes) in members {
        zip.start_file(*name, FileOptions::default().compression_method(method)).unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

fn tar_of(members: &Members, kind: EntryType) -> Vec<u8> {
    let mut tar = tar::Builder::new(vec![]);
    for (name, bytes) in members {
        let mut header = Header::new_gnu();
        // Set directly, because the builder refuses paths that lead out of the archive.
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_size(bytes.len() as u64);
        header.set_entry_type(kind);
        header.set_mode(0o644);
        header.set_cksum();
        tar.append(&header, &bytes[..]).unwrap();
    }
    tar.into_inner().unwrap()
}

fn gz(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(vec![], Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// The same members as a file of each kind.
fn all_kinds(members: &Members) -> [(&'static str, Vec<u8>); 4] {
    let tar = tar_of(members, EntryType::Regular);
    [
        ("stored.zip", zip(members, CompressionMethod::Stored)),
        ("deflated.zip", zip(members, CompressionMethod::Deflated)),
        ("a.tar.gz", gz(&tar)),
        ("a.tar", tar),
    ]
}

/// Reads every image of an archive.
fn read_all(dir: &Path, bytes: &[u8]) -> Result<Vec<Row>, dpq_data::Error> {
    let path = dir.join("archive");
    fs::write(&path, bytes).unwrap();
    read_rows(&Dataset::from_folder(&path, SHAPE)?, &path)
}

fn read_rows(dataset: &Dataset, root: &Path) -> Result<Vec<Row>, dpq_data::Error> {
    let row = |row| {
        let mut image = vec![0; SHAPE.len()];
        dataset.read(row, &mut image)?;
        let path = dataset.path(row).unwrap().strip_prefix(root).unwrap().to_owned();
        Ok((path, dataset.labels(row).to_vec(), image))
    };
    (0..dataset.len()).map(row).collect()
}

#[test]
fn every_kind_of_archive_reads_as_its_folder() {
    let dir = TempDir::new().unwrap();
    let folder = dir.path().join("unpacked");
    for (name, bytes) in two_roots().into_iter().filter(|(name, _)| !name.starts_with("__MACOSX")) {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    let unpacked = Dataset::from_folder(&folder, SHAPE).unwrap();
    let expected = read_rows(&unpacked, &folder).unwrap();
    let values: Vec<_> = expected.iter().map(|(_, classes, image)| (classes[0], image[0])).collect();
    assert_eq!(unpacked.class_names(), ["c2", "c10"], "natural order");
    assert_eq!(values, [(0, 50), (1, 60), (0, 20), (0, 30), (1, 40)], "test/ is before train/");
    for (name, bytes) in all_kinds(&two_roots()) {
        let path = dir.path().join(name);
        fs::write(&path, bytes).unwrap();
        let packed = Dataset::from_folder(&path, SHAPE).unwrap();
        assert_eq!(packed.class_names(), unpacked.class_names(), "{name}");
        assert_eq!(packed.skipped(), unpacked.skipped(), "{name}");
        assert_eq!(read_rows(&packed, &path).unwrap(), expected, "{name}");
    }
}

#[test]
fn an_archive_that_is_cut_off_or_changed_is_an_error() {
    let dir = TempDir::new().unwrap();
    let members = vec![("a/1.png", png(1)), ("b/2.png", png(2))];
    for (name, bytes) in all_kinds(&members) {
        assert_eq!(read_all(dir.path(), &bytes).unwrap().len(), 2, "{name}");
        // The second of the two blocks at the end of a tar archive is as good as both.
        let end = if name == "a.tar" { bytes.len() - 512 } else { bytes.len() };
        // Blocks of a tar archive are mostly zeros.
        let step = if name == "a.tar" { 29 } else { 1 };
        for end in (0..end).step_by(step) {
            assert!(read_all(dir.path(), &bytes[..end]).is_err(), "{name} cut at {end}");
        }
        // No change may panic. Names, sizes and places are checked where an archive has checksums.
        let mut changed = bytes.clone();
        for at in (0..bytes.len()).step_by(step) {
            changed[at] ^= 0x41;
            let _ = read_all(dir.path(), &changed);
            changed[at] = bytes[at];
        }
    }
    let mut stored = zip(&members, CompressionMethod::Stored);
    let at = stored.windows(4).position(|bytes| bytes == b"IDAT").unwrap();
    stored[at + 6] ^= 1;
    let error = read_all(dir.path(), &stored).unwrap_err();
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(error.to_string().ends_with("archive/a/1.png"), "{error}");
    assert_eq!(source, "its checksum or length is wrong, get the archive again");
}

#[test]
fn members_that_no_archive_of_images_needs_are_refused() {
    let dir = TempDir::new().unwrap();
    let refused = |bytes: &[u8], text: &str| {
        let error = read_all(dir.path(), bytes).unwrap_err().to_string();
        assert!(error.contains(text), "{error}");
    };
    for name in ["../1.png", "a/../../1.png", "/etc/1.png", "a\\1.png"] {
        for (_, bytes) in all_kinds(&vec![("a/1.png", png(1)), (name, png(2))]) {
            refused(&bytes, "leads out of the archive, pack the images again");
        }
    }
    for (_, bytes) in all_kinds(&vec![("a/1.png", png(1)), ("./a/1.png", png(2))]) {
        refused(&bytes, "`./a/1.png` is in the archive twice");
    }
    for kind in [EntryType::Symlink, EntryType::Link, EntryType::Char] {
        refused(&tar_of(&vec![("a/1.png", vec![])], kind), "`a/1.png` is no file but a link or a device");
    }
    refused(b"no archive", "expected a .zip, .tar or .tar.gz file");
    refused(b"", "expected a .zip, .tar or .tar.gz file");
    for (_, bytes) in all_kinds(&vec![("a/notes.txt", vec![])]) {
        refused(&bytes, "archive/a: no image in this folder");
    }

    // The directory at the end of a zip archive: flags at 8, compression at 10, size at 24.
    let members = vec![("a/1.png", png(1))];
    let changed = |offset: usize, value: &[u8]| {
        let mut bytes = zip(&members, CompressionMethod::Deflated);
        let at = bytes.windows(4).rposition(|bytes| bytes == b"PK\x01\x02").unwrap() + offset;
        bytes[at..at + value.len()].copy_from_slice(value);
        bytes
    };
    refused(&changed(8, &[1]), "`a/1.png` is encrypted, pack the images without a password");
    refused(&changed(10, &[12]), "`a/1.png` is packed in a way that cannot be read, expected stored");
    refused(&changed(24, &[0, 0, 0, 0x40]), "`a/1.png` has 1073741824 bytes, expected at most 536870912");
    refused(&changed(20, &[0, 0, 1, 0]), "`a/1.png` ends after the archive");
    // More than it claims.
    refused(&changed(24, &[9, 0, 0, 0]), "cannot open");
}

const MANIFEST: &str =
    "name = \"lists\"\ntrain_in_gallery = true\nshape = { channels = 1, height = 2, width = 3 }\n";

#[test]
fn lists_and_classes_are_read_inside_an_archive() {
    let dir = TempDir::new().unwrap();
    let members = |query: &'static str| {
        vec![
            ("query.txt", query.as_bytes().to_vec()),
            ("train.txt", b"gallery/b.png 1\ngallery/a.png 0\n".to_vec()),
            ("gallery.txt", b"gallery/a.png 0\ngallery/b.png 1\ngallery/c.png 1\n".to_vec()),
            ("classes.txt", b"n01\tsalamander, newt\nn02\tjellyfish\n".to_vec()),
            ("gallery/a.png", png(1)),
            ("gallery/b.png", png(2)),
            ("gallery/c.png", png(3)),
            ("query/q.png", png(4)),
        ]
    };
    let write = |name: &str, bytes: &[u8], sum: &str| {
        fs::write(dir.path().join(name), bytes).unwrap();
        let text = format!(
            "{MANIFEST}[images]\nformat = \"lists\"\nclasses = \"classes.txt\"\nquery = {{ file = \"query.txt\" }}\n\
            train = {{ file = \"train.txt\" }}\ngallery = {{ file = \"gallery.txt\" }}\n\
            archive = {{ file = \"{name}\", sha256 = \"{sum}\" }}\n"
        );
        fs::write(dir.path().join("dataset.toml"), text).unwrap();
        Dataset::open(dir.path())
    };
    for (name, bytes) in all_kinds(&members("query/q.png 1\n")) {
        let dataset = write(name, &bytes, &sha256(&bytes)).unwrap();
        assert_eq!(dataset.class_names(), ["salamander", "jellyfish"]);
        let splits = [Split::Query, Split::Train, Split::Gallery].map(|split| dataset.split(split).to_vec());
        assert_eq!(splits, [vec![0], vec![1, 2], vec![1, 2, 3]]);
        let rows = read_rows(&dataset, &dir.path().join(name)).unwrap();
        let values: Vec<_> = rows.iter().map(|(_, classes, image)| (classes[0], image[0])).collect();
        assert_eq!(values, [(1, 4), (1, 2), (0, 1), (1, 3)]);
        let source = Source::open(dir.path()).unwrap();
        assert_eq!(source.files.len(), 1, "lists are inside the archive");
        assert!(source.shipped && source.images.is_none());

        let error = write(name, &bytes, &sha256(b"other")).unwrap_err().to_string();
        assert!(error.contains(&format!("{name}: its sha256 is ")), "{error}");
    }
    let bytes = zip(&members("query/nowhere.png 1\n"), CompressionMethod::Stored);
    let error = write("a.zip", &bytes, &sha256(&bytes)).unwrap_err().to_string();
    assert!(error.contains("a.zip/query/nowhere.png: no such file, a list names it"), "{error}");
    let bytes = zip(&members("query/q.png 2\n"), CompressionMethod::Stored);
    let error = write("a.zip", &bytes, &sha256(&bytes)).unwrap_err().to_string();
    assert!(error.contains("an image has class `2`, expected one of the 2 of dataset.toml"), "{error}");
}

#[test]
fn another_form_of_the_images_is_taken_if_the_first_is_not_there() {
    let dir = TempDir::new().unwrap();
    let text = "name = \"two forms\"\nclasses = [\"c2\", \"c10\"]\nshape = { channels = 1, height = 2, width = 3 }\n\
        images = { format = \"folder\", path = \"images\" }\n\
        protocol = { queries_per_class = 1, train_per_class = 1, seed = 1 }\n\
        [[alternatives]]\nformat = \"folder\"\narchive = { file = \"a.zip\" }\npath = \"set\"\n";
    fs::write(dir.path().join("dataset.toml"), text).unwrap();
    let error = Dataset::open(dir.path()).unwrap_err().to_string();
    assert!(error.ends_with("images"), "the first form is what is missing: {error}");
    let mut members = two_roots();
    members.push(("set/train/c10/2.png", png(70)));
    fs::write(dir.path().join("a.zip"), zip(&members, CompressionMethod::Stored)).unwrap();
    let dataset = Dataset::open(dir.path()).unwrap();
    assert_eq!((dataset.name(), dataset.len()), ("two forms (a.zip)", 6));
    for (name, bytes) in members.iter().filter(|(name, _)| name.starts_with("set/train/")) {
        let path = dir.path().join("images").join(name.strip_prefix("set/train/").unwrap());
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    let error = Dataset::open(dir.path()).unwrap_err().to_string();
    assert!(error.contains("the gallery split is empty"), "four images of the folder: {error}");
}
