//! Indexes of faiss, in and out: files of `faiss.write_index` whose codes add up as ours do.
//!
//! A file is the four letters of its kind, the header that all kinds share, and the fields of the kind, little-endian and
//! without gaps; a vector is its length, u64, and its elements. Read are `IndexResidualQuantizer` and `IndexPQ` with one
//! number of bits for all levels, at most 8, alone or in an `IndexIDMap` or `IndexIDMap2`. Written is an
//! `IndexResidualQuantizer`. What is read is no longer than the rest of the file; unpacked, codes take
//! up to 8 times as much.

use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use dpq_codebook::{Assignment, Codebooks};
use dpq_index::Metric;

/// What an index is made of.
pub(crate) struct Contents {
    pub(crate) codebooks: Codebooks,
    pub(crate) metric: Metric,
    /// u8 [N, L].
    pub(crate) codes: Vec<u8>,
    /// u64 `[N]`, or none for row numbers.
    pub(crate) ids: Option<Vec<u64>>,
}

/// Kinds of files: a map of ids around another index (in version 2 it also finds by id), and the two that hold codes.
const MAPS: [&[u8; 4]; 2] = [b"IxMp", b"IxM2"];
const RESIDUAL: &[u8; 4] = b"IxRq";
const PRODUCT: &[u8; 4] = b"IxPq";

/// The names of other kinds that people have.
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

/// Numbers of faiss's enumerations.
const INNER_PRODUCT: i32 = 0;
const EUCLIDEAN: i32 = 1;
/// `ST_LUT_nonorm`: scores are sums of table entries. `ST_norm_float`: an f32 after each code is the squared norm of what
/// it stands for.
const LOOKUP_ONLY: i32 = 1;
const NORM_FLOAT: i32 = 3;
/// The search types whose norms are numbers of a codebook, which the file holds, and those that add tables to it.
const NORM_CODEBOOK: std::ops::RangeInclusive<i32> = 6..=9;
const NORM_TABLES: std::ops::RangeInclusive<i32> = 8..=9;
/// `Skip_codebook_tables`: tables that only encoding by beam search uses, which grow with the square of L·K.
const NO_TABLES: i32 = 2048;

/// Reads the index in `path`. Norms that it keeps are left: from codes and codebooks they are exact.
pub(crate) fn read(path: &Path) -> Result<Contents> {
    let open = || -> io::Result<_> {
        let file = File::open(path)?;
        let size = file.metadata()?.len();
        Ok((file, size))
    };
    let (file, size) = open().with_context(|| format!("cannot open {}", path.display()))?;
    parse(BufReader::new(file), size).with_context(|| path.display().to_string())
}

/// Reads an index of `size` bytes.
pub(crate) fn parse(bytes: impl Read, size: u64) -> Result<Contents> {
    let mut reader = Reader { bytes, left: size };
    let mut kind = reader.array::<4>()?;
    let mapped = if MAPS.contains(&&kind) {
        let header = reader.header()?;
        kind = reader.array()?;
        Some(header.n_items)
    } else {
        None
    };
    ensure!([RESIDUAL, PRODUCT].contains(&&kind), unknown(kind));
    let header = reader.header()?;
    let metric = match header.metric {
        INNER_PRODUCT => Metric::InnerProduct,
        EUCLIDEAN => Metric::Euclidean,
        other => {
            bail!("ranks by faiss's metric {other}, expected 0 (inner product) or 1 (Euclidean distance)")
        }
    };
    let (codebooks, codes) =
        if kind == *RESIDUAL { reader.residual(&header)? } else { reader.product(&header)? };
    let ids = match mapped {
        Some(n_mapped) => {
            ensure!(
                n_mapped == header.n_items,
                "maps ids of {n_mapped} items around an index of {}, expected as many: the file is damaged",
                header.n_items
            );
            Some(reader.ids(header.n_items)?)
        }
        None => None,
    };
    ensure!(reader.left == 0, "goes on for {} bytes after the index, the file is damaged", reader.left);
    Ok(Contents { codebooks, metric, codes, ids })
}

