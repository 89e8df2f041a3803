//! Upper bounds of scores, row by row, and the tables of the byte filter that follow from them.
//!
//! Except for rounding, the score of a code in a row is at most a base plus one table entry per
//! column. A column is a level. For the Euclidean metric table entries are doubled, and norms are
//! subtracted: the minimum of the row from the base, norms of pairs from the levels that a model
//! covers, and the rest by a column of its own, the bytes of norms.
//!
//! The byte filter adds up the deficits of a code: `max` − entry, column by column. A code reaches
//! a threshold only if its deficits add up to at most the *slack*, base + Σ max − threshold +
//! rounding error. Deficits are counted in 250ths of the slack, rounded down, so the filter never
//! drops a code that reaches the threshold.

use std::ops::Range;

use crate::kernel::{Column, Kernel, Survivors};
use crate::norms::Norms;
use crate::score::Scorer;

/// The sum of deficits that equals the slack for which the tables were made.
const STEPS: f64 = 250.0;

/// Bounds of one query at one length.
pub(crate) struct Bound<'a> {
    kernel: Kernel,
    n_levels: usize,
    norms: Option<Norms<'a>>,
    /// The base of each row, without norms.
    bases: [f32; 256],
    /// The columns of levels, of which the first `fixed.len()` change from row to row.
    columns: Vec<[f32; 256]>,
    /// The changing columns without norms, and the maximum of each.
    fixed: Vec<([f32; 256], f32)>,
    /// The maximum of each column.
    max: Vec<f32>,
    /// The sum of the maxima of the columns that do not change.
    max_of_others: f64,
    first: u8,
    base: f64,
    /// No inner product exceeds this, doubled for the Euclidean metric.
    magnitude: f64,
    /// No rounded score of the row exceeds its bound by more than this.
    rounding_error: f64,
    /// The bytes of codes that index the columns.
    planes: Vec<&'a [u8]>,
    /// The minimum byte of the norms of each cell.
    cells: Option<&'a [u8]>,
    /// The deficits of the columns.
    bytes: Vec<[u8; 256]>,
    /// The slack for which `bytes` were made, or 0 before.
    bytes_slack: f64,
    /// The first of `bytes` are those of another row.
    is_stale: bool,
    /// The deficits of the bytes of norms, made for that shift. Most rows have one of two shifts,
    /// an even and an odd one.
    norm_bytes: [(u32, [u8; 256]); 2],
    /// The shift of the norms of the row.
    shift: Option<u32>,
}

/// No row has this shift.
const NO_SHIFT: u32 = u32::MAX;

