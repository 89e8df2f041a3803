//! Upper bounds of scores, row by row, and the byte tables of the filter that follow from them.
//!
//! The score of a code that begins with a given byte is at most a base plus one table entry a column, but for rounding. A
//! column is a level, and for the Euclidean metric also the cross plane: with u_l = 2⟨q, c_l⟩ − ‖c_l‖² − 2⟨c_0, c_l⟩ the
//! score is u_0 + Σ_{l≥1} u_l − 2 Σ_{1≤i<j} ⟨c_i, c_j⟩, and that last sum is at least what its byte stands for.
//!
//! The filter: an entry lacks `greatest` − entry of the best. A code reaches a threshold only if all that it lacks adds up to
//! at most the *slack*, base + Σ greatest − threshold + room for rounding. Lacks are counted in whole 250ths of the
//! slack, rounded down, so nothing that belongs is dropped.

use crate::kernel::Column;
use crate::norms::{Norms, Quantizer};
use crate::score::Scorer;

/// The sum that the filter lets pass where the slack is that of the tables.
const STEPS: f64 = 250.0;

/// Bounds of one query at one length.
pub(crate) struct Bound<'a> {
    n_levels: usize,
    norms: Option<Norms<'a>>,
    /// The base of each row.
    bases: [f32; 256],
    /// The columns, without what depends on the row.
    fixed: Vec<[f32; 256]>,
    columns: Vec<[f32; 256]>,
    greatest: Vec<f32>,
    base: f64,
    cross_base: f64,
    room: f64,
    /// The bytes that the columns are looked up by.
    planes: Vec<&'a [u8]>,
    bytes: Vec<[u8; 256]>,
    /// The slack that `bytes` were made for; 0 when they are of no use.
    bytes_slack: f64,
}

impl<'a> Bound<'a> {
    /// Prepares bounds of `scorer`'s scores from the planes of levels 1, 2, …, and the cross plane at its length, if there is one.
    pub(crate) fn new(
        scorer: &Scorer<'a>,
        planes: &[&'a [u8]],
        cross: Option<(&'a [u8], Quantizer)>,
    ) -> Self {
        let mut planes = planes[..scorer.n_levels() - 1].to_vec();
        planes.extend(cross.map(|(plane, _)| plane));
        let cross = cross.map(|(_, quantizer)| quantizer);
        let norms = scorer.norms();
        let mut tables = scorer.tables().to_vec();
        let mut magnitude: f64 = tables.iter().map(|table| f64::from(largest(table))).sum();
        if let Some(norms) = &norms {
            let mut lengths = 0.0;
            for (level, table) in tables.iter_mut().enumerate() {
                let own = norms.own(level);
                table.iter_mut().zip(own).for_each(|(entry, own)| *entry = 2.0 * *entry - own);
                lengths += f64::from(largest(own)).sqrt();
            }
            // No sum of products of codewords exceeds the square of their lengths' sum.
            magnitude = 2.0 * magnitude + lengths * lengths;
        }
        if let Some(cross) = cross {
            tables.push(std::array::from_fn(|byte| (-2.0 * (byte as f64) * f64::from(cross.step)) as f32));
            magnitude += 2.0 * f64::from(cross.min.abs()) + 512.0 * f64::from(cross.step.abs());
        }
        // Each of at most eight operations a level is off by 2⁻²⁴ of its result at most. Where sums may overflow f32,
        // nothing is known of them.
        let room = if magnitude < f64::from(f32::MAX) / 4.0 {
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
            greatest: fixed.iter().map(greatest).collect(),
            planes,
            bytes: vec![[0; 256]; fixed.len()],
            fixed,
            base: f64::NAN,
            cross_base: cross.map_or(0.0, |cross| -2.0 * f64::from(cross.min)),
            room,
            bytes_slack: 0.0,
        }
    }

    /// Turns to the codes that begin with `first`.
    pub(crate) fn enter(&mut self, first: u8) {
        self.base = f64::from(self.bases[usize::from(first)]) + self.cross_base;
        if let Some(norms) = &self.norms {
            let columns = self.columns.iter_mut().zip(&self.fixed).zip(&mut self.greatest);
            for (level, ((column, fixed), most)) in (1..self.n_levels).zip(columns) {
                for ((entry, fixed), product) in
                    column.iter_mut().zip(fixed).zip(norms.with_first(first, level))
                {
                    *entry = fixed - 2.0 * f32::from_le_bytes(*product);
                }
                *most = greatest(column);
            }
            self.bytes_slack = 0.0;
        }
    }

    /// Returns by how much the best code of the row could exceed `threshold`: if negative, or NaN, none reaches it.
    pub(crate) fn slack(&self, threshold: f32) -> f64 {
        if self.room == f64::INFINITY {
            return self.room;
        }
        self.base + self.greatest.iter().map(|&x| f64::from(x)).sum::<f64>() - f64::from(threshold)
            + self.room
    }

    /// Makes the byte tables and returns the most that their sum can be for a code that reaches a threshold of this slack;
    /// `None` if no code can be told from others.
    pub(crate) fn limit(&mut self, slack: f64) -> Option<u8> {
        if !(self.bytes_slack / 2.0..=self.bytes_slack).contains(&slack) {
            let scale = (STEPS / slack) as f32;
            if !scale.is_normal() {
                return None;
            }
            for ((bytes, column), greatest) in self.bytes.iter_mut().zip(&self.columns).zip(&self.greatest) {
                for (byte, entry) in bytes.iter_mut().zip(column) {
                    // The minimum turns the NaN of a byte that is no codeword into more than any limit.
                    *byte = rounded_down(((greatest - entry) * scale).min(255.0));
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

    /// Returns 1 for every second byte that a code within `limit` may have, 0 for the others.
    pub(crate) fn qualifying(&self, limit: u8) -> [u8; 256] {
        self.bytes[0].map(|byte| u8::from(byte <= limit))
    }
}

/// Returns a whole number that is at most `value`, from 0 to 255, and more than `value` − 2, in few vector instructions.
fn rounded_down(value: f32) -> u8 {
    // Above 2²³ the spacing of f32 is 1, so that adding it rounds, and leaves the whole number in the lowest bits.
    ((value - 0.5).max(0.0) + (1u32 << 23) as f32).to_bits() as u8
}

/// Returns the largest magnitude; NaN does not count.
fn largest(values: &[f32]) -> f32 {
    values.iter().fold(0.0, |most, x| most.max(x.abs()))
}

/// Returns the greatest entry; NaN does not count.
fn greatest(table: &[f32; 256]) -> f32 {
    // Eight at a time become vector instructions, which a plain fold, whose order is fixed, does not.
    let mut most = [f32::NEG_INFINITY; 8];
    for eight in table.as_chunks::<8>().0 {
        for (most, &entry) in most.iter_mut().zip(eight) {
            *most = if entry > *most { entry } else { *most };
        }
    }
    most.into_iter().fold(f32::NEG_INFINITY, f32::max)
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
