//! Indexes of faiss whose codes add up as dpq's do, as `faiss.write_index` writes them.
//!
//! A file is the four letters of its kind, the header that all kinds share, and the fields of the
//! kind, little-endian and without gaps. A vector is its length, u64, followed by its elements.

mod read;
mod write;

use std::io::{BufReader, Read};
use std::path::Path;

use dpq_codebook::Codebooks;

use crate::{Result, file};

/// A faiss index in memory: codebooks, codes and ids.
///
/// Readable kinds are `IndexResidualQuantizer` and `IndexPQ` with 1 to 8 bits per level, the same
/// for all levels, alone or in an `IndexIDMap` or `IndexIDMap2`. An `IndexPQ` is written of product
/// codebooks, an `IndexResidualQuantizer` of others, in an `IndexIDMap` unless ids are row numbers.
#[derive(Clone, Debug, PartialEq)]
pub struct FaissIndex {
    /// True for Euclidean distance, faiss's `METRIC_L2`; false for inner product,
    /// `METRIC_INNER_PRODUCT`.
    pub is_euclidean: bool,
    /// The codebooks, in product form those of an `IndexPQ`.
    pub codebooks: Codebooks,
    /// Codes, u8 [N, L], row-major.
    pub codes: Vec<u8>,
    /// Ids, `[N]`, each once; none if they are row numbers.
    pub ids: Option<Vec<u64>>,
}

impl FaissIndex {
    /// Reads an index file. Stored norms are skipped, because codes and codebooks give them
    /// exactly.
    ///
    /// Unpacked codes take up to 8 times the size of the file; nothing else is larger than the
    /// file.
    ///
    /// # Errors
    /// [`Read`](crate::Error::Read) or [`NotAFile`](crate::Error::NotAFile) if the file cannot be
    /// opened, [`File`](crate::Error::File) if it is damaged, of another kind, or maps several
    /// items to one id.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let (file, size) = file::open(path)?;
        Self::parse(BufReader::new(file), size).map_err(|error| error.at(path))
    }

    /// Reads an index of `size` bytes.
    ///
    /// # Errors
    /// Those of [`FaissIndex::open`], without the path.
    pub fn parse(bytes: impl Read, size: u64) -> Result<Self> {
        read::Reader::new(bytes, size).index()
    }

    /// Writes an index file, atomically. Codes have 8 bits per level; missing codewords are written
    /// as zeros.
    ///
    /// # Errors
    /// [`Invalid`](crate::Error::Invalid) if shapes do not match, a code names a missing codeword
    /// or an id is 2^63 or more, [`Container`](crate::Error::Container) if the system fails.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        write::check(self)?;
        dpq_file::write_atomic(path.as_ref(), |out| write::index(out, self))?;
        Ok(())
    }
}

/// Kinds of files: a map of ids around another index (version 2 also finds items by id), and the
/// two kinds that hold codes.
const MAPS: [&[u8; 4]; 2] = [b"IxMp", b"IxM2"];
const RESIDUAL: &[u8; 4] = b"IxRq";
const PRODUCT: &[u8; 4] = b"IxPq";

/// Values of faiss's `MetricType`.
const INNER_PRODUCT: i32 = 0;
const EUCLIDEAN: i32 = 1;
