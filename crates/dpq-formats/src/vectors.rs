//! Features and ids in .npy files, in the .fvecs, .bvecs and .ivecs files of public collections of
//! vectors, and features in .safetensors files.
//!
//! The extension decides the format, in upper or lower case. In a .fvecs, .bvecs or .ivecs file
//! each row is the number of its values, i32, followed by its values, f32, u8 or i32,
//! little-endian; there is no header.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use dpq_file::{Container, Dtype, Section};
use memmap2::Mmap;

use crate::npy::{self, Matrix, NpyFile};
use crate::{Error, Result, extension, file};

/// A matrix of features that stays in its file: only the rows that are read are in memory. An open
/// .safetensors file is in memory as a whole, unless it is mapped.
#[derive(Debug)]
pub struct FeatureFile {
    rows: usize,
    columns: usize,
    path: PathBuf,
    source: Source,
    /// The offset of the first row.
    begin: u64,
    /// The bytes before the values of a row: none in a .npy file, else the number of the values.
    prefix: usize,
    /// 4 for f32, 1 for u8.
    value_size: usize,
}

/// The bytes of a file.
#[derive(Debug)]
enum Source {
    /// A seek and the read after it belong together.
    File(Mutex<File>),
    Map(Mmap),
    /// A .safetensors file, and the name of its only section.
    Container(Container, String),
}

/// The size of the number before the values of a row.
const PREFIX: usize = 4;
/// The maximum number of values per row. A larger number means another kind of file.
const MAX_COLUMNS: i32 = 1 << 24;
/// Values read at a time when all are read.
const CHUNK: usize = 1 << 22;

impl FeatureFile {
    /// Opens a .npy, .fvecs, .bvecs or .safetensors file; the latter holds one tensor. A file with
    /// another extension is read as .npy.
    ///
    /// # Errors
    /// [`Error::Read`], [`Error::NotAFile`] or [`Error::Container`] if the file cannot be opened,
    /// [`Error::File`] if it does not hold a matrix of f32 (u8 in a .bvecs file).
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        if extension(path) == "safetensors" {
            return Self::in_container(path, Container::open(path)?);
        }
        Self::with(path, |file| Ok(Source::File(Mutex::new(file))))
    }

    /// Opens a file as [`open`](Self::open) does, and memory-maps it: reading scattered rows takes
    /// no calls of the system.
    ///
    /// # Safety
    /// Until the value is dropped, nobody may change or truncate the file, in this process or
    /// another one. Replacing or deleting it is allowed: [`npy::write`] renames a new file over an
    /// old one.
    #[expect(unsafe_code, reason = "a mapping is only as constant as its file")]
    pub unsafe fn map(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        if extension(path) == "safetensors" {
            // SAFETY: the caller promises what `Container::map` asks for.
            return Self::in_container(path, unsafe { Container::map(path) }?);
        }
        // SAFETY: the caller promises that the file does not change while this value lives.
        Self::with(path, |file| Ok(Source::Map(unsafe { Mmap::map(&file) }?)))
    }

    /// Checks another file than .safetensors, and takes its bytes by `source`.
    fn with(path: &Path, source: impl FnOnce(File) -> Result<Source>) -> Result<Self> {
        let (prefix, value_size) = match extension(path).as_str() {
            "fvecs" => (PREFIX, 4),
            "bvecs" => (PREFIX, 1),
            _ => (0, 4),
        };
        let ([rows, columns], file, begin) = if prefix == 0 {
            let npy = NpyFile::open(path)?;
            (npy.matrix_shape::<f32>()?, npy.file, npy.header.begin)
        } else {
            let (file, size) = file::open(path)?;
            (vecs_shape(&file, size, value_size).map_err(|error| error.at(path))?, file, 0)
        };
        let source = source(file).map_err(|error| error.at(path))?;
        Ok(Self { rows, columns, path: path.to_owned(), source, begin, prefix, value_size })
    }

    fn in_container(path: &Path, container: Container) -> Result<Self> {
        let names: Vec<String> = container.names().map(str::to_owned).collect();
        let [name] = &names[..] else {
            let found = format!("holds {} tensors", names.len());
            return Err(Error::kind(found, "one matrix of features").at(path));
        };
        let Section { dtype, shape, .. } = container.section(name)?;
        let (Dtype::F32, &[rows, columns @ 1..=usize::MAX]) = (dtype, shape) else {
            let found = format!("tensor `{name}` is {dtype:?} {shape:?}");
            return Err(Error::kind(found, "F32 [rows, columns]").at(path));
        };
        let source = Source::Container(container, name.clone());
        Ok(Self { rows, columns, path: path.to_owned(), source, begin: 0, prefix: 0, value_size: 4 })
    }

    /// The number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The number of values per row, at least 1.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Reads consecutive rows, starting with row `first`, into `out` [rows, columns].
    ///
    /// # Errors
    /// [`Error::Read`] if the system fails, or if there are fewer rows; [`Error::File`] if a row
    /// has another length than row 0.
    pub fn read(&self, first: usize, out: &mut [f32]) -> Result<()> {
        self.read_rows(first, out).map_err(|error| error.at(&self.path))
    }

    fn read_rows(&self, first: usize, out: &mut [f32]) -> Result<()> {
        let size = self.prefix + self.columns * self.value_size;
        let (begin, length) = (self.begin + first as u64 * size as u64, out.len() / self.columns * size);
        let mut buffer = Vec::new();
        let bytes = match &self.source {
            Source::File(file) => {
                buffer.resize(length, 0);
                let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
                file.seek(SeekFrom::Start(begin))?;
                file.read_exact(&mut buffer)?;
                &buffer[..]
            }
            Source::Map(bytes) => part(bytes, begin, length)?,
            Source::Container(container, name) => part(container.section(name)?.bytes, begin, length)?,
        };
        let rows = bytes.chunks_exact(size).zip(out.chunks_exact_mut(self.columns));
        for (row, (bytes, out)) in (first..).zip(rows) {
            let values = if self.prefix == 0 { bytes } else { vecs_values(bytes, row, self.columns)? };
            if self.value_size == 1 {
                out.iter_mut().zip(values).for_each(|(x, &byte)| *x = byte.into());
            } else {
                out.iter_mut()
                    .zip(values.as_chunks().0)
                    .for_each(|(x, &bytes)| *x = f32::from_le_bytes(bytes));
            }
        }
        Ok(())
    }

    /// Reads rows as [`FeatureFile::read`] does, and refuses infinite values and NaN.
    ///
    /// # Errors
    /// Those of [`FeatureFile::read`], and [`Error::File`] if a value is not finite.
    pub fn read_finite(&self, first: usize, out: &mut [f32]) -> Result<()> {
        self.read(first, out)?;
        let Some(at) = out.iter().position(|x| !x.is_finite()) else { return Ok(()) };
        let (row, column) = (first + at / self.columns, at % self.columns);
        let found = format!("row {row}, column {column} is {}", out[at]);
        Err(Error::kind(found, "finite numbers").at(&self.path))
    }

    /// Returns the first row and the number of rows of consecutive parts, each of about 16 MB.
    pub fn chunks(&self) -> impl Iterator<Item = (usize, usize)> + use<> {
        let (n, step) = (self.rows, (CHUNK / self.columns).max(1));
        (0..n).step_by(step).map(move |first| (first, step.min(n - first)))
    }
}