/// The sentence about a kind that is not read.
fn unknown(kind: [u8; 4]) -> String {
    let name = OTHERS.iter().find(|(other, _)| **other == kind).map(|(_, name)| *name);
    let found =
        name.map_or_else(|| format!("begins with `{}`", kind.escape_ascii()), |name| format!("is {name}"));
    format!(
        "{found}, expected faiss's IndexResidualQuantizer or IndexPQ, alone or in an IndexIDMap: encode the vectors with \
         one of these, or with dpq"
    )
}

/// Values of codebooks, at most, which take 2 GiB: those of product quantization grow by the number of levels.
const MOST_VALUES: usize = 1 << 29;

/// What all kinds of indexes begin with.
struct Header {
    dim: usize,
    n_items: usize,
    metric: i32,
}

/// A file, or the rest of it.
struct Reader<R> {
    bytes: R,
    left: u64,
}

impl<R: Read> Reader<R> {
    /// Counts `n` more bytes.
    fn advance(&mut self, n: u64) -> Result<()> {
        let Some(left) = self.left.checked_sub(n) else {
            bail!("needs {n} more bytes where {} are left, the file is cut off or damaged", self.left);
        };
        self.left = left;
        Ok(())
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut array = [0; N];
        self.advance(N as u64)?;
        self.bytes.read_exact(&mut array)?;
        Ok(array)
    }

    fn byte(&mut self) -> Result<u8> {
        Ok(self.array::<1>()?[0])
    }

    fn int(&mut self) -> Result<i32> {
        Ok(i32::from_le_bytes(self.array()?))
    }

    fn count(&mut self, what: &str) -> Result<usize> {
        let found = u64::from_le_bytes(self.array()?);
        usize::try_from(found)
            .ok()
            .filter(|&n| n <= isize::MAX as usize)
            .with_context(|| format!("has {found} as {what}, the file is damaged"))
    }

    /// The bytes of a vector of `n` elements of `size` bytes.
    fn vector(&mut self, what: &str, n: Option<usize>, size: usize) -> Result<Vec<u8>> {
        let found = self.count(what)?;
        let n = n.with_context(|| format!("claims more {what} than there can be, the file is damaged"))?;
        ensure!(found == n, "has {found} {what}, expected {n}: the file is damaged");
        self.elements(n, size)
    }

