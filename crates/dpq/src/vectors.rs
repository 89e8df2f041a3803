//! Features and ids in: NumPy's .npy, and the .fvecs, .bvecs and .ivecs of public collections of vectors.
//!
//! The name of a file says which it is. In the last three each row is the number of its values, i32, and its values, f32,
//! u8 or i32, little-endian; nothing comes before the first row.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use anyhow::{Context, Result, bail, ensure};

use crate::npy::{self, Element, Matrix};

/// A matrix of features that stays in its file: only rows that are asked for are in memory.
pub(crate) struct Rows {
    pub(crate) n: usize,
    pub(crate) columns: usize,
    path: PathBuf,
    /// One seek and one read at a time.
    file: Mutex<File>,
    begin: u64,
    form: Form,
}

/// How a row lies in a file.
#[derive(Clone, Copy, PartialEq)]
enum Form {
    /// f32, one after another.
    Npy,
    /// Their number and f32.
    Fvecs,
    /// Their number and u8.
    Bvecs,
}

impl Form {
    fn of(path: &Path) -> Self {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("fvecs") => Self::Fvecs,
            Some("bvecs") => Self::Bvecs,
            _ => Self::Npy,
        }
    }

    /// Bytes of a value.
    fn value(self) -> usize {
        if self == Self::Bvecs { 1 } else { 4 }
    }

    /// Bytes of a row of `columns` values.
    fn row(self, columns: usize) -> usize {
        let before = if self == Self::Npy { 0 } else { PREFIX };
        before + columns * self.value()
    }
}

/// Bytes of the number before the values of a row.
const PREFIX: usize = 4;
/// The most values of a row: more are another kind of file.
const COLUMNS: i32 = 1 << 24;
/// Values read at a time when all are read.
const CHUNK: usize = 1 << 22;

impl Rows {
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let open = || -> io::Result<_> {
            let file = File::open(path)?;
            let mut start = Vec::new();
            (&file).take(npy::LONGEST_START).read_to_end(&mut start)?;
            let size = file.metadata()?.len();
            Ok((file, start, size))
        };
        let (file, start, size) = open().with_context(|| format!("cannot read {}", path.display()))?;
        let form = Form::of(path);
        let (n, columns, begin) = if form == Form::Npy {
            npy::matrix_in::<f32>(&start, size, path)?
        } else {
            let [n, columns] =
                vecs_shape(&start, size, form.value()).with_context(|| path.display().to_string())?;
            (n, columns, 0)
        };
        Ok(Self { n, columns, path: path.to_owned(), file: Mutex::new(file), begin, form })
    }

    /// Reads consecutive rows, from row `first` on, as many as `out` holds.
    pub(crate) fn read(&self, first: usize, out: &mut [f32]) -> io::Result<()> {
        let size = self.form.row(self.columns);
        let mut bytes = vec![0; out.len() / self.columns * size];
        let mut file = self.file.lock().expect("no reader panicked");
        file.seek(SeekFrom::Start(self.begin + (first * size) as u64))?;
        file.read_exact(&mut bytes)?;
        drop(file);
        let rows = bytes.chunks_exact(size).zip(out.chunks_exact_mut(self.columns));
        for (row, (bytes, out)) in (first..).zip(rows) {
            let values = match self.form {
                Form::Npy => bytes,
                Form::Fvecs | Form::Bvecs => values_of(bytes, row, self.columns).map_err(io::Error::other)?,
            };
            match self.form {
                Form::Bvecs => out.iter_mut().zip(values).for_each(|(x, &byte)| *x = byte.into()),
                Form::Npy | Form::Fvecs => {
                    out.iter_mut()
                        .zip(values.chunks_exact(4))
                        .for_each(|(x, bytes)| *x = f32::from_le(bytes));
                }
            }
        }
        Ok(())
    }

    /// The same, and refuses what is not finite.
    pub(crate) fn read_finite(&self, first: usize, out: &mut [f32]) -> Result<()> {
        self.read(first, out).with_context(|| format!("cannot read {}", self.path.display()))?;
        if let Some(at) = out.iter().position(|x| !x.is_finite()) {
            let (row, column) = (first + at / self.columns, at % self.columns);
            bail!(
                "{}: row {row}, column {column} is {}, expected finite numbers",
                self.path.display(),
                out[at]
            );
        }
        Ok(())
    }

    /// The first of each run of rows that is read at a time, and their number.
    pub(crate) fn chunks(&self) -> impl Iterator<Item = (usize, usize)> + use<> {
        let (n, step) = (self.n, (CHUNK / self.columns).max(1));
        (0..n).step_by(step).map(move |first| (first, step.min(n - first)))
    }
}

/// Reads features, finite f32 [rows, columns].
pub(crate) fn read_features(path: &Path) -> Result<Matrix<f32>> {
    let rows = Rows::open(path)?;
    let mut values = vec![0.0; rows.n * rows.columns];
    for (first, n) in rows.chunks() {
        rows.read_finite(first, &mut values[first * rows.columns..][..n * rows.columns])?;
    }
    Ok(Matrix { rows: rows.n, columns: rows.columns, values })
}

/// Reads `n` of the rows of features in `path`, as far apart as they can be, or all if there are no more.
pub(crate) fn read_sample(path: &Path, n: usize) -> Result<Matrix<f32>> {
    let rows = Rows::open(path)?;
    if rows.n <= n {
        return read_features(path);
    }
    let mut values = vec![0.0; n * rows.columns];
    for (i, row) in values.chunks_exact_mut(rows.columns).enumerate() {
        rows.read_finite((i as u128 * rows.n as u128 / n as u128) as usize, row)?;
    }
    Ok(Matrix { rows: n, columns: rows.columns, values })
}

