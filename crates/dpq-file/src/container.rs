//! Opening, checking and writing containers.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::fs::{self, File};
use std::io::{self, Read};
use std::ops::Deref;
use std::path::{Path, PathBuf};

use memmap2::Mmap;
use safetensors::tensor::TensorInfo;
use safetensors::{Dtype, SafeTensorError, SafeTensors};
use serde_json::json;

use crate::atomic::not_a_file;
use crate::{Error, crc32c, write_atomic};

/// An open safetensors file, in memory or mapped.
pub struct Container {
    path: PathBuf,
    bytes: Box<dyn Deref<Target = [u8]> + Send + Sync>,
    metadata: BTreeMap<String, String>,
    /// Their offsets count from `data`.
    sections: BTreeMap<String, TensorInfo>,
    data: usize,
}

/// A section of a container: `shape.product()` elements of `dtype`, little-endian, row-major.
///
/// `bytes` can start at any address, so read numbers with `from_le_bytes`.
#[derive(Clone, Copy, Debug)]
pub struct Section<'a> {
    /// The type of an element.
    pub dtype: Dtype,
    /// The size of each dimension.
    pub shape: &'a [usize],
    /// The elements.
    pub bytes: &'a [u8],
}

impl fmt::Debug for Container {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Container").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Container {
    /// Reads the file at `path` into memory and checks its header.
    ///
    /// Takes memory for the whole file. [`Container::map`] takes none, and asks for a promise.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be read, [`Error::Format`] if it is not a safetensors file
    /// or has another length than its header says, so too for `map` and [`Container::from_bytes`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        let io = |source| Error::Io { action: "open", path: path.to_owned(), source };
        let mut file = open_file(path).map_err(io)?;
        let n_bytes = file.metadata().map_err(io)?.len();
        // A large file of another kind is refused before it is read.
        let mut bytes = Vec::new();
        file.by_ref().take(START).read_to_end(&mut bytes).map_err(io)?;
        check_start(&bytes, n_bytes).map_err(|problem| Error::Format { path: path.to_owned(), problem })?;
        file.read_to_end(&mut bytes).map_err(io)?;
        Self::parse(path.to_owned(), bytes)
    }

    /// Memory-maps the file at `path` and checks its header. No section is read.
    ///
    /// # Safety
    /// Until the value is dropped, nobody may change or truncate the file, in this process or
    /// another one: its bytes are behind shared references, and reading past the end of a truncated
    /// file ends the process. Replacing the file by renaming another one over its path is allowed,
    /// as is deleting it. [`write()`] and [`write_atomic`] do the former.
    #[expect(unsafe_code, reason = "a mapping is only as constant as its file")]
    pub unsafe fn map(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        let io = |source| Error::Io { action: "open", path: path.to_owned(), source };
        let file = open_file(path).map_err(io)?;
        if file.metadata().map_err(io)?.len() == 0 {
            // Some systems refuse to map an empty file.
            return Self::parse(path.to_owned(), Vec::new());
        }
        // SAFETY: the caller promises that the file does not change while this value, which owns
        // the mapping, lives.
        let map = unsafe { Mmap::map(&file) }.map_err(io)?;
        Self::parse(path.to_owned(), map)
    }

    /// Takes the bytes of a file that is already in memory.
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Self, Error> {
        Self::parse(PathBuf::from("bytes in memory"), bytes)
    }

    fn parse(path: PathBuf, bytes: impl Deref<Target = [u8]> + Send + Sync + 'static) -> Result<Self, Error> {
        let n_bytes = bytes.len() as u64;
        let read = check_start(&bytes, n_bytes).and_then(|()| {
            SafeTensors::read_metadata(&bytes).map_err(|error| match error {
                SafeTensorError::MetadataIncompleteBuffer => format!(
                    "the file is truncated or was appended to: its {n_bytes} bytes are not what its header describes, \
                     copy it again"
                ),
                error => format!("not a safetensors file ({error}), expected a .safetensors file"),
            })
        });
        let (length, header) = match read {
            Ok(read) => read,
            Err(problem) => return Err(Error::Format { path, problem }),
        };
        let metadata = header.metadata().clone().unwrap_or_default().into_iter().collect();
        let sections = header.tensors().into_iter().map(|(name, info)| (name, info.clone())).collect();
        Ok(Self { path, bytes: Box::new(bytes), metadata, sections, data: 8 + length })
    }

    /// Returns the whole file.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Returns the file's path, or `bytes in memory`.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the metadata under `key`.
    ///
    /// # Errors
    /// [`Error::Format`] lists the keys in the file.
    pub fn metadata(&self, key: &str) -> Result<&str, Error> {
        self.metadata.get(key).map(String::as_str).ok_or_else(|| {
            self.missing("metadata", key, self.metadata.keys().filter(|key| !is_checksum(key)))
        })
    }

    /// Returns the section called `name`.
    ///
    /// # Errors
    /// [`Error::Format`] lists the sections in the file.
    pub fn section(&self, name: &str) -> Result<Section<'_>, Error> {
        let info =
            self.sections.get(name).ok_or_else(|| self.missing("section", name, self.sections.keys()))?;
        let (begin, end) = info.data_offsets;
        let bytes = &self.bytes[self.data + begin..self.data + end];
        Ok(Section { dtype: info.dtype, shape: &info.shape, bytes })
    }

    /// Returns the elements of the section called `name`, which is f32 of this shape.
    ///
    /// # Errors
    /// [`Error::Format`] if there is no such section, or if its type or shape differs.
    pub fn floats(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, Error> {
        let section = self.section(name)?;
        if section.dtype != Dtype::F32 || section.shape != shape {
            let Section { dtype, shape: found, .. } = section;
            return Err(
                self.error(format!("section `{name}` has {dtype:?} {found:?}, expected F32 {shape:?}"))
            );
        }
        Ok(section.bytes.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect())
    }

    /// Returns the names of the sections, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.sections.keys().map(String::as_str)
    }

    /// Reads every byte and compares the checksums.
    ///
    /// # Errors
    /// [`Error::Format`] names the part that changed, or else a section without a checksum, as in
    /// files of other programs.
    pub fn verify(&self) -> Result<(), Error> {
        let damaged = |part: &str| {
            self.error(format!("{part} is damaged, make the file again or restore it from a copy"))
        };
        let mut unchecked = None;
        for name in self.names() {
            match self.metadata.get(&format!("{CRC}{name}")) {
                None => unchecked = unchecked.or(Some(name)),
                Some(expected) if *expected == checksum(self.section(name)?.bytes) => {}
                Some(_) => return Err(damaged(&format!("section `{name}`"))),
            }
        }
        if let Some(name) = unchecked {
            let problem = format!("section `{name}` carries no checksum, so it cannot be verified");
            return Err(self.error(problem));
        }
        let mut metadata = self.metadata.clone();
        let expected = metadata.remove(HEADER_CRC);
        let intact = expected == Some(checksum(&encode_header(&metadata, &self.sections)))
            && encode_header(&self.metadata, &self.sections) == self.bytes[..self.data];
        if intact { Ok(()) } else { Err(damaged("the header")) }
    }

    fn missing<'a>(&self, part: &str, name: &str, found: impl Iterator<Item = &'a String>) -> Error {
        let names: Vec<_> = found.map(|name| format!("`{name}`")).collect();
        let found = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        self.error(format!("no {part} `{name}`, found {found}"))
    }

    fn error(&self, problem: String) -> Error {
        Error::Format { path: self.path.clone(), problem }
    }
}

