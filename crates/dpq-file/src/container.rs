//! Opening, checking and writing containers.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::ops::Deref;
use std::path::{Path, PathBuf};

use memmap2::Mmap;
use safetensors::{SafeTensorError, SafeTensors};

use crate::atomic::not_a_file;
use crate::header::{self, Layout};
use crate::{Error, Section, crc32c, write_atomic};

/// An open safetensors file, mapped or in memory.
#[derive(Debug)]
pub struct Container {
    path: PathBuf,
    bytes: Bytes,
    metadata: BTreeMap<String, String>,
    sections: BTreeMap<String, Entry>,
    /// Where the sections begin.
    data: usize,
}

#[derive(Debug)]
struct Entry {
    dtype: safetensors::Dtype,
    shape: Vec<usize>,
    /// Offsets from the beginning of the file.
    begin: usize,
    end: usize,
}

#[derive(Debug)]
enum Bytes {
    Mapped(Mmap),
    Owned(Vec<u8>),
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Mapped(map) => map,
            Self::Owned(bytes) => bytes,
        }
    }
}

impl Container {
    /// Reads the file at `path` into memory and checks its header.
    ///
    /// Takes memory for the whole file. [`Container::map`] takes none, and asks for a promise.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be read, [`Error::Format`] if it is not a safetensors file or has another length
    /// than its header says.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        let io = |source| Error::Io { action: "open", path: path.to_owned(), source };
        let mut file = open_file(path).map_err(io)?;
        let n_bytes = file.metadata().map_err(io)?.len();
        // A large file of another kind is refused before it is read.
        let mut bytes = Vec::new();
        file.by_ref().take(START).read_to_end(&mut bytes).map_err(io)?;
        check_start(&bytes, n_bytes).map_err(|reason| Error::Format { path: path.to_owned(), reason })?;
        file.read_to_end(&mut bytes).map_err(io)?;
        Self::parse(path.to_owned(), Bytes::Owned(bytes))
    }

    /// Memory-maps the file at `path` and checks its header. No section is read.
    ///
    /// # Errors
    /// As for [`Container::open`].
    ///
    /// # Safety
    /// Until the value is dropped, nobody may change or truncate the file, in this process or another one: its bytes are
    /// behind shared references, and reading past the end of a truncated file ends the process. Replacing the file by
    /// renaming another one over its path is allowed, as is deleting it. [`write()`] and [`write_atomic`] do the former.
    #[expect(unsafe_code, reason = "a mapping is only as constant as its file")]
    pub unsafe fn map(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        let io = |source| Error::Io { action: "open", path: path.to_owned(), source };
        let file = open_file(path).map_err(io)?;
        if file.metadata().map_err(io)?.len() == 0 {
            // Some systems refuse to map an empty file.
            return Self::parse(path.to_owned(), Bytes::Owned(Vec::new()));
        }
        // SAFETY: the caller promises that the file does not change while this value, which owns the mapping, lives.
        let map = unsafe { Mmap::map(&file) }.map_err(io)?;
        Self::parse(path.to_owned(), Bytes::Mapped(map))
    }

    /// Takes the bytes of a file that is already in memory.
    ///
    /// # Errors
    /// [`Error::Format`] as for [`Container::open`].
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Self, Error> {
        Self::parse(PathBuf::from("bytes in memory"), Bytes::Owned(bytes))
    }

    fn parse(path: PathBuf, bytes: Bytes) -> Result<Self, Error> {
        let format = |reason: String| Error::Format { path: path.clone(), reason };
        let (length, header) = read_header(&bytes).map_err(format)?;
        let data = 8 + length;
        let metadata: BTreeMap<_, _> = header.metadata().clone().unwrap_or_default().into_iter().collect();
        let mut sections = BTreeMap::new();
        for (name, info) in header.tensors() {
            let (begin, end) = info.data_offsets;
            let entry =
                Entry { dtype: info.dtype, shape: info.shape.clone(), begin: data + begin, end: data + end };
            sections.insert(name, entry);
        }
        Ok(Self { path, bytes, metadata, sections, data })
    }

    /// The whole file.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The file's path, or words that say that it has none.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The metadata under `key`.
    ///
    /// # Errors
    /// [`Error::MissingMetadata`] names the keys that there are.
    pub fn metadata(&self, key: &str) -> Result<&str, Error> {
        self.metadata.get(key).map(String::as_str).ok_or_else(|| Error::MissingMetadata {
            path: self.path.clone(),
            key: key.to_owned(),
            found: list(self.metadata.keys().filter(|key| !is_checksum(key))),
        })
    }

    /// The section called `name`.
    ///
    /// # Errors
    /// [`Error::MissingSection`] names the sections that there are.
    pub fn section(&self, name: &str) -> Result<Section<'_>, Error> {
        let Entry { dtype, shape, begin, end } =
            self.sections.get(name).ok_or_else(|| Error::MissingSection {
                path: self.path.clone(),
                name: name.to_owned(),
                found: list(self.sections.keys()),
            })?;
        Ok(Section { dtype: *dtype, shape, bytes: &self.bytes[*begin..*end] })
    }

    /// The names of the sections, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.sections.keys().map(String::as_str)
    }

    /// Reads every byte and compares it with what was written.
    ///
    /// # Errors
    /// [`Error::Damaged`] names the part that changed; [`Error::NoChecksum`] if no checksum that is there is wrong, but a
    /// section has none, as in files of other programs.
    pub fn verify(&self) -> Result<(), Error> {
        let damaged = |what: String| Error::Damaged { path: self.path.clone(), what };
        let mut without = None;
        for name in self.names() {
            match self.metadata.get(&format!("{CRC}{name}")) {
                None => without = without.or(Some(name)),
                Some(expected) if *expected == checksum(self.section(name)?.bytes) => {}
                Some(_) => return Err(damaged(format!("section `{name}`"))),
            }
        }
        if let Some(name) = without {
            return Err(Error::NoChecksum { path: self.path.clone(), name: name.to_owned() });
        }
        let mut metadata = self.metadata.clone();
        let expected = metadata.remove(HEADER_CRC);
        let layout: Layout = self
            .sections
            .iter()
            .map(|(name, entry)| (name.clone(), (entry.dtype, entry.shape.clone(), entry.end - entry.begin)))
            .collect();
        let intact = expected == Some(checksum(&header::encode(&metadata, &layout)))
            && header::encode(&self.metadata, &layout) == self.bytes[..self.data];
        if intact { Ok(()) } else { Err(damaged("the header".to_owned())) }
    }
}

