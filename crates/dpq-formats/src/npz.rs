//! NumPy's .npz archives of several arrays, as numpy.savez and numpy.savez_compressed write them.

use std::fs::File;
use std::io::{BufReader, Cursor, Read, Write};
use std::path::{Path, PathBuf};

use npyz::Order;
use zip::write::FileOptions;
use zip::{CompressionMethod, ZipArchive, ZipWriter};

use crate::npy::{self, Element, Header};
use crate::{Error, Result, file};

/// An array of any number of dimensions, in C order: shape and values.
pub type Array<T> = (Vec<usize>, Vec<T>);

/// An open .npz archive.
#[derive(Debug)]
pub struct NpzReader {
    archive: ZipArchive<BufReader<File>>,
    path: PathBuf,
}

/// The maximum size of an array in bytes. A small archive may claim to hold more than the memory
/// does.
const MAX_SIZE: u64 = 1 << 30;

impl NpzReader {
    /// Opens an archive and reads its directory.
    ///
    /// # Errors
    /// [`Error::Read`] or [`Error::NotAFile`] if the file cannot be opened, [`Error::File`] if it
    /// is not an archive.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let (file, _) = file::open(path)?;
        let archive = ZipArchive::new(BufReader::new(file));
        let archive = archive.map_err(|_| Error::format(".npz archive", "numpy.savez").at(path))?;
        Ok(Self { archive, path: path.to_owned() })
    }

    /// Returns the names of all arrays.
    pub fn names(&self) -> Vec<String> {
        let names = self.archive.file_names().filter_map(npyz::npz::array_name_from_file_name);
        names.map(str::to_owned).collect()
    }

    /// Reads one array. Fortran order becomes C order.
    ///
    /// # Errors
    /// [`Error::File`] if there is no array of this name, if its elements are of another type, if
    /// it has more than 2^30 bytes, or if it is damaged.
    pub fn read<T: Element>(&mut self, name: &str) -> Result<Array<T>> {
        let mut read = || {
            let mut bytes = Vec::new();
            let entry = self.archive.by_name(&npyz::npz::file_name_from_array_name(name));
            let entry = entry.map_err(|error| Error::kind(error, "an array of this name"))?;
            entry.take(MAX_SIZE + 1).read_to_end(&mut bytes)?;
            let found = bytes.len() as u64;
            if found > MAX_SIZE {
                let help = "no layer of a supported network is larger";
                return Err(Error::range("bytes or more", found, [0, MAX_SIZE], help));
            }
            let header = Header::parse(&bytes, found)?;
            header.expect_type::<T>()?;
            let (shape, bytes) = (header.shape, &bytes[header.begin as usize..]);
            let values = npy::read_values(bytes, shape.iter().product())?;
            let values = if header.order == Order::Fortran { to_c_order(&shape, &values) } else { values };
            Ok((shape, values))
        };
        read().map_err(|error| error.in_array(name).at(&self.path))
    }
}

/// Reorders values whose first axis is the fastest to values whose last axis is.
pub(crate) fn to_c_order<T: Copy>(shape: &[usize], stored: &[T]) -> Vec<T> {
    let offset = |mut i: usize| {
        let (mut offset, mut stride) = (0, stored.len());
        for &n in shape.iter().rev() {
            stride /= n;
            offset += i % n * stride;
            i /= n;
        }
        offset
    };
    (0..stored.len()).map(|i| stored[offset(i)]).collect()
}

/// Arrays for an archive, which are stored uncompressed as by numpy.savez.
#[derive(Clone, Debug, Default)]
pub struct NpzWriter {
    entries: Vec<(String, Vec<u8>)>,
}

impl NpzWriter {
    /// Adds an array of `shape` under a name that is not taken.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the shape is not that of the values.
    pub fn add<T: Element>(mut self, name: &str, shape: &[usize], values: &[T]) -> Result<Self> {
        npy::check_shape(shape, values.len())?;
        let mut bytes = Vec::new();
        npy::write_array(&mut bytes, shape, values)?;
        self.entries.push((npyz::npz::file_name_from_array_name(name), bytes));
        Ok(self)
    }

    /// Writes the archive, atomically.
    ///
    /// # Errors
    /// [`Error::Container`] if two arrays have the same name, or if the system fails.
    pub fn save(self, path: impl AsRef<Path>) -> Result<()> {
        let options = FileOptions::default().compression_method(CompressionMethod::Stored).large_file(true);
        dpq_file::write_atomic(path.as_ref(), |out| {
            let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
            for (name, bytes) in self.entries {
                archive.start_file(name, options)?;
                archive.write_all(&bytes)?;
            }
            out.write_all(archive.finish()?.get_ref())
        })?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fortran_order_becomes_c_order() {
        // In [2, 3, 2] the number at (i, j, k) is 100·i + 10·j + k.
        let number = |i, j, k| 100.0 * i as f32 + 10.0 * j as f32 + k as f32;
        let mut stored = Vec::new();
        let mut expected = Vec::new();
        for outer in 0..2 {
            for j in 0..3 {
                for inner in 0..2 {
                    stored.push(number(inner, j, outer));
                    expected.push(number(outer, j, inner));
                }
            }
        }
        assert_eq!(to_c_order(&[2, 3, 2], &stored), expected);
    }

    #[test]
    fn archives_survive_the_round_trip() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let archive = NpzWriter::default().add("ids", &[2, 2], &[1u64, 2, 3, u64::MAX]).unwrap();
        archive.add("scores", &[2], &[0.5f32, -1.0]).unwrap().save(file.path()).unwrap();
        let mut archive = NpzReader::open(file.path()).unwrap();
        let mut names = archive.names();
        names.sort();
        assert_eq!(names, ["ids", "scores"]);
        assert_eq!(archive.read("ids").unwrap(), (vec![2, 2], vec![1, 2, 3, u64::MAX]));
        assert_eq!(archive.read("scores").unwrap(), (vec![2], vec![0.5f32, -1.0]));
        let error = archive.read::<f32>("ids").unwrap_err().to_string();
        assert!(error.contains("`ids`: array holds <u8, expected float32"), "{error}");
        assert!(archive.read::<f32>("other").is_err());
        // The values of `scores` lie before the directory, whose checksum no longer matches.
        let mut bytes = std::fs::read(file.path()).unwrap();
        let at = bytes.windows(4).rposition(|window| window == 0.5f32.to_le_bytes()).unwrap();
        bytes[at] ^= 1;
        std::fs::write(file.path(), bytes).unwrap();
        let error = NpzReader::open(file.path()).unwrap().read::<f32>("scores").unwrap_err().to_string();
        assert!(error.contains("`scores`: cannot read the stream: Invalid checksum"), "{error}");
        let error = NpzWriter::default().add("ids", &[3], &[1u64]).unwrap_err().to_string();
        assert_eq!(error, "has 1 values for its shape, expected 3");
    }

    #[test]
    fn compressed_archives_are_read() {
        let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
        let options = FileOptions::default().compression_method(CompressionMethod::Deflated);
        archive.start_file("a.npy", options).unwrap();
        npy::write_array(&mut archive, &[1000], &[0.5f32; 1000]).unwrap();
        let bytes = archive.finish().unwrap().into_inner();
        assert!(bytes.len() < 1000, "numpy.savez_compressed deflates arrays too");
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        assert_eq!(
            NpzReader::open(file.path()).unwrap().read("a").unwrap(),
            (vec![1000], vec![0.5f32; 1000])
        );
    }
}
