//! Upper bounds of scores, row by row, and the tables of the byte filter that follow from them.
//!
//! Except for rounding, the score of a code in a row is at most a base plus one table entry per
//! column. A column is a level. For the Euclidean metric there is one more, the cross plane: with
//! u_l = 2⟨q, c_l⟩ − ‖c_l‖² − 2⟨c_0, c_l⟩ the score is u_0 + Σ_{l≥1} u_l − 2 Σ_{1≤i<j} ⟨c_i, c_j⟩,
//! and the last sum is at least the value of its byte.
//!
//! The byte filter adds up the deficits of a code: `max` − entry, column by column. A code reaches
//! a threshold only if its deficits add up to at most the *slack*, base + Σ max − threshold +
//! rounding error. Deficits are counted in 250ths of the slack, rounded down, so the filter never
//! drops a code that reaches the threshold.

use crate::kernel::Column;
use crate::norms::{Norms, Quantizer};
use crate::score::Scorer;

/// The sum of deficits that equals the slack for which the tables were made.
const STEPS: f64 = 250.0;

/// Bounds of one query at one length.
pub(crate) struct Bound<'a> {
    n_levels: usize,
    norms: Option<Norms<'a>>,
    /// The base of each row.
    bases: [f32; 256],
    /// The columns without the part that depends on the row.
    fixed: Vec<[f32; 256]>,
    columns: Vec<[f32; 256]>,
    /// The maximum of each column.
    max: Vec<f32>,
    base: f64,
    cross_base: f64,
    /// No rounded score exceeds its bound by more than this.
    rounding_error: f64,
    /// The bytes of codes that index the columns.
    planes: Vec<&'a [u8]>,
    /// The deficits of the columns.
    bytes: Vec<[u8; 256]>,
    /// The slack for which `bytes` were made, or 0 if they do not belong to the row.
    bytes_slack: f64,
}

impl<'a> Bound<'a> {
    /// Prepares bounds of the scores of `scorer`, from the planes of levels 1, 2, … and the cross
    /// plane at its length, if any.
    pub(crate) fn new(
        scorer: &Scorer<'a>,
        planes: &[&'a [u8]],
        cross: Option<(&'a [u8], Quantizer)>,
    ) -> Self {
        let mut planes = planes[..scorer.n_levels() - 1].to_vec();
        planes.extend(cross.map(|(plane, _)| plane));
        let cross = cross.map(|(_, quantizer)| quantizer);
        let norms = scorer.norms;
        let mut tables = scorer.tables.clone();
        let mut magnitude: f64 = tables.iter().map(|table| f64::from(max_magnitude(table))).sum();
        if let Some(norms) = &norms {
            let mut lengths = 0.0;
            for (level, table) in tables.iter_mut().enumerate() {
                let own = norms.own(level);
                table.iter_mut().zip(own).for_each(|(entry, own)| *entry = 2.0 * *entry - own);
                lengths += f64::from(max_magnitude(own)).sqrt();
            }
            // No sum of products of codewords exceeds the square of the sum of their lengths.
            magnitude = 2.0 * magnitude + lengths * lengths;
        }
        if let Some(cross) = cross {
            tables.push(std::array::from_fn(|byte| (-2.0 * (byte as f64) * f64::from(cross.step)) as f32));
            magnitude += 2.0 * f64::from(cross.min.abs()) + 512.0 * f64::from(cross.step.abs());
        }
        // At most eight operations per level round, each by at most 2⁻²⁴ of its result. Sums that
        // may overflow f32 have no bound.
        let rounding_error = if magnitude < f64::from(f32::MAX) / 4.0 {
            8.0 * (tables.len() + 1) as f64 * magnitude / f64::from(1u32 << 24)
        } else {
            f64::INFINITY
        };
        let fixed = tables.split_off(1);
        Self {
            n_levels: scorer.n_levels(),
            norms,
            bases: tables[0],
            columns: fixed.clone(),
            max: fixed.iter().map(max).collect(),
            planes,
            bytes: vec![[0; 256]; fixed.len()],
            fixed,
            base: f64::NAN,
            cross_base: cross.map_or(0.0, |cross| -2.0 * f64::from(cross.min)),
            rounding_error,
            bytes_slack: 0.0,
        }
    }

    /// Moves to the row of the codes that begin with `first`.
    pub(crate) fn enter(&mut self, first: u8) {
        self.base = f64::from(self.bases[usize::from(first)]) + self.cross_base;
        if let Some(norms) = &self.norms {
            let columns = self.columns.iter_mut().zip(&self.fixed).zip(&mut self.max);
            for (level, ((column, fixed), column_max)) in (1..self.n_levels).zip(columns) {
                for ((entry, fixed), product) in
                    column.iter_mut().zip(fixed).zip(norms.with_first(first, level))
                {
                    *entry = fixed - 2.0 * f32::from_le_bytes(*product);
                }
                *column_max = max(column);
            }
            self.bytes_slack = 0.0;
        }
    }

    /// Returns the maximum amount by which a code of the row can exceed `threshold`. If it is
    /// negative or NaN, none reaches it.
    pub(crate) fn slack(&self, threshold: f32) -> f64 {
        if self.rounding_error == f64::INFINITY {
            return f64::INFINITY;
        }
        self.base + self.max.iter().map(|&x| f64::from(x)).sum::<f64>() - f64::from(threshold)
            + self.rounding_error
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
            for ((bytes, column), max) in self.bytes.iter_mut().zip(&self.columns).zip(&self.max) {
                for (byte, entry) in bytes.iter_mut().zip(column) {
                    // `min` turns the NaN of a byte that names no codeword into 255, above any
                    // limit.
                    *byte = rounded_down(((max - entry) * scale).min(255.0));
                }
            }
            self.bytes_slack = slack;
        }
        Some((STEPS * slack / self.bytes_slack) as u8 + 1)
    }

    /// Returns the columns with their byte tables, from level 1 on.
    pub(crate) fn columns(&self) -> Vec<Column<'_>> {
        self.planes.iter().zip(&self.bytes).map(|(plane, table)| Column { plane, table }).collect()
    }

    /// Returns 1 for every second byte that a code within `limit` may have, and 0 for all other
    /// bytes.
    pub(crate) fn qualifying(&self, limit: u8) -> [u8; 256] {
        self.bytes[0].map(|byte| u8::from(byte <= limit))
    }
}

/// Returns a whole number that is at most `value`, from 0 to 255, and more than `value` − 2. It
/// takes few instructions.
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
