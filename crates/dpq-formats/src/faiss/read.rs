//! Reads faiss's indexes.

use std::io::Read;

use dpq_codebook::{Assignment, Codebooks, Form};

use super::{EUCLIDEAN, FaissIndex, INNER_PRODUCT, MAPS, PRODUCT, RESIDUAL};
use crate::npy::{Element, read_values};
use crate::{Error, Result};

/// Kinds that are not read, by the names that their users know.
const OTHERS: [(&[u8; 4], &str); 19] = [
    (b"IxFI", "an IndexFlatIP"),
    (b"IxF2", "an IndexFlatL2"),
    (b"IxFl", "an IndexFlat"),
    (b"IwFl", "an IndexIVFFlat"),
    (b"IwPQ", "an IndexIVFPQ"),
    (b"IwRQ", "an IndexIVFResidualQuantizer"),
    (b"IwSq", "an IndexIVFScalarQuantizer"),
    (b"IxSQ", "an IndexScalarQuantizer"),
    (b"IxLS", "an IndexLocalSearchQuantizer"),
    (b"IxPR", "an IndexProductResidualQuantizer"),
    (b"IPfs", "an IndexPQFastScan"),
    (b"IRfs", "an IndexResidualQuantizerFastScan"),
    (b"IHNf", "an IndexHNSWFlat"),
    (b"IxPT", "an IndexPreTransform"),
    (b"IxRF", "an IndexRefine"),
    (b"IxHe", "an IndexLSH"),
    (b"IxPQ", "an IndexPQ of an older faiss (read it and write it again)"),
    (b"IxPo", "an IndexPQ of an older faiss (read it and write it again)"),
    (b"IxRQ", "an IndexResidualQuantizer of an older faiss (read it and write it again)"),
];

/// Values of faiss's `Search_type_t` whose norms are entries of a codebook in the file, and those
/// that add tables to it.
const NORM_CODEBOOK: std::ops::RangeInclusive<i32> = 6..=9;
const NORM_TABLES: std::ops::RangeInclusive<i32> = 8..=9;

/// The fields that all kinds of indexes begin with.
struct Header {
    dim: usize,
    n_items: usize,
    is_euclidean: bool,
}

/// The rest of a file.
pub(super) struct Reader<R> {
    bytes: R,
    left: u64,
}

impl<R: Read> Reader<R> {
    pub(super) fn new(bytes: R, size: u64) -> Self {
        Self { bytes, left: size }
    }

    /// Reads the whole file.
    pub(super) fn index(mut self) -> Result<FaissIndex> {
        let mut kind = self.array::<4>()?;
        let mapped = if MAPS.contains(&&kind) {
            let header = self.header()?;
            kind = self.array()?;
            Some(header.n_items)
        } else {
            None
        };
        let read: fn(&mut Self, &Header) -> Result<FaissIndex> = match &kind {
            RESIDUAL => Self::residual,
            PRODUCT => Self::product,
            _ => return Err(unknown(kind)),
        };
        let header = self.header()?;
        let mut index = read(&mut self, &header)?;
        if let Some(n_mapped) = mapped {
            Error::check_count("items in its map of ids", n_mapped as u64, header.n_items as u64)?;
            index.ids = Some(self.ids(header.n_items)?);
        }
        if self.left > 0 {
            let problem = format!("has {} more bytes after its contents, the file is damaged", self.left);
            return Err(Error::Invalid(problem));
        }
        Ok(index)
    }

    fn header(&mut self) -> Result<Header> {
        let dim = i32::from_le_bytes(self.array()?);
        let n_items = self.count("items")?;
        // Two numbers without a meaning.
        self.array::<16>()?;
        self.trained()?;
        let is_euclidean = match i32::from_le_bytes(self.array()?) {
            INNER_PRODUCT => false,
            EUCLIDEAN => true,
            found => {
                let found = format!("ranks by faiss's metric {found}");
                return Err(Error::kind(found, "0 (inner product) or 1 (Euclidean distance)"));
            }
        };
        if dim < 1 {
            return Err(Error::range("dimensions", dim, [1, i32::MAX as u64], "the file is damaged"));
        }
        Ok(Header { dim: dim as usize, n_items, is_euclidean })
    }

    fn residual(&mut self, header: &Header) -> Result<FaissIndex> {
        let n_levels = self.levels(header)?;
        let bits: Vec<u64> = self.vector("levels with a number of bits", Some(n_levels))?;
        if bits.iter().any(|&other| other != bits[0]) {
            let found = format!("has levels of {bits:?} bits");
            return Err(Error::kind(
                found,
                "the same number for all levels: dpq's have equally many codewords",
            ));
        }
        let bits = check_bits(bits[0])?;
        self.trained()?;
        let n_values = (n_levels << bits).checked_mul(header.dim);
        let codebooks = self.vector("values of codebooks", n_values)?;
        let search_type = i32::from_le_bytes(self.array()?);
        // The range of norms.
        self.array::<8>()?;
        if NORM_CODEBOOK.contains(&search_type) {
            let n = self.count("norms")?;
            self.values::<f32>(n)?;
        }
        if NORM_TABLES.contains(&search_type) {
            let n = self.count("norms in tables")?;
            self.values::<f32>(n)?;
        }
        // Parameters of training: the kind and the beam.
        self.array::<8>()?;
        let size = self.count("bytes per code")?;
        let min = (n_levels * bits).div_ceil(8);
        if size < min {
            Error::check_count("bytes per code", size as u64, min as u64)?;
        }
        self.codes(header, (Form::Progressive, n_levels, bits), size, codebooks)
    }

