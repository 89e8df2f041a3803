//! Writes faiss's `IndexResidualQuantizer` and `IndexPQ`, alone or in an `IndexIDMap`.

use std::io::{self, Write};

use dpq_codebook::{Codebooks, Form};

use super::{EUCLIDEAN, FaissIndex, INNER_PRODUCT, MAPS, PRODUCT, RESIDUAL};
use crate::npy::check_shape;
use crate::{Error, Result};

/// Values of faiss's `Search_type_t`. `ST_LUT_nonorm`: scores are sums of table entries.
/// `ST_norm_float`: an f32 after each code is the squared norm of its reconstruction.
const LOOKUP_ONLY: i32 = 1;
const NORM_FLOAT: i32 = 3;
/// `Skip_codebook_tables`: leaves out tables for encoding by beam search, which grow with the
/// square of L·K.
const NO_TABLES: i32 = 2048;

/// Refuses shapes that do not match, and numbers that faiss cannot hold.
pub(super) fn check(index: &FaissIndex) -> Result<()> {
    let FaissIndex { codebooks, codes, ids, .. } = index;
    let range = |what, found: usize, max| {
        let error = Error::range(what, found, [1, max], "faiss cannot hold other numbers");
        if (1..=max).contains(&(found as u64)) { Ok(()) } else { Err(error) }
    };
    range("dimensions", codebooks.dim(), i32::MAX as u64)?;
    let n_items = codes.len() / codebooks.n_levels();
    check_shape(&[n_items, codebooks.n_levels()], codes.len())?;
    let largest = codes.iter().max().map_or(1, |&code| usize::from(code) + 1);
    range("as the largest code plus 1", largest, codebooks.n_codewords() as u64)?;
    let Some(ids) = ids else { return Ok(()) };
    check_shape(&[n_items], ids.len())?;
    let max = i64::MAX as u64;
    ids.iter().find(|&&id| id > max).map_or(Ok(()), |&id| Err(Error::id(id, max)))
}

pub(super) fn index(out: &mut dyn Write, index: &FaissIndex) -> io::Result<()> {
    let n_items = index.codes.len() / index.codebooks.n_levels();
    let ids = index.ids.as_ref().filter(|ids| !ids.iter().copied().eq(0..n_items as u64));
    if ids.is_some() {
        out.write_all(MAPS[0])?;
        header(out, index, n_items)?;
    }
    match index.codebooks.form() {
        Form::Progressive => residual(out, index, n_items)?,
        Form::Product => product(out, index, n_items)?,
    }
    let Some(ids) = ids else { return Ok(()) };
    count(out, ids.len())?;
    ids.iter().try_for_each(|id| out.write_all(&id.to_le_bytes()))
}

fn residual(out: &mut dyn Write, index: &FaissIndex, n_items: usize) -> io::Result<()> {
    let FaissIndex { is_euclidean, codebooks, codes, .. } = index;
    let n_levels = codebooks.n_levels();
    out.write_all(RESIDUAL)?;
    header(out, index, n_items)?;

    count(out, codebooks.dim())?;
    count(out, n_levels)?;
    count(out, n_levels)?;
    (0..n_levels).try_for_each(|_| count(out, 8))?;
    out.write_all(&[1])?;
    codewords(out, codebooks)?;
    out.write_all(&if *is_euclidean { NORM_FLOAT } else { LOOKUP_ONLY }.to_le_bytes())?;
    // The range of norms, which only norms of fewer bits need.
    out.write_all(&[0; 8])?;
    out.write_all(&NO_TABLES.to_le_bytes())?;
    // The beam of encoding.
    out.write_all(&1i32.to_le_bytes())?;

    let size = if *is_euclidean { n_levels + 4 } else { n_levels };
    count(out, size)?;
    count(out, n_items * size)?;
    if !is_euclidean {
        return out.write_all(codes);
    }
    for codes in codes.chunks(n_levels << 12) {
        let decoded = codebooks.decode(codes, codebooks.max_length()).map_err(io::Error::other)?;
        for (code, x) in codes.chunks_exact(n_levels).zip(decoded.chunks_exact(codebooks.dim())) {
            let norm = x.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>() as f32;
            out.write_all(code)?;
            out.write_all(&norm.to_le_bytes())?;
        }
    }
    Ok(())
}

fn product(out: &mut dyn Write, index: &FaissIndex, n_items: usize) -> io::Result<()> {
    let FaissIndex { codebooks, codes, .. } = index;
    out.write_all(PRODUCT)?;
    header(out, index, n_items)?;
    count(out, codebooks.dim())?;
    count(out, codebooks.n_levels())?;
    count(out, 8)?;
    codewords(out, codebooks)?;
    count(out, codes.len())?;
    out.write_all(codes)?;
    // Search by tables, which takes no parameters.
    out.write_all(&[0; 9])
}

/// Writes 256 codewords per level.
fn codewords(out: &mut dyn Write, codebooks: &Codebooks) -> io::Result<()> {
    let (n_levels, size) = (codebooks.n_levels(), 256 * codebooks.width());
    count(out, n_levels * size)?;
    for level in (0..n_levels).map(|level| codebooks.level(level)) {
        level.iter().try_for_each(|value| out.write_all(&value.to_le_bytes()))?;
        (level.len()..size).try_for_each(|_| out.write_all(&0f32.to_le_bytes()))?;
    }
    Ok(())
}

fn header(out: &mut dyn Write, index: &FaissIndex, n_items: usize) -> io::Result<()> {
    out.write_all(&(index.codebooks.dim() as i32).to_le_bytes())?;
    count(out, n_items)?;
    // Two numbers that faiss writes and does not read.
    (0..2).try_for_each(|_| count(out, 1 << 20))?;
    out.write_all(&[1])?;
    let metric = if index.is_euclidean { EUCLIDEAN } else { INNER_PRODUCT };
    out.write_all(&metric.to_le_bytes())
}

fn count(out: &mut dyn Write, n: usize) -> io::Result<()> {
    out.write_all(&(n as u64).to_le_bytes())
}
