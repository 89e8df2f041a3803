//! The manifest: one file that is replaced by each commit. It names the other files and holds the
//! tail.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use dpq_codebook::Codebooks;
use dpq_file::{Container, Dtype, Section};
use dpq_index::Metric;

use crate::Error;
use crate::folder::{Folder, Kind};
use crate::items::Items;
use crate::names;
use crate::segment::{Part, Segment};

const FORMAT: &str = "dpq-live";
const FORMAT_DELETED: &str = "dpq-deleted";
const VERSION: &str = "1";

/// Numbers per segment: of its files, of its items, of deleted items, of the file that lists these,
/// and 1 if it has names.
const COLUMNS: usize = 5;

/// No commit and no file gets a greater number, even after many more.
const MAX_NUMBER: u64 = u64::MAX / 2;

/// A commit.
#[derive(Clone)]
pub(crate) struct Commit {
    pub(crate) folder: Folder,
    pub(crate) codebooks: Arc<Codebooks>,
    pub(crate) metric: Metric,
    /// How many commits there were.
    pub(crate) number: u64,
    /// A number greater than that of any file.
    pub(crate) next: u64,
    pub(crate) parts: Vec<Part>,
    pub(crate) tail: Arc<Items>,
}

impl Commit {
    /// Opens the last commit of a folder.
    pub(crate) fn open(folder: &Folder) -> Result<Self, Error> {
        let mut last = None;
        loop {
            let manifest = Container::open(folder.manifest()).map_err(|error| match error {
                dpq_file::Error::Io { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                    Error::NotLive { path: folder.path().to_owned() }
                }
                error => error.into(),
            })?;
            match Self::read(folder, &manifest) {
                // A writer may have removed files since the manifest was read. Then there is a new
                // one.
                Err(error) if error.is_missing_file() && last.as_deref() != Some(manifest.bytes()) => {
                    last = Some(manifest.bytes().to_vec());
                }
                read => return read,
            }
        }
    }

    fn read(folder: &Folder, manifest: &Container) -> Result<Self, Error> {
        check_format(manifest, FORMAT)?;
        let bad = |reason: String| Error::Format { path: manifest.path().to_owned(), reason };
        let file = Container::open(folder.codebook())?;
        file.verify()?;
        let codebooks = Codebooks::from_container(&file)?;
        let (found, expected) = (codebooks.fingerprint(), manifest.metadata("fingerprint")?);
        if found != expected {
            let reason = format!("is of codebooks {expected}, but those beside it are {found}: restore them");
            return Err(bad(reason));
        }
        let metric: Metric = manifest.metadata("metric")?.parse()?;
        let [number, next] = ["commit", "next"].map(|key| manifest.metadata(key).map(str::parse::<u64>));
        let (Ok(number), Ok(next)) = (number?, next?) else {
            return Err(bad("has a commit or file number that is not one".to_owned()));
        };
        let numbers = |name: &str, columns: usize| {
            let Section { dtype, shape, bytes } = manifest.section(name)?;
            if dtype != Dtype::U64 || !bytes.len().is_multiple_of(8 * columns) {
                let reason = format!("section `{name}` has {dtype:?} {shape:?}, expected U64 [n, {columns}]");
                return Err(bad(reason));
            }
            let values = bytes.as_chunks().0.iter().map(|&bytes| u64::from_le_bytes(bytes));
            Ok(values.collect::<Vec<_>>())
        };
        let (ids, codes) = (numbers("tail.ids", 1)?, manifest.section("tail.codes")?);
        if codes.dtype != Dtype::U8 || codes.shape != [ids.len(), codebooks.n_levels()] {
            let Section { dtype, shape, .. } = codes;
            let (n, levels) = (ids.len(), codebooks.n_levels());
            let reason = format!("section `tail.codes` has {dtype:?} {shape:?}, expected U8 [{n}, {levels}]");
            return Err(bad(reason));
        }
        let (named, ends) = (numbers("tail.named", 1)?, numbers("tail.ends", 1)?);
        let Some(names) = names::from_columns(&named, &ends, manifest.section("tail.text")?.bytes) else {
            return Err(bad("has names of the tail that do not fit their ends".to_owned()));
        };
        let tail = Items { ids, codes: codes.bytes.to_vec(), names };
        if let Some(reason) = unusable(&tail, codebooks.n_codewords()) {
            return Err(bad(reason));
        }
        let segments = numbers("segments", COLUMNS)?;
        let segments = segments.as_chunks::<COLUMNS>().0;
        // A file of a number that is given again would be replaced.
        let is_given = |&[file, _, _, deleted, _]: &[u64; COLUMNS]| file.max(deleted) < next;
        if number.max(next) > MAX_NUMBER || !segments.iter().all(is_given) {
            return Err(bad(format!("has commit {number} or the number of a file that is not below {next}")));
        }
        // These files first: reading segments takes long, and they outlive many commits.
        let deleted = segments.iter().map(|&[.., file, _]| match file {
            0 => Ok(Vec::new()),
            file => read_deleted(folder, file),
        });
        let deleted = deleted.collect::<Result<Vec<_>, Error>>()?;
        let open = |(row, deleted): (&[u64; COLUMNS], _)| {
            let &[number, n_items, n_deleted, deleted_file, has_names] = row;
            let segment = Segment::open(folder, number, has_names == 1)?;
            let (index, path) = (&segment.index, folder.file(Kind::Segment, number));
            let bad = |reason: String| Error::Format { path, reason };
            let found = (index.fingerprint(), index.metric(), index.len() as u64);
            if found != (codebooks.fingerprint(), metric, n_items) {
                let (fingerprint, metric, n) = found;
                return Err(bad(format!(
                    "has {n} items of codebooks {fingerprint} and metric {metric}, which the manifest beside it does \
                     not: restore both from one copy"
                )));
            }
            let part = Part::new(segment);
            if (deleted_file, n_deleted) == (0, 0) {
                return Ok(part);
            }
            let part = part.with_deleted(deleted, deleted_file);
            let part = part.filter(|part| part.n_deleted() as u64 == n_deleted);
            part.ok_or_else(|| bad(format!("has other items than deleted-{deleted_file}.dpq lists")))
        };
        let parts = segments.iter().zip(deleted).map(open).collect::<Result<_, Error>>()?;
        let (folder, codebooks, tail) = (folder.clone(), Arc::new(codebooks), Arc::new(tail));
        Ok(Self { folder, codebooks, metric, number, next, parts, tail })
    }

