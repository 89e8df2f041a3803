//! How many items share the beginning of a code.

use dpq_codebook::Expected;

use crate::{Error, Filter, Index};

impl Index {
    /// Returns how many items have codes that begin with the first 1, 2, … bytes of `code`, u8
    /// `[L]`: of all items, or of those that pass `filter`. It reads the codes of the first byte.
    ///
    /// # Errors
    /// [`Error::Codebook`] for another number of bytes, [`Error::ForeignFilter`].
    pub fn prefix_counts(&self, code: &[u8], filter: Option<&Filter>) -> Result<Vec<usize>, Error> {
        let n_levels = self.layout.n_levels;
        Expected::Shape(vec![n_levels]).check("code", code.len())?;
        filter.map_or(Ok(()), |filter| filter.check(&self.identity))?;
        let (view, mut counts, mut n_left) = (self.view(), vec![0; n_levels], self.len());
        for position in view.row(code[0]) {
            let is_shared = |&level: &usize| view.code(code[0], position, level) == code[level];
            let n_shared = (0..n_levels).take_while(is_shared).count();
            let items = view.items(position..position + 1, &mut n_left);
            let n = match filter {
                Some(filter) => items.filter(|&item| filter.has(item)).count(),
                None => items.len(),
            };
            counts[..n_shared].iter_mut().for_each(|count| *count += n);
        }
        Ok(counts)
    }
}
