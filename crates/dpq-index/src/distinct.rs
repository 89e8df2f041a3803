//! The distinct codes of an index at one length, for callers that score every item.

use dpq_codebook::{CodeLength, Expected, LookupTable};

use crate::{Error, Index};

/// The distinct codes of an index at one length, and the items that have each.
///
/// [`Index::distinct_codes`] makes it. All items of a code have the same score, so an evaluation of
/// whole rankings scores each code once. Takes 4 bytes and the bytes of the length per code, and 8
/// bytes per item.
#[derive(Debug)]
pub struct DistinctCodes<'a> {
    index: &'a Index,
    length: CodeLength,
    /// The bytes of each level, u8 `[U]`.
    planes: Vec<Vec<u8>>,
    starts: Vec<u32>,
    ids: Vec<u64>,
    /// The squared norm of each code, `[U]`; empty unless scores need it.
    norms: Vec<f64>,
}

impl Index {
    /// Returns the distinct codes at `length`.
    ///
    /// # Errors
    /// [`Error::Codebook`] for a length above that of the codes, or 2³² items or more;
    /// [`Error::Section`] if the file is damaged.
    pub fn distinct_codes(&self, length: CodeLength) -> Result<DistinctCodes<'_>, Error> {
        self.check_length(length)?;
        Expected::Range(0..=u32::MAX as usize).check("number of items", self.len())?;
        let (view, norms) = (self.view(), self.norms(length.levels())?);
        let mut planes = vec![Vec::new(); length.levels()];
        let (mut starts, mut ids) = (Vec::new(), Vec::with_capacity(self.len()));
        let mut of_codes = Vec::new();
        let mut n_left = self.len();
        let mut last = None;
        for (first, position) in view.positions() {
            let items = view.items(position..position + 1, &mut n_left);
            if items.is_empty() || items.start != ids.len() {
                let section = if view.starts.is_some() { "starts" } else { "cells" };
                return self.damaged(section, "does not give each code its items");
            }
            let code = |level| view.code(first, position, level);
            let is_new =
                last.is_none_or(|last| (0..length.levels()).any(|level| planes[level][last] != code(level)));
            if is_new {
                last = Some(starts.len());
                starts.push(items.start as u32);
                planes.iter_mut().enumerate().for_each(|(level, plane)| plane.push(code(level)));
                of_codes.extend(norms.map(|norms| norms.squared(length.levels(), code, position)));
            }
            ids.extend(items.map(|item| view.ids.get(item)));
        }
        if ids.len() != self.len() {
            return self.damaged("cells", format!("leads to {} of {} items", ids.len(), self.len()));
        }
        starts.push(ids.len() as u32);
        // Ids ascend already within a code of the greatest length.
        for run in starts.windows(2) {
            ids[run[0] as usize..run[1] as usize].sort_unstable();
        }
        Ok(DistinctCodes { index: self, length, planes, starts, ids, norms: of_codes })
    }
}

impl DistinctCodes<'_> {
    /// Returns the number of codes, U.
    pub fn len(&self) -> usize {
        self.starts.len() - 1
    }

    /// Returns true if there are no codes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns where the items of each code start in [`ids`](Self::ids), then the number of items:
    /// `[U + 1]`.
    pub fn starts(&self) -> &[u32] {
        &self.starts
    }

    /// Returns the ids of all items `[N]`, ascending within a code.
    pub fn ids(&self) -> &[u64] {
        &self.ids
    }

    /// Writes the score of each code for the query of `table`: the scores that
    /// [`Index::search_with`] gives its items.
    ///
    /// Shapes: `scores` `[U]`, and `table` as for a search at this length.
    ///
    /// # Errors
    /// [`Error::Table`] for a table of another shape, [`Error::Codebook`] for another number of
    /// scores.
    pub fn score(&self, table: &LookupTable, scores: &mut [f32]) -> Result<(), Error> {
        self.index.check_table(table, self.length)?;
        Expected::Shape(vec![self.len()]).check("scores", scores.len())?;
        let planes: Vec<&[u8]> = self.planes.iter().map(Vec::as_slice).collect();
        let scorer = self.index.exact_scan(table, self.length)?.scorer;
        scorer.strided(&planes, 1, |i| self.norms[i], scores);
        Ok(())
    }
}
