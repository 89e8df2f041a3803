//! NumPy arrays in .npy files: little-endian, in C order.
//!
//! The size of a file is checked against its header before anything is allocated.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use npyz::{DType, NpyHeader, Order, WriteOptions, WriterBuilder};

use crate::{Error, Result, file};

/// An element type of arrays: u8, i64, u64 or f32.
pub trait Element: Copy {
    /// NumPy's name of the type.
    const NAME: &'static str;
    /// NumPy's type string.
    const DTYPE: &'static str;
    /// Converts values of `size_of::<Self>()` bytes each, little-endian, and appends them to
    /// `values`.
    fn extend(values: &mut Vec<Self>, bytes: &[u8]);
    /// Appends the little-endian bytes of `values` to `bytes`.
    fn append(values: &[Self], bytes: &mut Vec<u8>);
}

macro_rules! element {
    ($type:ty, $name:literal, $dtype:literal) => {
        impl Element for $type {
            const NAME: &'static str = $name;
            const DTYPE: &'static str = $dtype;
            fn extend(values: &mut Vec<Self>, bytes: &[u8]) {
                values.extend(bytes.as_chunks().0.iter().map(|&bytes| Self::from_le_bytes(bytes)));
            }
            fn append(values: &[Self], bytes: &mut Vec<u8>) {
                bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
            }
        }
    };
}
element!(u8, "uint8", "|u1");
element!(i64, "int64", "<i8");
element!(u64, "uint64", "<u8");
element!(f32, "float32", "<f4");

/// A matrix [rows, columns], row-major.
#[derive(Clone, Debug, PartialEq)]
pub struct Matrix<T> {
    /// The number of rows.
    pub rows: usize,
    /// The number of values per row.
    pub columns: usize,
    /// The values, rows · columns.
    pub values: Vec<T>,
}

/// An open .npy file whose header was checked.
#[derive(Debug)]
pub struct NpyFile {
    pub(crate) file: File,
    pub(crate) header: Header,
    path: PathBuf,
}

impl NpyFile {
    /// Opens a file and reads its header.
    ///
    /// # Errors
    /// [`Error::Read`] or [`Error::NotAFile`] if the file cannot be opened, [`Error::File`] if it
    /// is not a .npy file, or if its size does not match its header.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let (file, size) = file::open(path)?;
        let mut start = Vec::new();
        let read = (&file).take(MAX_START).read_to_end(&mut start);
        let header = read.map_err(Error::from).and_then(|_| Header::parse(&start, size));
        let header = header.map_err(|error| error.at(path))?;
        Ok(Self { file, header, path: path.to_owned() })
    }

    /// The size of each dimension.
    pub fn shape(&self) -> &[usize] {
        &self.header.shape
    }

    /// Returns true if the elements are of the type `T`.
    pub fn holds<T: Element>(&self) -> bool {
        self.header.dtype == dtype::<T>()
    }

    /// Reads all values.
    ///
    /// # Errors
    /// [`Error::File`] if the elements are of another type or in Fortran order, [`Error::Read`] if
    /// the system fails.
    pub fn read<T: Element>(mut self) -> Result<Vec<T>> {
        let mut values = || {
            self.header.expect::<T>()?;
            self.file.seek(SeekFrom::Start(self.header.begin))?;
            read_values(&self.file, self.header.shape.iter().product())
        };
        values().map_err(|error| error.at(&self.path))
    }

    /// The rows and columns, checked to be of the type `T`.
    pub(crate) fn matrix_shape<T: Element>(&self) -> Result<[usize; 2]> {
        let shape = match *self.shape() {
            [_, 0] => Err(Error::kind("array has rows of 0 values", "at least 1 value per row")),
            [rows, columns] => self.header.expect::<T>().map(|()| [rows, columns]),
            _ => Err(Error::dimensions(self.shape().len(), "2: [rows, columns]")),
        };
        shape.map_err(|error| error.at(&self.path))
    }
}

/// Reads a two-dimensional array.
///
/// # Errors
/// Those of [`NpyFile`], and [`Error::File`] if the array has another number of dimensions or empty
/// rows.
pub fn read_matrix<T: Element>(path: impl AsRef<Path>) -> Result<Matrix<T>> {
    let file = NpyFile::open(path)?;
    let [rows, columns] = file.matrix_shape::<T>()?;
    Ok(Matrix { rows, columns, values: file.read()? })
}