/// Writes a container: sorted keys, a CRC32C a section, atomically.
///
/// # Errors
/// [`Error::Io`] if the system fails, [`Error::Shape`] if a section's bytes are not those of its type and shape.
///
/// # Panics
/// If two sections have one name or one is called `__metadata__`, or a metadata key is `crc` or begins with `crc.`: these
/// are kept for checksums.
pub fn write(
    path: impl AsRef<Path>,
    metadata: &BTreeMap<String, String>,
    sections: &[(&str, Section<'_>)],
) -> Result<(), Error> {
    let (header, sections) = parts(metadata, sections)?;
    write_atomic(path, |out| {
        out.write_all(&header)?;
        sections.iter().try_for_each(|section| out.write_all(section))
    })
}

/// Returns the bytes of the file that [`write()`] writes.
///
/// # Errors
/// [`Error::Shape`] as for [`write()`].
///
/// # Panics
/// As [`write()`].
pub fn to_bytes(
    metadata: &BTreeMap<String, String>,
    sections: &[(&str, Section<'_>)],
) -> Result<Vec<u8>, Error> {
    let (header, sections) = parts(metadata, sections)?;
    Ok([&[header.as_slice()], sections.as_slice()].concat().concat())
}

/// The header of a file, its checksums included, and the bytes of its sections in their order.
fn parts<'a>(
    metadata: &BTreeMap<String, String>,
    sections: &[(&str, Section<'a>)],
) -> Result<(Vec<u8>, Vec<&'a [u8]>), Error> {
    assert!(
        !metadata.keys().any(is_checksum),
        "metadata keys `{HEADER_CRC}` and `{CRC}*` are kept for checksums"
    );
    let sorted: BTreeMap<&str, Section<'a>> = sections.iter().copied().collect();
    assert_eq!(sorted.len(), sections.len(), "sections have names of their own");
    assert!(!sorted.contains_key("__metadata__"), "the format keeps `__metadata__` for itself");

    let mut metadata = metadata.clone();
    let mut layout = Layout::new();
    for (&name, section) in &sorted {
        if section.claimed_len() != Some(section.bytes.len()) {
            return Err(Error::Shape {
                found: format!("{} bytes", section.bytes.len()),
                expected: format!("{:?} {:?}", section.dtype, section.shape),
            });
        }
        metadata.insert(format!("{CRC}{name}"), checksum(section.bytes));
        layout.insert(name.to_owned(), (section.dtype, section.shape.to_vec(), section.bytes.len()));
    }
    metadata.insert(HEADER_CRC.to_owned(), checksum(&header::encode(&metadata, &layout)));
    Ok((header::encode(&metadata, &layout), sorted.values().map(|section| section.bytes).collect()))
}

/// The prefix of metadata keys that hold the checksums of sections.
const CRC: &str = "crc.";

/// The metadata key that holds the checksum of the header as it is without this entry.
const HEADER_CRC: &str = "crc";

fn is_checksum(key: &String) -> bool {
    key == HEADER_CRC || key.starts_with(CRC)
}

fn checksum(bytes: &[u8]) -> String {
    format!("{:08x}", crc32c(bytes))
}

/// Opens a regular file.
fn open_file(path: &Path) -> io::Result<File> {
    // Checked before opening, because opening a pipe waits for its writer.
    if fs::metadata(path)?.is_file() { File::open(path) } else { Err(not_a_file()) }
}

/// The number of bytes that [`check_start`] looks at, at most.
const START: u64 = 32;

/// Checks the first bytes of a file of `n_bytes`, or says what the file is instead.
fn check_start(start: &[u8], n_bytes: u64) -> Result<(), String> {
    if n_bytes == 0 {
        return Err("the file is empty, make it again or restore it from a copy".to_owned());
    }
    if start.starts_with(b"version https://git-lfs") {
        return Err("this is a Git LFS pointer, not the file it points to, run `git lfs pull`".to_owned());
    }
    if start.get(8).is_some_and(|&byte| byte != b'{') {
        return Err("not a safetensors file, expected a .safetensors file".to_owned());
    }
    let length = start.first_chunk().map(|&length| u64::from_le_bytes(length));
    if length.is_none_or(|length| length > n_bytes.saturating_sub(8)) {
        return Err(format!("the file is truncated: it ends after {n_bytes} bytes, inside its header"));
    }
    Ok(())
}

/// The header's length and contents, or what is wrong with the file.
fn read_header(bytes: &[u8]) -> Result<(usize, safetensors::tensor::Metadata), String> {
    check_start(bytes, bytes.len() as u64)?;
    SafeTensors::read_metadata(bytes).map_err(|error| match error {
        SafeTensorError::MetadataIncompleteBuffer => format!(
            "the file is truncated or was appended to: its {} bytes are not what its header describes, copy it again",
            bytes.len()
        ),
        error => format!("not a safetensors file ({error}), expected a .safetensors file"),
    })
}

fn list<'a>(names: impl Iterator<Item = &'a String>) -> String {
    let names: Vec<_> = names.map(|name| format!("`{name}`")).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}