    fn elements(&mut self, n: usize, size: usize) -> Result<Vec<u8>> {
        let n_bytes =
            n.checked_mul(size).context("claims more than fits into memory, the file is damaged")?;
        self.advance(n_bytes as u64)?;
        let mut bytes = vec![0; n_bytes];
        self.bytes.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    fn floats(&mut self, what: &str, n: Option<usize>) -> Result<Vec<f32>> {
        let bytes = self.vector(what, n, 4)?;
        Ok(bytes.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect())
    }

    fn header(&mut self) -> Result<Header> {
        let dim = self.int()?;
        let n_items = self.count("its number of items")?;
        // Two numbers that mean nothing.
        self.array::<16>()?;
        let trained = self.byte()?;
        ensure!(trained != 0, "is not trained and so has no codebooks, add vectors to it first");
        let metric = self.int()?;
        if metric > EUCLIDEAN {
            self.array::<4>()?;
        }
        let dim = usize::try_from(dim).ok().filter(|&dim| dim > 0);
        let dim = dim.context("has no dimensions, the file is damaged")?;
        Ok(Header { dim, n_items, metric })
    }

    /// Dimensions and levels, which come first in quantizers.
    fn shape(&mut self, header: &Header) -> Result<usize> {
        let (dim, n_levels) = (self.count("its dimensions")?, self.count("its number of levels")?);
        ensure!(
            dim == header.dim,
            "quantizes {dim} dimensions in an index of {}, expected as many: the file is damaged",
            header.dim
        );
        ensure!(
            (1..=255).contains(&n_levels),
            "has codes of {n_levels} levels, expected 1 to 255: dpq's codes are no longer"
        );
        Ok(n_levels)
    }

    fn residual(&mut self, header: &Header) -> Result<(Codebooks, Vec<u8>)> {
        let n_levels = self.shape(header)?;
        let bits = self.vector("levels with a number of bits", Some(n_levels), 8)?;
        let bits: Vec<u64> = bits.as_chunks().0.iter().map(|&bits| u64::from_le_bytes(bits)).collect();
        ensure!(
            bits.iter().all(|&other| other == bits[0]),
            "has levels of {bits:?} bits, expected the same number for all: dpq's levels have as many codewords each"
        );
        let bits = check_bits(bits[0])?;
        let trained = self.byte()?;
        ensure!(trained != 0, "is not trained and so has no codebooks, add vectors to it first");
        let n = (n_levels << bits).checked_mul(header.dim);
        let values = self.floats("values of codebooks", n)?;
        let search_type = self.int()?;
        // The range of norms.
        self.array::<8>()?;
        if NORM_CODEBOOK.contains(&search_type) {
            let n = self.count("its number of norms")?;
            self.elements(n, 4)?;
        }
        if NORM_TABLES.contains(&search_type) {
            let n = self.count("its number of tables of norms")?;
            self.elements(n, 4)?;
        }
        // How it was trained: the kind and the beam.
        self.array::<8>()?;
        let size = self.count("its bytes a code")?;
        let least = (n_levels * bits).div_ceil(8);
        ensure!(size >= least, "has {size} bytes a code, expected at least {least}: the file is damaged");
        let packed = self.vector("bytes of codes", header.n_items.checked_mul(size), 1)?;
        let codebooks = Codebooks::new(values, n_levels, 1 << bits, header.dim, Assignment::Euclidean)?;
        Ok((codebooks, unpack(packed, size, n_levels, bits)))
    }

    /// Product quantization: the codewords of a level are zero but in the dimensions that are its own.
    fn product(&mut self, header: &Header) -> Result<(Codebooks, Vec<u8>)> {
        let (n_levels, dim) = (self.shape(header)?, header.dim);
        let bits = check_bits(u64::from_le_bytes(self.array()?))?;
        ensure!(
            dim.is_multiple_of(n_levels),
            "cuts {dim} dimensions into {n_levels} parts, expected equal parts: the file is damaged"
        );
        let n_codewords = 1usize << bits;
        let centroids = self.floats("values of centroids", n_codewords.checked_mul(dim))?;
        let size = (n_levels * bits).div_ceil(8);
        let packed = self.vector("bytes of codes", header.n_items.checked_mul(size), 1)?;
        // How faiss scans: the kind of search, and what polysemous codes need.
        self.array::<9>()?;
        let part = dim / n_levels;
        let n_values = n_levels * n_codewords * dim;
        ensure!(
            n_values <= MOST_VALUES,
            "has codebooks of {n_values} values once they have all dimensions, expected at most {MOST_VALUES}"
        );
        let mut values = vec![0.0; n_values];
        for (i, (centroid, codeword)) in
            centroids.chunks_exact(part).zip(values.chunks_exact_mut(dim)).enumerate()
        {
            codeword[i / n_codewords * part..][..part].copy_from_slice(centroid);
        }
        let codebooks = Codebooks::new(values, n_levels, n_codewords, dim, Assignment::Euclidean)?;
        Ok((codebooks, unpack(packed, size, n_levels, bits)))
    }

    fn ids(&mut self, n_items: usize) -> Result<Vec<u64>> {
        let bytes = self.vector("ids", Some(n_items), 8)?;
        let ids = bytes.as_chunks().0.iter().map(|&bytes| i64::from_le_bytes(bytes));
        ids.map(|id| {
            u64::try_from(id).ok().with_context(|| format!("has the id {id}, expected ids from 0 on"))
        })
        .collect()
    }
}

fn check_bits(found: u64) -> Result<usize> {
    ensure!(
        (1..=8).contains(&found),
        "has codes of {found} bits a level, expected 1 to 8: dpq's levels are bytes"
    );
    Ok(found as usize)
}

/// Codes of one byte a level, [N, n_levels], from codes of `size` bytes that begin with `bits` bits a level, the lowest of
/// a byte first.
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

/// Writes an `IndexResidualQuantizer`, in an `IndexIDMap` unless ids are row numbers. Its codes are of 8 bits a level;
/// where there are fewer than 256 codewords the others are zero.
pub(crate) fn write(path: &Path, contents: &Contents) -> Result<()> {
    let n_items = contents.codes.len() / contents.codebooks.n_levels();
    let ids = contents.ids.as_ref().filter(|ids| !ids.iter().copied().eq(0..n_items as u64));
    if let Some(id) = ids.and_then(|ids| ids.iter().find(|&&id| i64::try_from(id).is_err())) {
        bail!("the index has the id {id}, faiss's ids are below 2^63: build it with others");
    }
    dpq_file::write_atomic(path, |out| {
        if ids.is_some() {
            out.write_all(MAPS[0])?;
            write_header(out, contents, n_items)?;
        }
        write_residual(out, contents, n_items)?;
        if let Some(ids) = ids {
            write_count(out, ids.len())?;
            ids.iter().try_for_each(|id| out.write_all(&id.to_le_bytes()))?;
        }
        Ok(())
    })?;
    Ok(())
}

fn write_residual(out: &mut dyn Write, contents: &Contents, n_items: usize) -> io::Result<()> {
    let (codebooks, codes) = (&contents.codebooks, &contents.codes);
    let (n_levels, dim) = (codebooks.n_levels(), codebooks.dim());
    out.write_all(RESIDUAL)?;
    write_header(out, contents, n_items)?;

    write_count(out, dim)?;
    write_count(out, n_levels)?;
    write_count(out, n_levels)?;
    (0..n_levels).try_for_each(|_| write_count(out, 8))?;
    out.write_all(&[1])?;
    write_count(out, n_levels * 256 * dim)?;
    for level in 0..n_levels {
        let values = codebooks.level(level);
        values.iter().try_for_each(|value| out.write_all(&value.to_le_bytes()))?;
        (values.len()..256 * dim).try_for_each(|_| out.write_all(&0f32.to_le_bytes()))?;
    }
    let is_euclidean = contents.metric == Metric::Euclidean;
    out.write_all(&if is_euclidean { NORM_FLOAT } else { LOOKUP_ONLY }.to_le_bytes())?;
    // The range of norms, which only those of fewer bits need.
    out.write_all(&[0; 8])?;
    out.write_all(&NO_TABLES.to_le_bytes())?;
    // Encoding takes the nearest codeword.
    out.write_all(&1i32.to_le_bytes())?;

    let size = if is_euclidean { n_levels + 4 } else { n_levels };
    write_count(out, size)?;
    write_count(out, n_items * size)?;
    if !is_euclidean {
        return out.write_all(codes);
    }
    for codes in codes.chunks(CHUNK * n_levels) {
        let decoded = codebooks.decode(codes, codebooks.max_length()).map_err(io::Error::other)?;
        for (code, x) in codes.chunks_exact(n_levels).zip(decoded.chunks_exact(dim)) {
            let norm = x.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>() as f32;
            out.write_all(code)?;
            out.write_all(&norm.to_le_bytes())?;
        }
    }
    Ok(())
}

/// Codes decoded at a time.
const CHUNK: usize = 1024;

fn write_header(out: &mut dyn Write, contents: &Contents, n_items: usize) -> io::Result<()> {
    out.write_all(&(contents.codebooks.dim() as i32).to_le_bytes())?;
    write_count(out, n_items)?;
    // Two numbers that faiss writes and does not read.
    (0..2).try_for_each(|_| write_count(out, 1 << 20))?;
    out.write_all(&[1])?;
    let metric = if contents.metric == Metric::Euclidean { EUCLIDEAN } else { INNER_PRODUCT };
    out.write_all(&metric.to_le_bytes())
}

fn write_count(out: &mut dyn Write, n: usize) -> io::Result<()> {
    out.write_all(&(n as u64).to_le_bytes())
}
