//! The arrays that `dpq` writes, as far as figures need them: one byte order, C order, one or two dimensions.

use std::fs;

use anyhow::{Context, Result, ensure};

/// The rows of a `.npy` file whose elements have the type `dtype`, as bytes.
pub(crate) struct Rows {
    bytes: Vec<u8>,
    start: usize,
    row: usize,
}

impl Rows {
    pub(crate) fn read(path: &str, dtype: &str) -> Result<Self> {
        let bytes = fs::read(path).with_context(|| format!("cannot read {path}"))?;
        Self::parse(bytes, dtype).with_context(|| format!("{path} is no array of {dtype} as dpq writes it"))
    }

    fn parse(bytes: Vec<u8>, dtype: &str) -> Result<Self> {
        ensure!(
            bytes.starts_with(b"\x93NUMPY\x01\x00") && bytes.len() >= 10,
            "not a file of NumPy, version 1"
        );
        let start = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
        let header =
            bytes.get(10..start).and_then(|header| std::str::from_utf8(header).ok()).unwrap_or_default();
        ensure!(header.contains(&format!("'descr': '{dtype}'")), "its header is {header}");
        let shape =
            header.split_once('(').and_then(|(_, rest)| rest.split_once(')')).map_or("", |(shape, _)| shape);
        let shape = shape.split(',').map(str::trim).filter(|n| !n.is_empty());
        let shape = shape.map(str::parse::<usize>).collect::<Result<Vec<_>, _>>()?;
        let size: usize = dtype[dtype.len() - 1..].parse()?;
        let row = size * shape.iter().skip(1).product::<usize>();
        ensure!(
            row > 0 && shape.first().is_some_and(|n| n * row == bytes.len() - start),
            "shape {shape:?} does not match its {} bytes",
            bytes.len() - start
        );
        Ok(Self { bytes, start, row })
    }

    pub(crate) fn len(&self) -> usize {
        (self.bytes.len() - self.start) / self.row
    }

    pub(crate) fn bytes(&self, row: usize) -> &[u8] {
        &self.bytes[self.start + row * self.row..][..self.row]
    }

    pub(crate) fn f32(&self, row: usize) -> impl Iterator<Item = f32> {
        self.bytes(row).as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes))
    }

    /// The columns of a row of bytes that are not zero: the classes of an item, where columns are classes.
    pub(crate) fn classes(&self, row: usize) -> Vec<usize> {
        self.bytes(row).iter().enumerate().filter(|(_, byte)| **byte != 0).map(|(class, _)| class).collect()
    }

    /// The first number of each row.
    pub(crate) fn u64s(&self) -> impl Iterator<Item = u64> {
        (0..self.len())
            .filter_map(|row| self.bytes(row).first_chunk().map(|bytes| u64::from_le_bytes(*bytes)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(header: &str, data: &[u8]) -> Vec<u8> {
        [b"\x93NUMPY\x01\x00", &(header.len() as u16).to_le_bytes()[..], header.as_bytes(), data].concat()
    }

    #[test]
    fn rows_are_read() {
        let header = "{'descr': '|u1', 'fortran_order': False, 'shape': (2, 3), }";
        let rows = Rows::parse(file(header, &[0, 1, 1, 0, 0, 0]), "|u1").unwrap();
        assert_eq!((rows.len(), rows.classes(0), rows.classes(1)), (2, vec![1, 2], vec![]));
        let header = "{'descr': '<f4', 'fortran_order': False, 'shape': (1, 2), }";
        let rows = Rows::parse(file(header, &[0, 0, 128, 63, 0, 0, 0, 64]), "<f4").unwrap();
        assert_eq!(rows.f32(0).collect::<Vec<_>>(), [1.0, 2.0]);
        let header = "{'descr': '<u8', 'fortran_order': False, 'shape': (2,), }";
        let rows =
            Rows::parse(file(header, &[[7, 0, 0, 0, 0, 0, 0, 0], [0, 1, 0, 0, 0, 0, 0, 0]].concat()), "<u8");
        assert_eq!(rows.unwrap().u64s().collect::<Vec<_>>(), [7, 256]);
    }

    #[test]
    fn other_files_are_refused() {
        let header = "{'descr': '|u1', 'fortran_order': False, 'shape': (2, 3), }";
        for (bytes, dtype) in [
            (file(header, &[0; 5]), "|u1"),
            (file(header, &[0; 6]), "<f4"),
            (file("{'descr': '|u1', 'shape': (), }", &[0]), "|u1"),
            (b"text".to_vec(), "|u1"),
            (file(header, &[])[..20].to_vec(), "|u1"),
        ] {
            assert!(Rows::parse(bytes, dtype).is_err());
        }
    }
}
