//! Scores of codes against one lookup table, summed in one fixed order so that they are
//! reproducible.
//!
//! The inner product of a code at n levels is table[0][c_0] + … + table[n−1][c_{n−1}], f32, from
//! left to right, without fused multiply-add. The Euclidean score is 2⟨q, x̂⟩ − ‖x̂‖² of that inner
//! product and the norm of the code, in f64, rounded to f32 once.

use std::ops::Range;

use dpq_codebook::LookupTable;

use crate::norms::Norms;

/// One query at one length.
pub(crate) struct Scorer<'a> {
    /// One table per level. It has 256 entries, so that every byte is inside. Entries behind the
    /// codewords are NaN, which no threshold lets pass.
    pub(crate) tables: Vec<[f32; 256]>,
    /// Present for the Euclidean metric.
    pub(crate) norms: Option<Norms<'a>>,
}

impl<'a> Scorer<'a> {
    pub(crate) fn new(table: &LookupTable, n_levels: usize, norms: Option<Norms<'a>>) -> Self {
        let padded = |level| {
            let mut padded = [f32::NAN; 256];
            padded[..table.n_codewords()].copy_from_slice(table.level(level));
            padded
        };
        Self { tables: (0..n_levels).map(padded).collect(), norms }
    }

    pub(crate) fn n_levels(&self) -> usize {
        self.tables.len()
    }

    /// Returns a scorer of the same query at fewer levels.
    pub(crate) fn shortened(&self, n_levels: usize) -> Self {
        Self { tables: self.tables[..n_levels].to_vec(), norms: self.norms }
    }

    /// Returns the score of the code at `position`, given level by level. At one or two levels, any
    /// position will do.
    pub(crate) fn code(&self, code: impl Fn(usize) -> u8, position: usize) -> f32 {
        let entry = |level: usize| self.tables[level][usize::from(code(level))];
        let sum = (1..self.n_levels()).fold(entry(0), |sum, level| sum + entry(level));
        match &self.norms {
            None => sum,
            Some(norms) => euclidean(sum, norms.squared(self.n_levels(), code, position)),
        }
    }

    /// Writes the scores of the codes at `positions`, which all begin with `first`. `planes` are
    /// those of levels 1, 2, ….
    pub(crate) fn block(&self, first: u8, planes: &[&[u8]], positions: Range<usize>, scores: &mut [f32]) {
        scores.fill(self.tables[0][usize::from(first)]);
        self.add_levels(planes, positions.clone(), |i| i, scores);
        self.subtract_norms(first, planes, |i| positions.start + i, scores);
    }

    /// Writes the scores of the codes at some offsets from the first of `positions`, otherwise as
    /// [`block`](Self::block).
    pub(crate) fn some(
        &self,
        first: u8,
        planes: &[&[u8]],
        positions: Range<usize>,
        offsets: &[u16],
        scores: &mut [f32],
    ) {
        scores.fill(self.tables[0][usize::from(first)]);
        let offset = |i: usize| usize::from(offsets[i]);
        self.add_levels(planes, positions.clone(), offset, scores);
        self.subtract_norms(first, planes, |i| positions.start + offset(i), scores);
    }

    /// Writes the scores of codes whose bytes are every `stride`-th byte of `planes`, those of
    /// levels 0, 1, …. `norm` is called for the Euclidean metric alone.
    pub(crate) fn strided(
        &self,
        planes: &[&[u8]],
        stride: usize,
        norm: impl Fn(usize) -> f64,
        scores: &mut [f32],
    ) {
        let Some(last) = scores.len().checked_sub(1) else { return };
        for (i, score) in scores.iter_mut().enumerate() {
            *score = self.tables[0][usize::from(planes[0][i * stride])];
        }
        self.add_levels(&planes[1..], 0..last * stride + 1, |i| i * stride, scores);
        if self.norms.is_some() {
            scores.iter_mut().enumerate().for_each(|(i, score)| *score = euclidean(*score, norm(i)));
        }
    }

    /// Adds levels 1, 2, … to scores that hold level 0. Score i belongs to the code at `offset(i)`
    /// in `range` of the planes.
    #[inline(always)]
    fn add_levels(
        &self,
        planes: &[&[u8]],
        range: Range<usize>,
        offset: impl Fn(usize) -> usize,
        scores: &mut [f32],
    ) {
        let planes = &planes[..self.n_levels() - 1];
        for (tables, planes) in self.tables[1..].chunks(4).zip(planes.chunks(4)) {
            match planes.len() {
                1 => add_levels::<1>(tables, planes, range.clone(), &offset, scores),
                2 => add_levels::<2>(tables, planes, range.clone(), &offset, scores),
                3 => add_levels::<3>(tables, planes, range.clone(), &offset, scores),
                _ => add_levels::<4>(tables, planes, range.clone(), &offset, scores),
            }
        }
    }

    /// Turns inner products into scores: of the codes at `position(i)`, which begin with `first`.
    #[inline(always)]
    fn subtract_norms(
        &self,
        first: u8,
        planes: &[&[u8]],
        position: impl Fn(usize) -> usize,
        scores: &mut [f32],
    ) {
        let Some(norms) = &self.norms else { return };
        let row = norms.row(self.n_levels(), first);
        for (i, score) in scores.iter_mut().enumerate() {
            let position = position(i);
            let code = |level: usize| if level == 0 { first } else { planes[level - 1][position] };
            let norm = match &row {
                Some(row) => row.squared(code, position),
                None => norms.squared(self.n_levels(), code, position),
            };
            *score = euclidean(*score, norm);
        }
    }
}

/// Returns the Euclidean score of a code of this inner product and squared norm.
#[inline]
pub(crate) fn euclidean(inner_product: f32, norm: f64) -> f32 {
    (2.0 * f64::from(inner_product) - norm) as f32
}

/// Adds the entries of N levels to each score, in the order of the levels.
#[inline(always)]
fn add_levels<const N: usize>(
    tables: &[[f32; 256]],
    planes: &[&[u8]],
    range: Range<usize>,
    offset: impl Fn(usize) -> usize,
    scores: &mut [f32],
) {
    let tables: [&[f32; 256]; N] = std::array::from_fn(|level| &tables[level]);
    let planes: [&[u8]; N] = std::array::from_fn(|level| &planes[level][range.clone()]);
    for (i, score) in scores.iter_mut().enumerate() {
        let mut sum = *score;
        for level in 0..N {
            sum += tables[level][usize::from(planes[level][offset(i)])];
        }
        *score = sum;
    }
}