/// Reads a one-dimensional array.
///
/// # Errors
/// Those of [`NpyFile`], and [`Error::File`] if the array has another number of dimensions.
pub fn read_vector<T: Element>(path: impl AsRef<Path>) -> Result<Vec<T>> {
    let file = NpyFile::open(path)?;
    match file.shape().len() {
        1 => file.read(),
        found => {
            Err(Error::dimensions(found, "1: a list of numbers (flatten it with .ravel())").at(&file.path))
        }
    }
}

/// The header of an array whose size matches it.
#[derive(Debug)]
pub(crate) struct Header {
    pub(crate) shape: Vec<usize>,
    pub(crate) order: Order,
    /// The offset of the first value.
    pub(crate) begin: u64,
    dtype: DType,
}

impl Header {
    /// Parses the header of a file of `size` bytes that begins with `start`, at least [`MAX_START`]
    /// bytes of it.
    pub(crate) fn parse(start: &[u8], size: u64) -> Result<Self> {
        let begin = header_end(start)?;
        // The parser's own message would repeat the whole header.
        let header = NpyHeader::from_reader(start).map_err(|_| damaged_header(begin))?;
        let bytes = size.saturating_sub(begin as u64);
        let mismatch = || Error::array_size(&header.shape(), bytes);
        if let Some(size) = header.dtype().num_bytes()
            && header.shape().iter().try_fold(size as u64, |size, &n| size.checked_mul(n)) != Some(bytes)
        {
            return Err(mismatch());
        }
        let shape = header.shape().iter().map(|&n| usize::try_from(n));
        let shape = shape.collect::<Result<_, _>>().map_err(|_| mismatch())?;
        Ok(Self { shape, order: header.order(), begin: begin as u64, dtype: header.dtype() })
    }

    /// Refuses other elements than `T`, and Fortran order.
    fn expect<T: Element>(&self) -> Result<()> {
        self.expect_type::<T>()?;
        if self.order == Order::Fortran && self.shape.len() > 1 {
            return Err(Error::kind("array is in Fortran order", "C order (numpy.ascontiguousarray)"));
        }
        Ok(())
    }

    pub(crate) fn expect_type<T: Element>(&self) -> Result<()> {
        if self.dtype == dtype::<T>() {
            return Ok(());
        }
        Err(Error::element_type(self.dtype.descr().trim_matches('\''), T::NAME))
    }
}

/// Returns the offset at which the header ends. Refuses other files than .npy, and a header that is
/// longer than the file or than any header of one array.
pub(crate) fn header_end(bytes: &[u8]) -> Result<usize> {
    let (begin, length) = match bytes {
        [0x93, b'N', b'U', b'M', b'P', b'Y', 1, _, a, b, ..] => {
            (10, usize::from(u16::from_le_bytes([*a, *b])))
        }
        [0x93, b'N', b'U', b'M', b'P', b'Y', 2 | 3, _, a, b, c, d, ..] => {
            (12, u32::from_le_bytes([*a, *b, *c, *d]) as usize)
        }
        _ => return Err(Error::format("NumPy .npy file", "numpy.save")),
    };
    if length > MAX_HEADER || bytes.len() - begin < length {
        return Err(damaged_header(length));
    }
    Ok(begin + length)
}

fn damaged_header(length: usize) -> Error {
    Error::Invalid(format!("damaged .npy header of {length} bytes, write the array again with numpy.save"))
}

/// The maximum length of a header; NumPy writes 118 bytes for simple arrays.
const MAX_HEADER: usize = 4096;
/// The maximum offset of the first value.
const MAX_START: u64 = MAX_HEADER as u64 + 12;

/// Reads `n` values, little-endian.
pub(crate) fn read_values<T: Element>(mut bytes: impl Read, n: usize) -> Result<Vec<T>> {
    let mut values = Vec::with_capacity(n);
    let mut buffer = vec![0; n.min(CHUNK) * size_of::<T>()];
    while values.len() < n {
        let chunk = &mut buffer[..(n - values.len()).min(CHUNK) * size_of::<T>()];
        bytes.read_exact(chunk)?;
        T::extend(&mut values, chunk);
    }
    Ok(values)
}

/// Writes `values` as an array of `shape`, atomically.
///
/// # Errors
/// [`Error::Invalid`] if the shape is not that of the values, [`Error::Container`] if the system
/// fails.
pub fn write<T: Element>(path: impl AsRef<Path>, shape: &[usize], values: &[T]) -> Result<()> {
    check_shape(shape, values.len())?;
    dpq_file::write_atomic(path.as_ref(), |out| write_array(out, shape, values))?;
    Ok(())
}

