//! NumPy files in and out: the arrays that commands hand to each other.
//!
//! A file is read whole (features by `vectors`, a part at a time), its size is checked against its header before anything
//! is allocated for it, and only little-endian C-order arrays of the expected type and number of dimensions are taken.

use std::fs;
use std::io::{self, Cursor, Write};
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail, ensure};
use npyz::npz::NpzWriter;
use npyz::{DType, NpyHeader, Order, WriteOptions, WriterBuilder};

/// An element type that commands exchange.
pub(crate) trait Element: Copy + npyz::AutoSerialize {
    /// NumPy's name of the type in messages.
    const NAME: &'static str;
    /// NumPy's type string.
    const DTYPE: &'static str;
    const SIZE: usize;
    fn from_le(bytes: &[u8]) -> Self;
    fn push_le(self, out: &mut Vec<u8>);
}

macro_rules! element {
    ($type:ty, $name:literal, $dtype:literal) => {
        impl Element for $type {
            const NAME: &'static str = $name;
            const DTYPE: &'static str = $dtype;
            const SIZE: usize = size_of::<$type>();
            fn from_le(bytes: &[u8]) -> Self {
                Self::from_le_bytes(bytes.try_into().expect("the caller cuts pieces of SIZE bytes"))
            }
            fn push_le(self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_le_bytes());
            }
        }
    };
}
element!(u8, "uint8", "|u1");
element!(i64, "int64", "<i8");
element!(u64, "uint64", "<u8");
element!(f32, "float32", "<f4");

/// A matrix [rows, columns], row-major.
pub(crate) struct Matrix<T> {
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    pub(crate) values: Vec<T>,
}

/// Reads a two-dimensional array.
pub(crate) fn read_matrix<T: Element>(path: &Path) -> Result<Matrix<T>> {
    let (shape, values) = read(path)?;
    let [rows, columns] = two_dimensional(&shape, path)?;
    Ok(Matrix { rows, columns, values })
}

/// The rows and columns of the matrix in `path`.
fn two_dimensional(shape: &[usize], path: &Path) -> Result<[usize; 2]> {
    let &[rows, columns] = shape else {
        bail!("{}: array has {} dimension(s), expected 2: [rows, columns]", path.display(), shape.len());
    };
    ensure!(columns > 0, "{}: array has rows of 0 values, expected at least 1", path.display());
    Ok([rows, columns])
}

/// Reads a one-dimensional array.
pub(crate) fn read_vector<T: Element>(path: &Path) -> Result<Vec<T>> {
    let (shape, values) = read(path)?;
    ensure!(
        shape.len() == 1,
        "{}: array has {} dimension(s), expected 1: a list of numbers",
        path.display(),
        shape.len()
    );
    Ok(values)
}

/// The rows and columns of the matrix in the file `path` of `size` bytes, and where its values begin; `start` is the first
/// [`LONGEST_START`] bytes of the file.
pub(crate) fn matrix_in<T: Element>(start: &[u8], size: u64, path: &Path) -> Result<(usize, usize, u64)> {
    let (shape, begin) = shape::<T>(start, size).with_context(|| path.display().to_string())?;
    let [rows, columns] = two_dimensional(&shape, path)?;
    Ok((rows, columns, begin as u64))
}

/// The labels of items, as a file has them.
pub(crate) enum LabelFile {
    /// u8 [N, C].
    MultiHot(Matrix<u8>),
    /// N numbers from 0.
    Classes(Vec<usize>),
}

impl LabelFile {
    /// Reads labels: multi-hot, uint8 `[N, C]`, or class numbers from 0, uint8 or int64 `[N]`.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        Self::parse(&bytes).with_context(|| path.display().to_string())
    }

    fn parse(bytes: &[u8]) -> Result<Self> {
        let header = header(bytes)?.0;
        let classes: Vec<i64> = match (header.shape().len(), header.dtype() == dtype::<u8>()) {
            (1, true) => parse::<u8>(bytes)?.1.into_iter().map(i64::from).collect(),
            (1, false) => parse::<i64>(bytes)?.1,
            (2, _) => {
                let (shape, values) = parse::<u8>(bytes)?;
                return Ok(Self::MultiHot(Matrix { rows: shape[0], columns: shape[1], values }));
            }
            (n, _) => bail!("array has {n} dimension(s), expected multi-hot [N, C] or class numbers [N]"),
        };
        if let Some(class) = classes.iter().find(|&class| !(0..CLASSES).contains(class)) {
            bail!("found class {class}, expected numbers from 0, below {CLASSES}");
        }
        Ok(Self::Classes(classes.into_iter().map(|class| class as usize).collect()))
    }

    pub(crate) fn n_classes(&self) -> usize {
        match self {
            Self::MultiHot(labels) => labels.columns,
            Self::Classes(classes) => classes.iter().max().map_or(0, |&class| class + 1),
        }
    }

    /// Multi-hot u8 [N, C]; class numbers, which are below `n_classes`, make as many columns.
    pub(crate) fn into_multi_hot(self, n_classes: usize) -> Matrix<u8> {
        match self {
            Self::MultiHot(labels) => labels,
            Self::Classes(classes) => {
                let mut values = vec![0; classes.len() * n_classes];
                classes.iter().enumerate().for_each(|(row, &class)| values[row * n_classes + class] = 1);
                Matrix { rows: classes.len(), columns: n_classes, values }
            }
        }
    }
}

