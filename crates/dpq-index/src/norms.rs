//! Squared norms of reconstructions, which Euclidean scores need: whole numbers of a unit.
//!
//! There is a norm per codeword at one level, per pair of codewords at two, and per position at
//! three levels or more, where it is the sum of three parts: the minimum of its row,
//! `high`·2^shift, and `low`. Without `low` it is a lower bound, one byte that kernels scan.
//!
//! In a large index, a norm by position is counted from a model of it, so that bounds are tighter:
//! ‖c_0 + c_1‖² + Σ_{l = 2, 3} (‖c_0 + c_l‖² − ‖c_0‖²).

use dpq_codebook::{CodeLength, Codebooks};
use rayon::prelude::*;

use crate::Error;

/// Positions that a task computes norms of at a time.
const CHUNK: usize = 1 << 14;

/// Levels from 1 on that a model covers, at most.
pub(crate) const MODELLED: usize = 3;

/// Squared norms of the codes of an index at one length.
#[derive(Clone, Copy)]
pub(crate) struct Norms<'a> {
    pub(crate) unit: f64,
    /// ‖c_0‖², [K].
    pub(crate) rows: &'a [u32],
    /// ‖c_0 + c_l‖² for levels 1, 2, …, as far as they are known, [K, K].
    pub(crate) pairs: &'a [Pairs],
    /// At the length searched, if that is three levels or more.
    pub(crate) positions: Option<Plane<'a>>,
}

/// Squared norms of the sums of a codeword of level 0 and one of another level.
pub(crate) struct Pairs {
    pub(crate) n_codewords: usize,
    /// [K, K].
    pub(crate) norms: Vec<u32>,
    /// The minimum of each row of `norms`, [K].
    pub(crate) minima: Vec<u32>,
}

impl Pairs {
    pub(crate) fn new(n_codewords: usize, norms: Vec<u32>) -> Self {
        let minima = norms.chunks(n_codewords).map(|row| row.iter().copied().min().unwrap_or(0)).collect();
        Self { n_codewords, norms, minima }
    }

    /// Returns the norms with codeword `first` of level 0, `[K]`; none for a byte that names no
    /// codeword.
    pub(crate) fn row(&self, first: u8) -> &[u32] {
        let start = usize::from(first) * self.n_codewords;
        self.norms.get(start..start + self.n_codewords).unwrap_or(&[])
    }
}

impl<'a> Norms<'a> {
    /// Returns ‖x̂‖² at `n_levels` levels of the code at `position`: one or two levels, or the
    /// length of `positions`. A byte of a damaged file that names no codeword has no norm: the
    /// lookup table made its score NaN.
    #[inline]
    pub(crate) fn squared(&self, n_levels: usize, code: impl Fn(usize) -> u8, position: usize) -> f64 {
        let of_units = |norm: Option<&u32>| f64::from(norm.copied().unwrap_or(0)) * self.unit;
        match n_levels {
            1 => of_units(self.rows.get(usize::from(code(0)))),
            2 => of_units(self.pairs.first().and_then(|pairs| pairs.row(code(0)).get(usize::from(code(1))))),
            _ => self.row(n_levels, code(0)).map_or(0.0, |row| row.squared(code, position)),
        }
    }

    /// Returns how many levels from 1 on have their norms of pairs counted at `n_levels` levels.
    pub(crate) fn n_modelled(&self, n_levels: usize) -> usize {
        let has_model = n_levels == 2 || self.positions.is_some_and(|plane| plane.cells.is_some());
        if has_model { self.pairs.len().min(n_levels - 1) } else { 0 }
    }

    /// Returns a norm that none exceeds.
    pub(crate) fn max(&self) -> f64 {
        self.unit * f64::from(1u32 << 30)
    }

    /// Returns the norms at `n_levels` levels, three or more, of the codes that begin with `first`.
    #[inline]
    pub(crate) fn row(&self, n_levels: usize, first: u8) -> Option<RowNorms<'a>> {
        let plane = self.positions?;
        let (min, shift) = plane.row(first);
        let mut pairs = [&[][..]; MODELLED];
        let n_modelled = self.n_modelled(n_levels);
        let known = self.pairs.iter().take(n_modelled);
        pairs.iter_mut().zip(known).for_each(|(row, pairs)| *row = pairs.row(first));
        // The model counts ‖c_0‖² once.
        let surplus = i64::from(self.rows.get(usize::from(first)).copied().unwrap_or(0));
        let min = min.wrapping_sub(surplus * n_modelled.saturating_sub(1) as i64);
        Some(RowNorms { unit: self.unit, high: plane.high, low: plane.low, min, shift, pairs, n_modelled })
    }
}