/// Reads all features, finite f32 [rows, columns].
///
/// # Errors
/// Those of [`FeatureFile`].
pub fn read_features(path: impl AsRef<Path>) -> Result<Matrix<f32>> {
    let file = FeatureFile::open(path)?;
    let (rows, columns) = (file.rows, file.columns);
    let mut values = vec![0.0; rows * columns];
    for (first, n) in file.chunks() {
        file.read_finite(first, &mut values[first * columns..][..n * columns])?;
    }
    Ok(Matrix { rows, columns, values })
}

/// Reads `n` rows of features at equal distances, or all if there are at most `n`.
///
/// # Errors
/// Those of [`FeatureFile`].
pub fn read_sample(path: impl AsRef<Path>, n: usize) -> Result<Matrix<f32>> {
    let file = FeatureFile::open(path)?;
    let (rows, columns) = (n.min(file.rows), file.columns);
    let mut values = vec![0.0; rows * columns];
    for (i, row) in values.chunks_exact_mut(columns).enumerate() {
        file.read_finite((i as u128 * file.rows as u128 / rows as u128) as usize, row)?;
    }
    Ok(Matrix { rows, columns, values })
}

/// Reads ids: uint64 or int64 `[N]` of a .npy file, or the only row or column of an .ivecs file.
///
/// # Errors
/// [`Error::Read`] or [`Error::NotAFile`] if the file cannot be opened, [`Error::File`] if it does
/// not hold ids, or if an id is negative.
pub fn read_ids(path: impl AsRef<Path>) -> Result<Vec<u64>> {
    let path = path.as_ref();
    let ids = if extension(path) == "ivecs" {
        read_ivecs(path)?
    } else if NpyFile::open(path)?.holds::<i64>() {
        npy::read_vector(path)?
    } else {
        return npy::read_vector(path);
    };
    let id = |id: i64| u64::try_from(id).map_err(|_| Error::id(id, u64::MAX).at(path));
    ids.into_iter().map(id).collect()
}