/// The most classes there can be, so that one wrong number does not ask for all memory.
const CLASSES: i64 = 1 << 16;

fn read<T: Element>(path: &Path) -> Result<(Vec<usize>, Vec<T>)> {
    let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    parse(&bytes).with_context(|| path.display().to_string())
}

fn parse<T: Element>(bytes: &[u8]) -> Result<(Vec<usize>, Vec<T>)> {
    let (shape, begin) = shape::<T>(bytes, bytes.len() as u64)?;
    Ok((shape, bytes[begin..].chunks_exact(T::SIZE).map(T::from_le).collect()))
}

/// The shape of the array in a file of `size` bytes that begins with `bytes`, and where its values begin.
fn shape<T: Element>(bytes: &[u8], size: u64) -> Result<(Vec<usize>, usize)> {
    let (shape, begin, order) = layout::<T>(bytes, size)?;
    ensure!(
        order == Order::C || shape.len() < 2,
        "array is in Fortran order, expected C order (numpy.ascontiguousarray)"
    );
    Ok((shape, begin))
}

/// The same for an array in either order.
pub(crate) fn layout<T: Element>(bytes: &[u8], size: u64) -> Result<(Vec<usize>, usize, Order)> {
    let (header, begin) = header(bytes)?;
    let found = header.dtype().descr();
    let found = found.trim_matches('\'');
    // Fractions would be cut off, and what is left be taken for codes or classes.
    let what = if found.contains('f') && T::NAME != f32::NAME { "whole numbers" } else { "it" };
    ensure!(
        header.dtype() == dtype::<T>(),
        "array holds {found}, expected {} (convert {what} with .astype('{}'))",
        T::NAME,
        T::NAME
    );
    let shape = header
        .shape()
        .iter()
        .map(|&n| usize::try_from(n).context("array does not fit into memory"))
        .collect::<Result<Vec<_>>>()?;
    let expected = shape.iter().try_fold(T::SIZE as u64, |product, &n| product.checked_mul(n as u64));
    ensure!(
        expected == size.checked_sub(begin as u64),
        "array of shape {shape:?} does not match the {} bytes that follow its header, the file is damaged",
        size - begin as u64
    );
    Ok((shape, begin, header.order()))
}

/// The header, and where it ends.
fn header(bytes: &[u8]) -> Result<(NpyHeader, usize)> {
    header_end(bytes)?;
    let mut rest = bytes;
    // The parser's own message would repeat the header, whatever it holds.
    let header = NpyHeader::from_reader(&mut rest)
        .map_err(|_| anyhow!("damaged .npy header, write the array again with numpy.save"))?;
    Ok((header, bytes.len() - rest.len()))
}

/// Where the header ends. Refuses what is no .npy file, and a header that reaches beyond the file or is longer than any
/// that names one array.
pub(crate) fn header_end(bytes: &[u8]) -> Result<usize> {
    let (begin, length) = match bytes {
        [0x93, b'N', b'U', b'M', b'P', b'Y', 1, _, a, b, ..] => {
            (10, usize::from(u16::from_le_bytes([*a, *b])))
        }
        [0x93, b'N', b'U', b'M', b'P', b'Y', 2 | 3, _, a, b, c, d, ..] => {
            (12, u32::from_le_bytes([*a, *b, *c, *d]) as usize)
        }
        _ => bail!("not a NumPy .npy file, write it with numpy.save"),
    };
    let fits = length <= HEADER && bytes.len() - begin >= length;
    ensure!(fits, "damaged .npy header of {length} bytes, write the array again with numpy.save");
    Ok(begin + length)
}

/// Bytes of the longest header that is read; NumPy's for such arrays are 118 bytes long.
const HEADER: usize = 4096;
/// With what comes before it.
pub(crate) const LONGEST_START: u64 = HEADER as u64 + 12;

/// Writes `values` as an array of `shape`, atomically.
pub(crate) fn write<T: Element>(path: &Path, shape: &[usize], values: &[T]) -> Result<()> {
    dpq_file::write_atomic(path, |out| write_array(out, shape, values))?;
    Ok(())
}