    fn product(&mut self, header: &Header) -> Result<FaissIndex> {
        let (n_levels, dim) = (self.levels(header)?, header.dim);
        let bits = check_bits(u64::from_le_bytes(self.array()?))?;
        if !dim.is_multiple_of(n_levels) {
            let found = format!("cuts {dim} dimensions into {n_levels} parts");
            return Err(Error::kind(found, "equal parts: the file is damaged"));
        }
        let centroids: Vec<f32> = self.vector("values of centroids", dim.checked_mul(1 << bits))?;
        let size = (n_levels * bits).div_ceil(8);
        let index = self.codes(header, (Form::Product, n_levels, bits), size, centroids)?;
        // Parameters of faiss's search: its kind, and two for polysemous codes.
        self.array::<9>()?;
        Ok(index)
    }

    /// Reads codes of `size` bytes, which ends what both kinds have in common.
    fn codes(
        &mut self,
        header: &Header,
        (form, n_levels, bits): (Form, usize, usize),
        size: usize,
        codebooks: Vec<f32>,
    ) -> Result<FaissIndex> {
        let packed = self.vector("bytes of codes", header.n_items.checked_mul(size))?;
        let assignment = Assignment::Euclidean;
        let codebooks = Codebooks::with_form(form, codebooks, n_levels, 1 << bits, header.dim, assignment)?;
        Ok(FaissIndex {
            is_euclidean: header.is_euclidean,
            codebooks,
            codes: unpack(packed, size, n_levels, bits),
            ids: None,
        })
    }

    /// Reads dimensions and levels, which quantizers begin with, and returns the levels.
    fn levels(&mut self, header: &Header) -> Result<usize> {
        let dim = self.count("dimensions")?;
        Error::check_count("dimensions in its quantizer", dim as u64, header.dim as u64)?;
        let n_levels = self.count("levels")?;
        if !(1..=255).contains(&n_levels) {
            return Err(Error::range("levels", n_levels, [1, 255], "dpq's codes have at most 255"));
        }
        Ok(n_levels)
    }

    fn ids(&mut self, n_items: usize) -> Result<Vec<u64>> {
        let ids: Vec<i64> = self.vector("ids", Some(n_items))?;
        let id = |id: i64| u64::try_from(id).map_err(|_| Error::id(id, i64::MAX as u64));
        let ids: Vec<u64> = ids.into_iter().map(id).collect::<Result<_>>()?;
        let mut sorted = ids.clone();
        sorted.sort_unstable();
        match sorted.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => Err(Error::Invalid(format!(
                "gives the id {} to several items, expected distinct ids: to number the items from 0 instead, write the \
                 index without its map, in Python `faiss.write_index(faiss.read_index(file).index, new_file)`",
                pair[0]
            ))),
            None => Ok(ids),
        }
    }

    fn trained(&mut self) -> Result<()> {
        match self.array()? {
            [0] => Err(Error::kind("is not trained and has no codebooks", "an index with vectors")),
            [_] => Ok(()),
        }
    }

    /// Reads a vector of `n` elements; `n` is none if there cannot be as many.
    fn vector<T: Element>(&mut self, what: &str, n: Option<usize>) -> Result<Vec<T>> {
        let found = self.count(what)?;
        Error::check_count(what, found as u64, n.unwrap_or(usize::MAX) as u64)?;
        self.values(found)
    }

    fn values<T: Element>(&mut self, n: usize) -> Result<Vec<T>> {
        self.advance((n as u64).saturating_mul(size_of::<T>() as u64))?;
        read_values(&mut self.bytes, n)
    }

    /// Reads a number of things, at most the bytes that are left if each takes one.
    fn count(&mut self, what: &str) -> Result<usize> {
        let found = u64::from_le_bytes(self.array()?);
        isize::try_from(found)
            .map(|n| n as usize)
            .map_err(|_| Error::range(what, found, [0, isize::MAX as u64], "the file is damaged"))
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut array = [0; N];
        self.advance(N as u64)?;
        self.bytes.read_exact(&mut array)?;
        Ok(array)
    }

    /// Counts the next `n` bytes as read.
    fn advance(&mut self, n: u64) -> Result<()> {
        self.left = self.left.checked_sub(n).ok_or_else(|| Error::truncated(n, self.left))?;
        Ok(())
    }
}

fn unknown(kind: [u8; 4]) -> Error {
    let name = OTHERS.iter().find(|(other, _)| **other == kind).map(|(_, name)| *name);
    let found =
        name.map_or_else(|| format!("begins with `{}`", kind.escape_ascii()), |name| format!("is {name}"));
    Error::kind(
        found,
        "faiss's IndexResidualQuantizer or IndexPQ, alone or in an IndexIDMap: encode the vectors with one of these, or \
         with dpq",
    )
}

fn check_bits(found: u64) -> Result<usize> {
    if (1..=8).contains(&found) {
        return Ok(found as usize);
    }
    Err(Error::range("bits per level", found, [1, 8], "a level of dpq's codes is a byte"))
}

/// Unpacks codes of `size` bytes to one byte per level, [N, n_levels]. A packed code begins with
/// `bits` bits per level, the lowest bits of a byte first.
fn unpack(packed: Vec<u8>, size: usize, n_levels: usize, bits: usize) -> Vec<u8> {
    if bits == 8 && size == n_levels {
        return packed;
    }
    let level = |code: &[u8], level: usize| {
        let (at, shift) = (level * bits / 8, level * bits % 8);
        let pair = u16::from_le_bytes([code[at], code.get(at + 1).copied().unwrap_or(0)]);
        (pair >> shift) as u8 & (0xff >> (8 - bits))
    };
    packed.chunks_exact(size).flat_map(|code| (0..n_levels).map(move |l| level(code, l))).collect()
}