/// Norms by position. Sections of a file, so any bytes must do.
#[derive(Clone, Copy)]
pub(crate) struct Plane<'a> {
    /// u8 [U].
    pub(crate) high: &'a [u8],
    /// Little-endian, 24 bits [U].
    pub(crate) low: &'a [[u8; 3]],
    /// The minimum of each row, and the shift of `high`: little-endian i64 [256, 2].
    pub(crate) rows: &'a [[[u8; 8]; 2]],
    /// The minimum of `high` in each cell, u8 [65536], and a model of the norms, if there are many
    /// positions.
    pub(crate) cells: Option<&'a [u8]>,
}

impl Plane<'_> {
    #[inline]
    fn row(&self, first: u8) -> (i64, u32) {
        let [min, shift] = self.rows[usize::from(first)].map(i64::from_le_bytes);
        (min, shift as u32 % 32)
    }
}

/// Norms of codes that begin with the same byte.
#[derive(Clone, Copy)]
pub(crate) struct RowNorms<'a> {
    unit: f64,
    high: &'a [u8],
    low: &'a [[u8; 3]],
    min: i64,
    pub(crate) shift: u32,
    pairs: [&'a [u32]; MODELLED],
    n_modelled: usize,
}

impl RowNorms<'_> {
    #[inline]
    pub(crate) fn squared(&self, code: impl Fn(usize) -> u8, position: usize) -> f64 {
        let [a, b, c] = self.low[position];
        let above = (u32::from(self.high[position]) << self.shift) + u32::from_le_bytes([a, b, c, 0]);
        let model = self.pairs.iter().take(self.n_modelled).enumerate();
        let model =
            model.map(|(i, pairs)| pairs.get(usize::from(code(i + 1))).map_or(0, |&norm| i64::from(norm)));
        self.min.wrapping_add(i64::from(above) + model.sum::<i64>()) as f64 * self.unit
    }

    /// Returns a norm that none of the row is below, if those of pairs are not counted.
    pub(crate) fn min(&self) -> f64 {
        self.min as f64 * self.unit
    }

    /// Returns how much larger than [`min`](Self::min) a norm can be: 256 steps of `high`.
    pub(crate) fn range(&self) -> f64 {
        (256u64 << self.shift) as f64 * self.unit
    }
}

/// A plane to write to a file, or to keep in memory for a length that the file lacks.
pub(crate) struct OwnedPlane {
    pub(crate) high: Vec<u8>,
    pub(crate) low: Vec<[u8; 3]>,
    pub(crate) rows: Vec<[[u8; 8]; 2]>,
    pub(crate) cells: Option<Vec<u8>>,
}

impl OwnedPlane {
    /// Splits what norms have above their model, `[U]`. `cells` are where cells start, ascending,
    /// then the number of positions.
    pub(crate) fn new(cells: &[usize], with_cells: bool, above_model: &[i64]) -> Self {
        let n = above_model.len();
        let (mut high, mut low) = (vec![0; n], vec![[0; 3]; n]);
        let row = |bounds: &[usize]| {
            let positions = bounds[0]..bounds[256];
            let values = above_model[positions.clone()].iter().copied();
            let (min, max) = (values.clone().min().unwrap_or(0), values.clone().max().unwrap_or(0));
            // Four norms of at most 2³⁰ make the difference.
            let shift = (u32::BITS - ((max - min) as u32).leading_zeros()).saturating_sub(u8::BITS);
            for (position, value) in positions.zip(values) {
                let above = (value - min) as u32;
                let [a, b, c, _] = (above & ((1 << shift) - 1)).to_le_bytes();
                high[position] = (above >> shift) as u8;
                low[position] = [a, b, c];
            }
            [min, shift.into()].map(i64::to_le_bytes)
        };
        let rows = cells.windows(257).step_by(256).map(row).collect();
        let min = |cell: &[usize]| high[cell[0]..cell[1]].iter().copied().min().unwrap_or(u8::MAX);
        let cells = with_cells.then(|| cells.windows(2).map(min).collect());
        Self { high, low, rows, cells }
    }

    pub(crate) fn as_plane(&self) -> Plane<'_> {
        Plane { high: &self.high, low: &self.low, rows: &self.rows, cells: self.cells.as_deref() }
    }
}