fn read_ivecs(path: &Path) -> Result<Vec<i64>> {
    let (mut file, size) = file::open(path)?;
    let mut read = || -> Result<_> {
        let [rows, columns] = vecs_shape(&file, size, 4)?;
        if rows != 1 && columns != 1 {
            return Err(Error::kind(
                format!("holds {rows} rows of {columns} numbers"),
                "ids in one row or one column",
            ));
        }
        file.rewind()?;
        let bytes: Vec<u8> = npy::read_values(&file, size as usize)?;
        let mut ids = Vec::with_capacity(rows * columns);
        for (row, bytes) in bytes.chunks_exact(PREFIX + columns * 4).enumerate() {
            let values = vecs_values(bytes, row, columns)?.as_chunks().0;
            ids.extend(values.iter().map(|&id| i64::from(i32::from_le_bytes(id))));
        }
        Ok(ids)
    };
    read().map_err(|error| error.at(path))
}

/// Returns `length` bytes that start at `begin`.
fn part(bytes: &[u8], begin: u64, length: usize) -> Result<&[u8]> {
    let part = usize::try_from(begin).ok().and_then(|begin| bytes.get(begin..)?.get(..length));
    Ok(part.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?)
}

/// Returns the rows and columns of a file of `size` bytes whose values take `value_size` bytes
/// each.
fn vecs_shape(mut file: &File, size: u64, value_size: usize) -> Result<[usize; 2]> {
    if size < PREFIX as u64 {
        return Err(Error::truncated(PREFIX as u64, size));
    }
    let mut columns = [0; PREFIX];
    file.read_exact(&mut columns)?;
    let found = i32::from_le_bytes(columns);
    if !(1..=MAX_COLUMNS).contains(&found) {
        let help = "the file is damaged, or not the .fvecs, .bvecs or .ivecs file that its name promises";
        return Err(Error::range("values in row 0", found, [1, MAX_COLUMNS as u64], help));
    }
    let columns = found as usize;
    let row = (PREFIX + columns * value_size) as u64;
    let left = size % row;
    match usize::try_from(size / row) {
        Ok(rows) if left == 0 => Ok([rows, columns]),
        _ => Err(Error::truncated(row, left)),
    }
}

