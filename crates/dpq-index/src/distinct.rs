//! The distinct codes of an index at one length, for those who score every item.

use dpq_codebook::{CodeLength, LookupTable};

use crate::norms::Norms;
use crate::score::Scorer;
use crate::{Error, Index};

/// The distinct codes of an index at one length, and the items that have each.
///
/// A whole ranking, as evaluation needs it, scores each code once: the items of a code have one score. Made by
/// [`Index::distinct_codes`], in memory of its own: four bytes a code and as many as the length has, and eight an item.
pub struct DistinctCodes<'a> {
    index: &'a Index,
    length: CodeLength,
    norms: Option<Norms<'a>>,
    /// One u8 `[U]` a level.
    planes: Vec<Vec<u8>>,
    starts: Vec<u32>,
    ids: Vec<u64>,
}

impl Index {
    /// Returns the distinct codes at `length`.
    ///
    /// # Errors
    /// [`Error::Search`] for a length above that of the codes, or 2³² items or more; [`Error::Section`] if the file is damaged.
    pub fn distinct_codes(&self, length: CodeLength) -> Result<DistinctCodes<'_>, Error> {
        self.check_length(length)?;
        if u32::try_from(self.len()).is_err() {
            let reason =
                format!("there are {} items, expected fewer than 2^32 to rank all of them", self.len());
            return Err(Error::Search { reason });
        }
        let view = self.view();
        let mut planes = vec![Vec::new(); length.levels()];
        let (mut starts, mut ids) = (Vec::new(), Vec::with_capacity(self.len()));
        let mut n_left = self.len();
        let mut last = None;
        for (first, position) in view.positions() {
            let items = view.items(position..position + 1, &mut n_left);
            if items.is_empty() || items.start != ids.len() {
                let section = if view.starts.is_some() { "starts" } else { "cells" };
                return Err(self.section_error(section, "does not give each code its items".to_owned()));
            }
            let code = |level| view.code(first, position, level);
            let is_new =
                last.is_none_or(|last| (0..length.levels()).any(|level| planes[level][last] != code(level)));
            if is_new {
                last = Some(starts.len());
                starts.push(items.start as u32);
                planes.iter_mut().enumerate().for_each(|(level, plane)| plane.push(code(level)));
            }
            ids.extend(items.map(|item| view.ids.get(item)));
        }
        if ids.len() != self.len() {
            return Err(
                self.section_error("cells", format!("leads to {} of {} items", ids.len(), self.len()))
            );
        }
        starts.push(ids.len() as u32);
        // Within a code of the greatest length they ascend already.
        for run in starts.windows(2) {
            ids[run[0] as usize..run[1] as usize].sort_unstable();
        }
        Ok(DistinctCodes { index: self, length, norms: view.norms, planes, starts, ids })
    }
}

impl DistinctCodes<'_> {
    /// Returns the number U of codes.
    pub fn len(&self) -> usize {
        self.starts.len() - 1
    }

    /// Tells whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns where the items of each code start in [`ids`](Self::ids), then the number of items, `[U + 1]`.
    pub fn starts(&self) -> &[u32] {
        &self.starts
    }

    /// Returns the ids of all items `[N]`, ascending within a code.
    pub fn ids(&self) -> &[u64] {
        &self.ids
    }

    /// Writes the score of each code for the query of `table`: those that [`Index::search`] gives its items.
    ///
    /// Shapes: `scores` `[U]`; `table` as for a search at this length.
    ///
    /// # Errors
    /// [`Error::Search`] for a table of another shape or a wrong number of scores.
    pub fn score(&self, table: &LookupTable, scores: &mut [f32]) -> Result<(), Error> {
        self.index.check_table(table, self.length)?;
        if scores.len() != self.len() {
            let reason = format!("there is room for {} scores, expected {}", scores.len(), self.len());
            return Err(Error::Search { reason });
        }
        let planes: Vec<&[u8]> = self.planes.iter().map(Vec::as_slice).collect();
        Scorer::new(table, self.length.levels(), self.norms).strided(&planes, 1, scores);
        Ok(())
    }
}
