//! The row of the gallery that has an id.

use std::collections::HashMap;

/// A map from ids to rows.
pub(super) enum Rows {
    /// The row by id, `u32::MAX` for no row. Ids are usually row numbers, or nearly so.
    Dense(Vec<u32>),
    Sparse(HashMap<u64, u32>),
}

impl Rows {
    /// Returns `None` if an id occurs twice.
    pub(super) fn new(ids: &[u64]) -> Option<Self> {
        let n_ids = ids.iter().max().map_or(0, |&max| max.saturating_add(1));
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

    /// Returns `None` if no row has this id.
    pub(super) fn get(&self, id: u64) -> Option<u32> {
        match self {
            Self::Dense(rows) => rows.get(usize::try_from(id).ok()?).copied().filter(|&row| row != u32::MAX),
            Self::Sparse(rows) => rows.get(&id).copied(),
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
            for (&id, row) in ids.iter().zip(0..) {
                assert_eq!(rows.get(id), Some(row));
            }
            assert_eq!((rows.get(6), rows.get(1 << 50)), (None, None));
        }
        assert!(Rows::new(&[1, 0, 1]).is_none() && Rows::new(&[1 << 60, 1 << 60]).is_none());
    }
}
