//! Which row of the gallery has an id.

use std::collections::HashMap;

/// The row of the gallery that has an id.
pub(super) enum Rows {
    /// By id; `u32::MAX` where there is no such id. A whole ranking asks for every row, and hashing each id takes longer than
    /// the search.
    Dense(Vec<u32>),
    Sparse(HashMap<u64, u32>),
}

impl Rows {
    /// Returns `None` if an id comes twice.
    pub(super) fn new(ids: &[u64]) -> Option<Self> {
        let n_ids = ids.iter().max().map_or(0, |&most| most.saturating_add(1));
        if n_ids > 4 * ids.len() as u64 {
            let rows: HashMap<u64, u32> = ids.iter().copied().zip(0..).collect();
            return (rows.len() == ids.len()).then_some(Self::Sparse(rows));
        }
        let mut rows = vec![u32::MAX; n_ids as usize];
        for (&id, row) in ids.iter().zip(0..) {
            let slot = &mut rows[id as usize];
            if std::mem::replace(slot, row) != u32::MAX {
                return None;
            }
        }
        Some(Self::Dense(rows))
    }

    /// Returns by id what `relevant` has by row.
    pub(super) fn by_id(&self, relevant: Vec<bool>) -> ById<'_> {
        match self {
            Self::Dense(rows) => {
                ById::Dense(rows.iter().map(|&row| relevant.get(row as usize).copied()).collect())
            }
            Self::Sparse(rows) => ById::Sparse(rows, relevant),
        }
    }
}

/// The relevance of ids. A ranking asks for them in an order that memory is slow at, so that one byte has to be enough.
pub(super) enum ById<'a> {
    Dense(Vec<Option<bool>>),
    Sparse(&'a HashMap<u64, u32>, Vec<bool>),
}

impl ById<'_> {
    /// Returns `None` if no row has this id.
    pub(super) fn get(&self, id: u64) -> Option<bool> {
        match self {
            Self::Dense(relevant) => relevant.get(usize::try_from(id).ok()?).copied().flatten(),
            Self::Sparse(rows, relevant) => rows.get(&id).map(|&row| relevant[row as usize]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Rows;

    #[test]
    fn ids_lead_to_rows_whether_they_are_dense_or_not() {
        for ids in [&[][..], &[0, 1, 2], &[5, 0, 7], &[u64::MAX, 3, 1 << 40]] {
            let rows = Rows::new(ids).unwrap();
            let relevant: Vec<bool> = (0..ids.len()).map(|row| row % 2 == 1).collect();
            let by_id = rows.by_id(relevant.clone());
            for (&id, relevant) in ids.iter().zip(relevant) {
                assert_eq!(by_id.get(id), Some(relevant));
            }
            assert_eq!((by_id.get(6), by_id.get(1 << 50)), (None, None));
        }
        assert!(Rows::new(&[1, 0, 1]).is_none() && Rows::new(&[1 << 60, 1 << 60]).is_none());
    }
}