/// Returns the header of an array of `shape`. Its length does not depend on the number of rows.
pub fn header_bytes<T: Element>(shape: &[usize]) -> Vec<u8> {
    let shape: Vec<u64> = shape.iter().map(|&n| n as u64).collect();
    let mut bytes = Vec::new();
    let options = WriteOptions::new_header_only().dtype(dtype::<T>()).shape(&shape);
    options.writer(&mut bytes).write_header_only().expect("a vector takes any bytes");
    bytes
}

pub(crate) fn check_shape(shape: &[usize], n_values: usize) -> Result<()> {
    let expected = shape.iter().fold(1u64, |product, &n| product.saturating_mul(n as u64));
    Error::check_count("values for its shape", n_values as u64, expected)
}

pub(crate) fn write_array<T: Element>(
    out: &mut dyn Write,
    shape: &[usize],
    values: &[T],
) -> std::io::Result<()> {
    out.write_all(&header_bytes::<T>(shape))?;
    let mut buffer = Vec::with_capacity(CHUNK.min(values.len()) * size_of::<T>());
    for chunk in values.chunks(CHUNK) {
        buffer.clear();
        T::append(chunk, &mut buffer);
        out.write_all(&buffer)?;
    }
    Ok(())
}

fn dtype<T: Element>() -> DType {
    DType::Plain(T::DTYPE.parse().expect("the type strings above are NumPy's"))
}

/// Values converted at a time.
const CHUNK: usize = 1 << 14;

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes<T: Element>(shape: &[usize], values: &[T]) -> Vec<u8> {
        let mut out = Vec::new();
        write_array(&mut out, shape, values).unwrap();
        out
    }

    fn parse<T: Element>(bytes: &[u8]) -> Result<(Vec<usize>, Vec<T>)> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        let file = NpyFile::open(file.path())?;
        Ok((file.shape().to_vec(), file.read()?))
    }

    #[test]
    fn arrays_survive_the_round_trip() {
        let values: Vec<f32> = (0..40_000).map(|i| i as f32 / 7.0).collect();
        let (shape, read) = parse::<f32>(&bytes(&[4, 10_000], &values)).unwrap();
        assert_eq!((shape, read), (vec![4, 10_000], values));
        assert_eq!(parse::<u64>(&bytes(&[2], &[1, u64::MAX])).unwrap().1, [1, u64::MAX]);
        assert_eq!(parse::<u8>(&bytes(&[0, 4], &[] as &[u8])).unwrap().0, [0, 4]);
    }

    #[test]
    fn a_header_is_as_long_for_any_number_of_rows() {
        let length = |n| header_bytes::<f32>(&[n, 25_088]).len();
        assert_eq!((length(0), length(u32::MAX as usize)), (128, 128));
    }

    #[test]
    fn wrong_arrays_are_refused_by_what_is_wrong() {
        let error = |bytes: &[u8]| parse::<f32>(bytes).unwrap_err().to_string();
        assert!(error(b"PK\x03\x04").contains("not a NumPy .npy file"));
        assert!(error(&bytes(&[2], &[1u64, 2])).contains("expected float32"));
        let claims = |length: u32| [&b"\x93NUMPY\x02\x00"[..], &length.to_le_bytes(), b"{"].concat();
        for length in [2, 4097, u32::MAX] {
            assert!(error(&claims(length)).contains(&format!("damaged .npy header of {length} bytes")));
        }
        let nested = "(".repeat(4000);
        let header = [&b"\x93NUMPY\x02\x00"[..], &4000u32.to_le_bytes(), nested.as_bytes()].concat();
        assert!(
            error(&header)
                .ends_with("damaged .npy header of 4012 bytes, write the array again with numpy.save")
        );
        let good = bytes(&[2, 2], &[1.0f32, 2.0, 3.0, 4.0]);
        for end in 0..good.len() {
            assert!(parse::<f32>(&good[..end]).is_err(), "cut at {end}");
        }
        assert!(error(&good[..good.len() - 1]).contains("the file is damaged"));
        let fortran = String::from_utf8_lossy(&good[..128]).replace("False", "True ");
        let mut fortran = [&good[..10], &fortran.as_bytes()[fortran.len() - 118..]].concat();
        fortran.extend_from_slice(&good[128..]);
        assert!(error(&fortran).contains("Fortran order"));
    }
}