impl<'a> Bound<'a> {
    /// Prepares bounds of the scores of `scorer`, from the planes of levels 1, 2, ….
    pub(crate) fn new(kernel: Kernel, scorer: &Scorer<'a>, planes: &[&'a [u8]]) -> Self {
        let n_levels = scorer.n_levels();
        let mut planes = planes[..n_levels - 1].to_vec();
        let (norms, mut tables) = (scorer.norms, scorer.tables.clone());
        if norms.is_some() {
            tables.as_flattened_mut().iter_mut().for_each(|entry| *entry *= 2.0);
        }
        let magnitude = tables.iter().map(|table| f64::from(max_magnitude(table))).sum();
        let columns = tables.split_off(1);
        let (mut n_changing, mut cells) = (0, None);
        if let Some(norms) = &norms {
            n_changing = norms.n_modelled(n_levels);
            if let Some(plane) = norms.positions.filter(|_| n_levels > 2) {
                cells = plane.cells;
                planes.push(plane.high);
            }
        }
        let max: Vec<f32> = columns.iter().map(max).collect();
        Self {
            kernel,
            n_levels,
            norms,
            bases: tables[0],
            fixed: columns.iter().copied().zip(max.iter().copied()).take(n_changing).collect(),
            max_of_others: max[n_changing..].iter().map(|&max| f64::from(max)).sum(),
            max,
            first: 0,
            base: f64::NAN,
            magnitude,
            rounding_error: rounding_error(planes.len(), magnitude),
            planes,
            cells,
            bytes: vec![[0; 256]; columns.len()],
            columns,
            bytes_slack: 0.0,
            is_stale: false,
            norm_bytes: [(NO_SHIFT, [0; 256]); 2],
            shift: None,
        }
    }

    /// Returns the rows by about descending [`slack_of_row`](Self::slack_of_row), and at least that
    /// slack at threshold 0.
    pub(crate) fn rows(&mut self) -> [(u8, f32); 256] {
        let mut slacks = [0.0; 256];
        if self.norms.is_none() && self.rounding_error < f64::INFINITY {
            // Rows differ in their bases alone.
            self.kernel.vectorized(
                #[inline(always)]
                || slacks = self.bases.map(|base| self.slack_at(f64::from(base), 0.0, 0.0) as f32),
            );
        } else {
            slacks = std::array::from_fn(|first| self.slack_of_row(first as u8, 0.0) as f32);
        }
        let (mut keys, mut starts) = ([0; 256], [0; 257]);
        self.kernel.vectorized(
            #[inline(always)]
            || {
                slacks = slacks.map(f32::next_up);
                let (max, min) = (max(&slacks), -max(&slacks.map(|slack| -slack)));
                let scale = 255.0 / (max - min);
                keys = slacks.map(|slack| ((max - slack) * scale) as u8);
            },
        );
        // A sort by 256 keys takes a tenth of the time of a whole one, which some searches notice.
        keys.iter().for_each(|&key| starts[usize::from(key) + 1] += 1);
        (0..256).for_each(|key| starts[key + 1] += starts[key]);
        let mut rows = [(0, 0.0); 256];
        for ((row, slack), key) in (0..=255).zip(slacks).zip(keys) {
            let start = &mut starts[usize::from(key)];
            rows[*start] = (row, slack);
            *start += 1;
        }
        rows
    }

    /// Moves to the row of the codes that begin with `first`, and returns the
    /// [`slack`](Self::slack) there.
    pub(crate) fn enter(&mut self, first: u8, threshold: f32) -> f64 {
        let slack = self.slack_of_row(first, threshold);
        if self.fixed.is_empty() || slack < 0.0 {
            return slack;
        }
        let kernel = self.kernel;
        kernel.vectorized(
            #[inline(always)]
            || self.fill_changing(),
        );
        self.slack(threshold)
    }

    /// Returns at least the [`slack`](Self::slack) of a row, in less time. NaN is that of a byte
    /// that names no codeword, which a damaged file may have.
    pub(crate) fn slack_of_row(&mut self, first: u8, threshold: f32) -> f64 {
        self.move_to(first);
        self.slack(threshold)
    }

    fn move_to(&mut self, first: u8) {
        self.first = first;
        self.base = f64::from(self.bases[usize::from(first)]);
        if let Some(norms) = self.norms {
            let row = norms.row(self.n_levels, first).filter(|_| self.n_levels > 2);
            let of_row = row.map_or(0.0, |row| row.min());
            self.base -= of_row;
            for (i, (_, max)) in self.fixed.iter().enumerate() {
                let min = norms.pairs[i].minima.get(usize::from(first)).copied().unwrap_or(0);
                self.max[i] = max - (f64::from(min) * norms.unit) as f32;
            }
            self.shift = row.map(|row| row.shift);
            let of_norms = of_row.abs() + row.map_or(0.0, |row| row.range());
            let of_pairs = norms.max() * self.fixed.len() as f64;
            self.rounding_error = rounding_error(self.planes.len(), self.magnitude + of_norms + of_pairs);
        }
    }

    /// Makes the columns that change, and their maxima.
    #[inline(always)]
    fn fill_changing(&mut self) {
        let Some(norms) = &self.norms else { return };
        let unit = norms.unit as f32;
        for (i, (fixed, _)) in self.fixed.iter().enumerate() {
            let column = &mut self.columns[i];
            for ((entry, fixed), &norm) in column.iter_mut().zip(fixed).zip(norms.pairs[i].row(self.first)) {
                // At most 2³⁰. Not every CPU converts unsigned numbers fast.
                *entry = fixed - norm.cast_signed() as f32 * unit;
            }
            self.max[i] = max(column);
        }
        self.is_stale = true;
    }

    /// Returns the maximum amount by which a code of the row can exceed `threshold`. If it is
    /// negative or NaN, none reaches it.
    pub(crate) fn slack(&self, threshold: f32) -> f64 {
        if self.rounding_error == f64::INFINITY {
            return f64::INFINITY;
        }
        let changing: f64 = self.max[..self.fixed.len()].iter().map(|&max| f64::from(max)).sum();
        self.slack_at(self.base, changing, f64::from(threshold))
    }

    /// Returns the slack of a row whose changing columns have maxima of this sum.
    #[inline(always)]
    fn slack_at(&self, base: f64, changing: f64, threshold: f64) -> f64 {
        base + changing + self.max_of_others - threshold + self.rounding_error
    }

    /// Makes the byte tables, and returns the maximum sum of deficits of a code that reaches the
    /// threshold of this slack. Returns `None` if the slack is too large or too small to tell codes
    /// apart.
    pub(crate) fn limit(&mut self, slack: f64) -> Option<u8> {
        if !(self.bytes_slack / 2.0..=self.bytes_slack).contains(&slack) {
            let scale = (STEPS / slack) as f32;
            if !scale.is_normal() {
                return None;
            }
            self.bytes_slack = slack;
            self.norm_bytes.iter_mut().for_each(|(shift, _)| *shift = NO_SHIFT);
            self.fill_bytes(0..self.columns.len());
        } else if self.is_stale {
            self.fill_bytes(0..self.fixed.len());
        }
        self.is_stale = false;
        self.fill_norm_bytes();
        Some((STEPS * slack / self.bytes_slack) as u8 + 1)
    }

    /// Makes the byte table of the norms of the row, unless a row before had the same.
    fn fill_norm_bytes(&mut self) {
        let (Some(shift), Some(norms)) = (self.shift, &self.norms) else { return };
        let (of_shift, bytes) = &mut self.norm_bytes[shift as usize % 2];
        if *of_shift != shift {
            *of_shift = shift;
            let step = (f64::from(1u32 << shift) * norms.unit) as f32 * (STEPS / self.bytes_slack) as f32;
            for (byte, norm) in bytes.iter_mut().zip(0i32..) {
                *byte = rounded_down((norm as f32 * step).min(255.0));
            }
        }
    }

    /// Makes the byte tables of some columns.
    fn fill_bytes(&mut self, columns: Range<usize>) {
        let scale = (STEPS / self.bytes_slack) as f32;
        let (all, max) = (&self.columns[columns.clone()], &self.max[columns.clone()]);
        for (bytes, (column, &max)) in self.bytes[columns].iter_mut().zip(all.iter().zip(max)) {
            self.kernel.vectorized(
                #[inline(always)]
                move || fill(bytes, column, max, scale),
            );
        }
    }

    /// Returns the columns with their byte tables, from level 1 on.
    pub(crate) fn columns(&self) -> Vec<Column<'_>> {
        let tables = self.bytes.iter().chain(self.of_norms());
        self.planes.iter().zip(tables).map(|(plane, table)| Column { plane, table }).collect()
    }

    fn of_norms(&self) -> Option<&[u8; 256]> {
        self.shift.map(|shift| &self.norm_bytes[shift as usize % 2].1)
    }

    /// Returns the number of second bytes that a code within `limit` may have. Writes them,
    /// ascending, to the front of `seconds` if they are at most `max`.
    pub(crate) fn qualifying(&self, limit: u8, max: usize, seconds: &mut Survivors) -> usize {
        let of_bytes = Column { plane: &SECONDS, table: &self.bytes[0] };
        if let (Some(cells), Some(table)) = (self.cells, self.of_norms()) {
            let of_cells = Column { plane: &cells[usize::from(self.first) * 256..][..256], table };
            return self.kernel.survivors(&[of_bytes, of_cells], 0..256, limit, seconds);
        }
        let mut n = 0u16;
        self.kernel.vectorized(
            #[inline(always)]
            || n = of_bytes.table.iter().map(|&byte| u16::from(byte <= limit)).sum(),
        );
        if usize::from(n) <= max {
            self.kernel.survivors(&[of_bytes], 0..256, limit, seconds);
        }
        n.into()
    }
}