/// The values in the bytes of `row`.
fn vecs_values(bytes: &[u8], row: usize, columns: usize) -> Result<&[u8]> {
    let (prefix, values) = bytes.split_first_chunk().expect("a row begins with the number of its values");
    let found = i32::from_le_bytes(*prefix);
    if usize::try_from(found) != Ok(columns) {
        let found = format!("row {row} has {found} values, row 0 has {columns}:");
        return Err(Error::Invalid(found + " expected rows of equal length"));
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const VALUES: [f32; 30] = {
        let mut values = [0.0; 30];
        let mut i = 0;
        while i < 30 {
            values[i] = i as f32;
            i += 1;
        }
        values
    };

    fn file(extension: &str, bytes: &[u8]) -> tempfile::NamedTempFile {
        let file = tempfile::Builder::new().suffix(extension).tempfile().unwrap();
        fs::write(file.path(), bytes).unwrap();
        file
    }

    /// Rows of three values, each of which `bytes` writes.
    fn vecs(bytes: impl Fn(f32) -> Vec<u8>) -> Vec<u8> {
        let row = |row: &[f32]| {
            [3i32.to_le_bytes().to_vec(), row.iter().flat_map(|&x| bytes(x)).collect()].concat()
        };
        VALUES.chunks(3).flat_map(row).collect()
    }

    /// A .safetensors file of tensors with the first of the values.
    fn tensors(tensors: &[(&str, &[usize])]) -> Vec<u8> {
        let bytes: Vec<u8> = VALUES.iter().flat_map(|x| x.to_le_bytes()).collect();
        let mut sections = Vec::new();
        for &(name, shape) in tensors {
            let bytes = &bytes[..4 * shape.iter().product::<usize>()];
            sections.push((name, Section { dtype: Dtype::F32, shape, bytes }));
        }
        dpq_file::to_bytes(&Default::default(), &sections).unwrap()
    }

    #[test]
    fn a_safetensors_file_holds_one_matrix() {
        let error = |bytes: &[u8]| {
            let file = file(".safetensors", bytes);
            FeatureFile::open(file.path()).unwrap_err().to_string()
        };
        assert!(error(&tensors(&[])).contains("holds 0 tensors, expected one matrix"));
        assert!(error(&tensors(&[("x", &[2, 2]), ("y", &[1, 1])])).contains("holds 2 tensors"));
        for shape in [&[4][..], &[2, 0], &[1, 2, 2]] {
            assert!(error(&tensors(&[("x", shape)])).contains("expected F32 [rows, columns]"));
        }
        assert!(error(&tensors(&[("x", &[10, 3])])[..100]).contains("truncated"));
    }

    fn fvecs() -> Vec<u8> {
        vecs(|x| x.to_le_bytes().to_vec())
    }

    #[test]
    fn rows_are_read_from_where_they_lie() {
        let npy = file(".npy", &[]);
        npy::write(npy.path(), &[10, 3], &VALUES).unwrap();
        let files = [
            npy,
            file(".fvecs", &fvecs()),
            file(".bvecs", &vecs(|x| vec![x as u8])),
            file(".safetensors", &tensors(&[("x", &[10, 3])])),
        ];
        for file in files {
            // SAFETY: this test alone knows the file.
            #[expect(unsafe_code, reason = "a mapping is only as constant as its file")]
            let mapped = unsafe { FeatureFile::map(file.path()) };
            for rows in [FeatureFile::open(file.path()), mapped] {
                let rows = rows.unwrap();
                assert_eq!((rows.rows(), rows.columns()), (10, 3));
                for first in [8, 0, 3] {
                    let mut out = [0.0; 6];
                    rows.read(first, &mut out).unwrap();
                    assert_eq!(out, VALUES[first * 3..][..6]);
                }
                for first in [9, 10, usize::MAX / 16] {
                    assert!(rows.read(first, &mut [0.0; 6]).is_err());
                }
            }
            assert_eq!(read_features(file.path()).unwrap().values, VALUES);
            let sample = read_sample(file.path(), 3).unwrap();
            assert_eq!(
                (sample.rows, sample.values),
                (3, [&VALUES[..3], &VALUES[9..12], &VALUES[18..21]].concat())
            );
            assert_eq!(read_sample(file.path(), 11).unwrap().rows, 10);
        }
    }

    #[test]
    fn chunks_are_all_rows_in_order() {
        let npy = file(".npy", &[]);
        npy::write(npy.path(), &[5, CHUNK / 2], &vec![0.0f32; 5 * CHUNK / 2]).unwrap();
        let rows = FeatureFile::open(npy.path()).unwrap();
        assert_eq!(rows.chunks().collect::<Vec<_>>(), [(0, 2), (2, 2), (4, 1)]);
    }

    #[test]
    fn ids_are_a_row_or_a_column() {
        let ids = |rows: &[&[i32]]| {
            let row = |row: &&[i32]| [&[row.len() as i32], *row].concat();
            let bytes: Vec<u8> = rows.iter().flat_map(row).flat_map(i32::to_le_bytes).collect();
            read_ids(file(".ivecs", &bytes).path()).map_err(|error| error.to_string())
        };
        assert_eq!(ids(&[&[4, 0, 2]]).unwrap(), [4, 0, 2]);
        assert_eq!(ids(&[&[4], &[0], &[2]]).unwrap(), [4, 0, 2]);
        assert!(ids(&[&[1, 2], &[3, 4]]).unwrap_err().contains("holds 2 rows of 2 numbers"));
        assert!(ids(&[&[1, -2]]).unwrap_err().contains("has -2 as an id"));
        let npy = file(".npy", &[]);
        npy::write(npy.path(), &[2], &[7u64, 1]).unwrap();
        assert_eq!(read_ids(npy.path()).unwrap(), [7, 1]);
    }

    #[test]
    fn damaged_files_are_refused() {
        let error = |bytes: &[u8]| {
            let file = file(".fvecs", bytes);
            read_features(file.path()).map(drop).map_err(|error| error.to_string()).unwrap_err()
        };
        let good = fvecs();
        assert!(error(&[]).contains("needs 4 more bytes where 0 are left"));
        for end in (1..good.len()).filter(|end| end % 16 > 0) {
            assert!(!error(&good[..end]).is_empty());
        }
        assert!(error(&good[..17]).contains("needs 16 more bytes where 1 are left"));
        for first in [0, -1, i32::MAX] {
            let bytes = [&first.to_le_bytes(), &good[4..]].concat();
            assert!(error(&bytes).contains(&format!("has {first} values in row 0")));
        }
        let mut other = good.clone();
        other[16] = 4;
        assert!(error(&other).contains("row 1 has 4 values, row 0 has 3"));
        let mut infinite = good;
        infinite[20..24].copy_from_slice(&f32::INFINITY.to_le_bytes());
        assert!(error(&infinite).contains("row 1, column 0 is inf, expected finite numbers"));
    }
}