/// Writes the arrays of a search, as `numpy.savez` does: `ids` and `scores`, both of `shape`.
pub(crate) fn write_hits(path: &Path, shape: [usize; 2], ids: &[u64], scores: &[f32]) -> Result<()> {
    let mut archive = NpzWriter::new(Cursor::new(Vec::new()));
    let stored = npyz::zip::write::FileOptions::default()
        .compression_method(npyz::zip::CompressionMethod::Stored)
        .large_file(true);
    for name in ["ids", "scores"] {
        archive.zip_writer().start_file(format!("{name}.npy"), stored)?;
        match name {
            "ids" => write_array(archive.zip_writer(), &shape, ids)?,
            _ => write_array(archive.zip_writer(), &shape, scores)?,
        }
    }
    let bytes = archive.zip_writer().finish()?.into_inner();
    dpq_file::write_atomic(path, |out| out.write_all(&bytes))?;
    Ok(())
}

/// The header of an array of `shape`. It has one length whatever the number of rows.
pub(crate) fn header_bytes<T: Element>(shape: &[usize]) -> io::Result<Vec<u8>> {
    let shape: Vec<u64> = shape.iter().map(|&n| n as u64).collect();
    let mut bytes = Vec::new();
    WriteOptions::<T>::new().dtype(dtype::<T>()).shape(&shape).writer(&mut bytes).write_header_only()?;
    Ok(bytes)
}

fn write_array<T: Element>(out: &mut dyn Write, shape: &[usize], values: &[T]) -> io::Result<()> {
    assert_eq!(shape.iter().product::<usize>(), values.len(), "the shape is that of the values");
    out.write_all(&header_bytes::<T>(shape)?)?;
    let mut buffer = Vec::with_capacity(CHUNK * T::SIZE);
    for chunk in values.chunks(CHUNK) {
        buffer.clear();
        chunk.iter().for_each(|value| value.push_le(&mut buffer));
        out.write_all(&buffer)?;
    }
    Ok(())
}

fn dtype<T: Element>() -> DType {
    DType::Plain(T::DTYPE.parse().expect("the type strings above are NumPy's"))
}

/// Values converted at a time when an array is written.
const CHUNK: usize = 1 << 14;

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes<T: Element>(shape: &[usize], values: &[T]) -> Vec<u8> {
        let mut out = Vec::new();
        write_array(&mut out, shape, values).unwrap();
        out
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
        let length = |n| header_bytes::<f32>(&[n, 25_088]).unwrap().len();
        assert_eq!((length(0), length(u32::MAX as usize)), (128, 128));
    }

    #[test]
    fn labels_are_multi_hot_or_class_numbers() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let labels = || {
            let labels = LabelFile::read(file.path())?;
            let n_classes = labels.n_classes();
            let Matrix { rows, columns, values } = labels.into_multi_hot(n_classes);
            anyhow::Ok((rows, columns, values))
        };
        let one_hot = || (2, 3, vec![0, 0, 1, 1, 0, 0]);
        write(file.path(), &[2, 3], &[0u8, 0, 1, 1, 0, 0]).unwrap();
        assert_eq!(labels().unwrap(), one_hot());
        write(file.path(), &[2], &[2u8, 0]).unwrap();
        assert_eq!(labels().unwrap(), one_hot());
        write(file.path(), &[2], &[2i64, 0]).unwrap();
        assert_eq!(labels().unwrap(), one_hot());
        let wider = LabelFile::read(file.path()).unwrap().into_multi_hot(4);
        assert_eq!(wider.values, [0, 0, 1, 0, 1, 0, 0, 0]);
        for class in [-1, 1 << 40] {
            write(file.path(), &[2], &[2i64, class]).unwrap();
            assert!(format!("{:#}", labels().unwrap_err()).contains(&format!("found class {class}")));
        }
        write(file.path(), &[2], &[0.5f32, 1.0]).unwrap();
        assert!(format!("{:#}", labels().unwrap_err()).contains("expected int64"));
    }

    #[test]
    fn wrong_arrays_are_refused_by_what_is_wrong() {
        let error = |bytes: &[u8]| format!("{:#}", parse::<f32>(bytes).unwrap_err());
        assert!(error(b"PK\x03\x04").contains("not a NumPy .npy file"));
        assert!(error(&bytes(&[2], &[1u64, 2])).contains("expected float32"));
        let claims = |length: u32| [&b"\x93NUMPY\x02\x00"[..], &length.to_le_bytes(), b"{"].concat();
        for length in [2, 4097, u32::MAX] {
            assert!(error(&claims(length)).contains(&format!("damaged .npy header of {length} bytes")));
        }
        let nested = "(".repeat(4000);
        let header = [&b"\x93NUMPY\x02\x00"[..], &4000u32.to_le_bytes(), nested.as_bytes()].concat();
        assert_eq!(error(&header), "damaged .npy header, write the array again with numpy.save");
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