/// The inputs that norms are computed from.
pub(crate) struct Source<'a> {
    pub(crate) codebooks: &'a Codebooks,
    pub(crate) unit: f64,
    pub(crate) rows: &'a [u32],
    /// The norms that the model counts, or none.
    pub(crate) pairs: &'a [Pairs],
    /// Where cells start, then the number of positions.
    pub(crate) cells: &'a [usize],
    pub(crate) with_cells: bool,
}

impl Source<'_> {
    /// Returns the norms of all positions at each of `lengths`, three levels or more. `code` writes
    /// the code at a position, `[L]`.
    pub(crate) fn planes(
        &self,
        code: impl Fn(usize, &mut [u8]) + Sync,
        lengths: &[CodeLength],
    ) -> Result<Vec<OwnedPlane>, Error> {
        let n_positions = self.cells.last().copied().unwrap_or(0);
        let n_levels = self.codebooks.n_levels();
        let chunks: Vec<Vec<i64>> = (0..n_positions.div_ceil(CHUNK))
            .into_par_iter()
            .map(|chunk| {
                let positions = chunk * CHUNK..n_positions.min((chunk + 1) * CHUNK);
                let mut codes = vec![0; positions.len() * n_levels];
                codes
                    .chunks_exact_mut(n_levels)
                    .zip(positions)
                    .for_each(|(row, position)| code(position, row));
                let norms = self.codebooks.squared_norms(&codes, lengths)?;
                let above_model = |(i, norm): (usize, f32)| {
                    let (row, length) = (i / lengths.len(), lengths[i % lengths.len()].levels());
                    i64::from(units(norm, self.unit)) - self.model(&codes[row * n_levels..][..length])
                };
                Ok(norms.into_iter().enumerate().map(above_model).collect())
            })
            .collect::<Result<_, Error>>()?;
        let of_length = |i: usize| {
            let above_model = chunks.iter().flat_map(|norms| norms[i..].iter().step_by(lengths.len()));
            OwnedPlane::new(self.cells, self.with_cells, &above_model.copied().collect::<Vec<_>>())
        };
        Ok((0..lengths.len()).map(of_length).collect())
    }

    /// Returns the model of the norm of a code.
    fn model(&self, code: &[u8]) -> i64 {
        let first = i64::from(self.rows[usize::from(code[0])]);
        let pairs = self.pairs.iter().zip(&code[1..]).enumerate();
        let part = |(i, (pairs, &byte)): (usize, (&Pairs, &u8))| {
            let norm = i64::from(pairs.row(code[0])[usize::from(byte)]);
            if i == 0 { norm } else { norm - first }
        };
        pairs.map(part).sum()
    }
}

/// Returns ‖c_0‖² of all codewords, `[K]`.
pub(crate) fn of_rows(codebooks: &Codebooks, unit: f64) -> Result<Vec<u32>, Error> {
    let n_levels = codebooks.n_levels();
    let mut codes = vec![0; codebooks.n_codewords() * n_levels];
    codes.chunks_exact_mut(n_levels).enumerate().for_each(|(i, code)| code[0] = i as u8);
    let norms = codebooks.squared_norms(&codes, &[CodeLength::from_levels(1)?])?;
    Ok(norms.into_iter().map(|norm| units(norm, unit)).collect())
}

/// Returns ‖c_0 + c_l‖² of all codewords of levels 0 and l = 1 … `n`.
pub(crate) fn of_pairs(codebooks: &Codebooks, unit: f64, n: usize) -> Result<Vec<Pairs>, Error> {
    let (k, dim) = (codebooks.n_codewords(), codebooks.dim());
    let codes: Vec<u8> = (0..k * k).flat_map(|i| [(i / k) as u8, (i % k) as u8]).collect();
    let pairs = |level| {
        let values = [codebooks.level(0), codebooks.level(level)].concat();
        let two = Codebooks::new(values, 2, k, dim, codebooks.assignment())?;
        let norms = two.squared_norms(&codes, &[two.max_length()])?;
        Ok(Pairs::new(k, norms.into_iter().map(|norm| units(norm, unit)).collect()))
    };
    (1..=n).map(pairs).collect()
}

/// Rounds a squared norm. Norms are at most 2³⁰ units but for the rounding of very long vectors;
/// below that, what norms have above a model fits 32 bits.
fn units(norm: f32, unit: f64) -> u32 {
    ((f64::from(norm) / unit).round() as u32).min((1 << 30) - 1)
}