/// Writes a container atomically: sorted keys, a CRC32C per section.
///
/// # Errors
/// [`Error::Io`] if the system refuses. [`Error::Bytes`] if a section does not have the bytes of
/// its type and shape. [`Error::Name`] if two sections share a name, a section is called
/// `__metadata__`, or a metadata key is `crc` or begins with `crc.`, which are kept for checksums.
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
pub fn to_bytes(
    metadata: &BTreeMap<String, String>,
    sections: &[(&str, Section<'_>)],
) -> Result<Vec<u8>, Error> {
    let (header, sections) = parts(metadata, sections)?;
    Ok([&[header.as_slice()], sections.as_slice()].concat().concat())
}

/// Returns the header of a file, with its checksums, and the bytes of its sections in the order of
/// their names.
fn parts<'a>(
    metadata: &BTreeMap<String, String>,
    sections: &[(&str, Section<'a>)],
) -> Result<(Vec<u8>, Vec<&'a [u8]>), Error> {
    if let Some(key) = metadata.keys().find(|key| is_checksum(key)) {
        return Err(Error::Name(key.clone()));
    }
    let mut sorted = BTreeMap::new();
    for &(name, section) in sections {
        if name == "__metadata__" || sorted.insert(name, section).is_some() {
            return Err(Error::Name(name.to_owned()));
        }
    }
    let (mut metadata, mut infos, mut begin) = (metadata.clone(), BTreeMap::new(), 0);
    for (&name, &Section { dtype, shape, bytes }) in &sorted {
        let shape = shape.to_vec();
        let n_bits = shape.iter().try_fold(dtype.bitsize() as u128, |bits, &n| bits.checked_mul(n as u128));
        if n_bits != Some(8 * bytes.len() as u128) {
            return Err(Error::Bytes { name: name.to_owned(), n_bytes: bytes.len(), dtype, shape });
        }
        metadata.insert(format!("{CRC}{name}"), checksum(bytes));
        let data_offsets = (begin, begin + bytes.len());
        infos.insert(name.to_owned(), TensorInfo { dtype, shape, data_offsets });
        begin = data_offsets.1;
    }
    metadata.insert(HEADER_CRC.to_owned(), checksum(&encode_header(&metadata, &infos)));
    Ok((encode_header(&metadata, &infos), sorted.values().map(|section| section.bytes).collect()))
}

/// Returns the header as this crate writes it: sorted keys, sections in the order of their names,
/// no gaps. It is a length field and JSON, padded so that sections begin at a multiple of 8.
fn encode_header(metadata: &BTreeMap<String, String>, sections: &BTreeMap<String, TensorInfo>) -> Vec<u8> {
    let mut json = format!("{{\"__metadata__\":{}", json!(metadata));
    for (name, TensorInfo { dtype, shape, data_offsets: (begin, end) }) in sections {
        let (name, dtype) = (json!(name), json!(dtype));
        write!(json, ",{name}:{{\"dtype\":{dtype},\"shape\":{shape:?},\"data_offsets\":[{begin},{end}]}}")
            .expect("writing to a string");
    }
    json.push('}');
    json.extend(std::iter::repeat_n(' ', json.len().next_multiple_of(8) - json.len()));
    [&(json.len() as u64).to_le_bytes(), json.as_bytes()].concat()
}

/// The prefix of metadata keys that hold the checksums of sections.
const CRC: &str = "crc.";

/// The metadata key that holds the checksum of the header without this entry.
const HEADER_CRC: &str = "crc";

fn is_checksum(key: &str) -> bool {
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

/// The maximum number of bytes that [`check_start`] looks at.
const START: u64 = 32;

/// Checks the first bytes of a file of `n_bytes`.
fn check_start(start: &[u8], n_bytes: u64) -> Result<(), String> {
    if n_bytes == 0 {
        return Err("the file is empty, make it again or restore it from a copy".to_owned());
    }
    if start.starts_with(b"version https://git-lfs") {
        let pointer = "this is a Git LFS pointer, not the file it points to, run `git lfs pull`";
        return Err(pointer.to_owned());
    }
    if start.get(8).is_some_and(|&byte| byte != b'{') {
        return Err("not a safetensors file, expected a .safetensors file".to_owned());
    }
    match start.first_chunk().map(|&length| u64::from_le_bytes(length)) {
        Some(length) if length <= n_bytes.saturating_sub(8) => Ok(()),
        _ => Err(format!("the file is truncated: it ends after {n_bytes} bytes, inside its header")),
    }
}