/// Reads ids: u64 `[N]` of a .npy file, or the only row or column of an .ivecs file.
pub(crate) fn read_ids(path: &Path) -> Result<Vec<u64>> {
    if path.extension().is_none_or(|extension| extension != "ivecs") {
        return npy::read_vector::<u64>(path);
    }
    let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let ids = || -> Result<Vec<u64>> {
        let [n, columns] = vecs_shape(&bytes, bytes.len() as u64, 4)?;
        ensure!(
            n == 1 || columns == 1,
            "holds {n} rows of {columns} numbers, expected ids in one row or one column"
        );
        let mut ids = Vec::with_capacity(n * columns);
        for (row, bytes) in bytes.chunks_exact(PREFIX + columns * 4).enumerate() {
            for &id in values_of(bytes, row, columns)?.as_chunks().0 {
                let id = i32::from_le_bytes(id);
                ids.push(
                    u64::try_from(id)
                        .ok()
                        .with_context(|| format!("holds the id {id}, expected ids from 0 on"))?,
                );
            }
        }
        Ok(ids)
    };
    ids().with_context(|| path.display().to_string())
}

/// Rows and columns of a file of `size` bytes that begins with `start` and has values of `value` bytes.
fn vecs_shape(start: &[u8], size: u64, value: usize) -> Result<[usize; 2]> {
    let first =
        start.first_chunk().context("is empty, expected rows that begin with the number of their values")?;
    let columns = i32::from_le_bytes(*first);
    ensure!(
        (1..=COLUMNS).contains(&columns),
        "begins with a row of {columns} values, expected 1 to {COLUMNS}: write .fvecs, .bvecs or .ivecs, or name it .npy"
    );
    let row = (PREFIX + columns as usize * value) as u64;
    ensure!(
        size.is_multiple_of(row),
        "of {size} bytes is no whole number of rows of {columns} values, the file is cut off or damaged"
    );
    Ok([usize::try_from(size / row)?, columns as usize])
}

/// The values in the bytes of `row`.
fn values_of(bytes: &[u8], row: usize, columns: usize) -> Result<&[u8]> {
    let (found, values) = bytes.split_first_chunk().context("a row begins with the number of its values")?;
    let found = i32::from_le_bytes(*found);
    ensure!(
        usize::try_from(found).is_ok_and(|found| found == columns),
        "row {row} has {found} values, row 0 has {columns}: expected as many in all"
    );
    Ok(values)
}

#[cfg(test)]
mod tests {
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

    fn fvecs() -> Vec<u8> {
        vecs(|x| x.to_le_bytes().to_vec())
    }

    #[test]
    fn rows_are_read_from_where_they_lie() {
        let npy = file(".npy", &[]);
        npy::write(npy.path(), &[10, 3], &VALUES).unwrap();
        for file in [npy, file(".fvecs", &fvecs()), file(".bvecs", &vecs(|x| vec![x as u8]))] {
            let rows = Rows::open(file.path()).unwrap();
            assert_eq!((rows.n, rows.columns), (10, 3));
            for first in [8, 0, 3] {
                let mut out = [0.0; 6];
                rows.read(first, &mut out).unwrap();
                assert_eq!(out, VALUES[first * 3..][..6]);
            }
            assert!(rows.read(9, &mut [0.0; 6]).is_err());
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
        let rows = Rows::open(npy.path()).unwrap();
        assert_eq!(rows.chunks().collect::<Vec<_>>(), [(0, 2), (2, 2), (4, 1)]);
    }

    #[test]
    fn ids_are_a_row_or_a_column() {
        let ids = |rows: &[&[i32]]| {
            let row = |row: &&[i32]| [&[row.len() as i32], *row].concat();
            let bytes: Vec<u8> = rows.iter().flat_map(row).flat_map(i32::to_le_bytes).collect();
            read_ids(file(".ivecs", &bytes).path()).map_err(|error| format!("{error:#}"))
        };
        assert_eq!(ids(&[&[4, 0, 2]]).unwrap(), [4, 0, 2]);
        assert_eq!(ids(&[&[4], &[0], &[2]]).unwrap(), [4, 0, 2]);
        assert!(ids(&[&[1, 2], &[3, 4]]).unwrap_err().contains("holds 2 rows of 2 numbers"));
        assert!(ids(&[&[1, -2]]).unwrap_err().contains("holds the id -2"));
        let npy = file(".npy", &[]);
        npy::write(npy.path(), &[2], &[7u64, 1]).unwrap();
        assert_eq!(read_ids(npy.path()).unwrap(), [7, 1]);
    }

    #[test]
    fn damaged_files_are_refused() {
        let error = |bytes: &[u8]| {
            let file = file(".fvecs", bytes);
            read_features(file.path()).map(drop).map_err(|error| format!("{error:#}")).unwrap_err()
        };
        let good = fvecs();
        assert!(error(&[]).contains("is empty"));
        for end in (1..good.len()).filter(|end| end % 16 > 0) {
            assert!(!error(&good[..end]).is_empty());
        }
        assert!(error(&good[..17]).contains("of 17 bytes is no whole number of rows of 3 values"));
        for first in [0, -1, i32::MAX] {
            let bytes = [&first.to_le_bytes(), &good[4..]].concat();
            assert!(error(&bytes).contains(&format!("a row of {first} values")));
        }
        let mut other = good.clone();
        other[16] = 4;
        assert!(error(&other).contains("row 1 has 4 values, row 0 has 3"));
        let mut infinite = good;
        infinite[20..24].copy_from_slice(&f32::INFINITY.to_le_bytes());
        assert!(error(&infinite).contains("row 1, column 0 is inf, expected finite numbers"));
    }
}