/// All second bytes.
const SECONDS: [u8; 256] = {
    let mut all = [0; 256];
    let mut i = 0;
    while i < 256 {
        all[i] = i as u8;
        i += 1;
    }
    all
};

/// Returns the error of scores of `n_columns`, and of their bounds, from sums of this magnitude.
fn rounding_error(n_columns: usize, magnitude: f64) -> f64 {
    // At most eight operations per level round, each by at most 2⁻²⁴ of its result. Sums that may
    // overflow f32 have no bound.
    if magnitude < f64::from(f32::MAX) / 4.0 {
        8.0 * (n_columns + 2) as f64 * magnitude / f64::from(1u32 << 24)
    } else {
        f64::INFINITY
    }
}

/// Writes the deficits of a column.
#[inline(always)]
fn fill(bytes: &mut [u8; 256], column: &[f32; 256], max: f32, scale: f32) {
    for (byte, entry) in bytes.iter_mut().zip(column) {
        // `min` turns the NaN of a byte that names no codeword into 255, above any limit.
        *byte = rounded_down(((max - entry) * scale).min(255.0));
    }
}

/// Returns a whole number that is at most `value`, from 0 to 255, and more than `value` − 2. It
/// takes few instructions.
#[inline(always)]
fn rounded_down(value: f32) -> u8 {
    // Above 2²³ the spacing of f32 is 1: to add 2²³ rounds, and leaves the whole number in the
    // lowest bits.
    ((value - 0.5).max(0.0) + (1u32 << 23) as f32).to_bits() as u8
}

/// Returns the maximum magnitude. It ignores NaN.
fn max_magnitude(values: &[f32]) -> f32 {
    values.iter().fold(0.0, |max, x| max.max(x.abs()))
}

/// Returns the maximum entry. It ignores NaN.
#[inline(always)]
fn max(table: &[f32; 256]) -> f32 {
    // Eight maxima become vector instructions, which one fold in a fixed order does not.
    let mut max = [f32::NEG_INFINITY; 8];
    for eight in table.as_chunks::<8>().0 {
        for (max, &entry) in max.iter_mut().zip(eight) {
            *max = if entry > *max { entry } else { *max };
        }
    }
    max.into_iter().fold(f32::NEG_INFINITY, f32::max)
}

#[cfg(test)]
mod tests {
    use super::rounded_down;

    #[test]
    fn rounding_never_exceeds_the_value() {
        for i in 0..=255 * 64 {
            let value = i as f32 / 64.0;
            let found = f32::from(rounded_down(value));
            assert!(found <= value && found > value - 2.0, "{value} gives {found}");
        }
    }
}