    /// Makes this the last commit of the folder.
    pub(crate) fn write(&self) -> Result<(), Error> {
        let of_part = |part: &Part| {
            let Part { segment, deleted_file, .. } = part;
            let (n_items, n_deleted) = (segment.index.len() as u64, part.n_deleted() as u64);
            [segment.number, n_items, n_deleted, *deleted_file, segment.names.is_some().into()]
        };
        let bytes = |numbers: &[u64]| -> Vec<u8> { numbers.iter().flat_map(|n| n.to_le_bytes()).collect() };
        let segments: Vec<u64> = self.parts.iter().flat_map(of_part).collect();
        let (segments, ids) = (bytes(&segments), bytes(&self.tail.ids));
        let (named, ends, text) = names::columns(&self.tail.names);
        let (n, n_named, n_levels) = (self.tail.ids.len(), self.tail.names.len(), self.codebooks.n_levels());
        let shapes = ([self.parts.len(), COLUMNS], [n], [n, n_levels], [n_named], [text.len()]);
        let numbers = |shape, bytes| Section { dtype: Dtype::U64, shape, bytes };
        let sections = [
            ("segments", numbers(&shapes.0[..], &segments[..])),
            ("tail.ids", numbers(&shapes.1, &ids)),
            ("tail.codes", Section { dtype: Dtype::U8, shape: &shapes.2, bytes: &self.tail.codes }),
            ("tail.named", numbers(&shapes.3, &named)),
            ("tail.ends", numbers(&shapes.3, &ends)),
            ("tail.text", Section { dtype: Dtype::U8, shape: &shapes.4, bytes: &text }),
        ];
        let metadata = [
            ("format", FORMAT.to_owned()),
            ("version", VERSION.to_owned()),
            ("metric", self.metric.to_string()),
            ("fingerprint", self.codebooks.fingerprint()),
            ("commit", self.number.to_string()),
            ("next", self.next.to_string()),
        ];
        let metadata = metadata.map(|(key, value)| (key.to_owned(), value)).into();
        Ok(dpq_file::write(self.folder.manifest(), &metadata, &sections)?)
    }

    /// Returns the numbered files that the commit needs.
    pub(crate) fn files(&self) -> Vec<PathBuf> {
        let (folder, mut files) = (&self.folder, Vec::new());
        for Part { segment, deleted_file, .. } in &self.parts {
            files.push(folder.file(Kind::Segment, segment.number));
            files.extend(segment.names.iter().map(|_| folder.file(Kind::Names, segment.number)));
            files.extend((*deleted_file > 0).then(|| folder.file(Kind::Deleted, *deleted_file)));
        }
        files
    }
}

/// Returns why no index can be built of the items of a tail, if so.
fn unusable(tail: &Items, n_codewords: usize) -> Option<String> {
    let mut ids = tail.ids.clone();
    ids.sort_unstable();
    if let Some(pair) = ids.windows(2).find(|pair| pair[0] == pair[1]) {
        return Some(format!("has the id {} twice in its tail", pair[0]));
    }
    if let Some(code) = tail.codes.iter().find(|&&code| usize::from(code) >= n_codewords) {
        return Some(format!("has a code with {code} in its tail, of {n_codewords} codewords"));
    }
    let unknown = tail.names.keys().find(|id| ids.binary_search(id).is_err())?;
    Some(format!("has a name of id {unknown}, which is not in its tail"))
}

/// Writes the items of a segment that were deleted.
pub(crate) fn write_deleted(folder: &Folder, number: u64, deleted: &[u64]) -> Result<(), Error> {
    let bytes: Vec<u8> = deleted.iter().flat_map(|word| word.to_le_bytes()).collect();
    let section = Section { dtype: Dtype::U64, shape: &[deleted.len()], bytes: &bytes };
    let metadata = [("format", FORMAT_DELETED), ("version", VERSION)];
    let metadata = metadata.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    Ok(dpq_file::write(folder.file(Kind::Deleted, number), &metadata, &[("deleted", section)])?)
}

fn read_deleted(folder: &Folder, number: u64) -> Result<Vec<u64>, Error> {
    let file = Container::open(folder.file(Kind::Deleted, number))?;
    check_format(&file, FORMAT_DELETED)?;
    let words = file.section("deleted")?.bytes.as_chunks().0;
    Ok(words.iter().map(|&bytes| u64::from_le_bytes(bytes)).collect())
}

/// Checks every byte of a small file, its format and its version.
fn check_format(file: &Container, expected: &str) -> Result<(), Error> {
    let [format, version] = ["format", "version"].map(|key| file.metadata(key).unwrap_or("none"));
    if [format, version] != [expected, VERSION] {
        let reason = format!(
            "has format {format}, version {version}, this program reads {expected}, version {VERSION}: use a newer \
             program, or restore it from a copy"
        );
        return Err(Error::Format { path: file.path().to_owned(), reason });
    }
    Ok(file.verify()?)
}
