//! The tail: the newest items, in memory and in the manifest.

use std::collections::HashMap;
use std::sync::Arc;

use crate::items::Items;

/// The newest items, found by id and by name.
#[derive(Default)]
pub(crate) struct Tail {
    /// Shared with the last commit until the next change.
    items: Arc<Items>,
    rows: HashMap<u64, usize>,
    by_name: HashMap<String, u64>,
}

impl Tail {
    pub(crate) fn new(items: Arc<Items>) -> Self {
        let rows = items.ids.iter().enumerate().map(|(row, &id)| (id, row)).collect();
        let by_name = items.names.iter().map(|(&id, name)| (name.clone(), id)).collect();
        Self { items, rows, by_name }
    }

    pub(crate) fn items(&self) -> &Arc<Items> {
        &self.items
    }

    pub(crate) fn len(&self) -> usize {
        self.items.ids.len()
    }

    pub(crate) fn has(&self, id: u64) -> bool {
        self.rows.contains_key(&id)
    }

    /// Returns the id that has this name.
    pub(crate) fn named(&self, name: &str) -> Option<u64> {
        self.by_name.get(name).copied()
    }

    /// Adds an item, or replaces the one with this id.
    pub(crate) fn upsert(&mut self, id: u64, code: &[u8], name: Option<&str>) {
        let items = Arc::make_mut(&mut self.items);
        match self.rows.get(&id) {
            Some(row) => {
                items.codes[row * code.len()..][..code.len()].copy_from_slice(code);
                if let Some(old) = items.names.remove(&id) {
                    self.by_name.remove(&old);
                }
            }
            None => {
                self.rows.insert(id, items.ids.len());
                items.ids.push(id);
                items.codes.extend_from_slice(code);
            }
        }
        if let Some(name) = name {
            items.names.insert(id, name.to_owned());
            self.by_name.insert(name.to_owned(), id);
        }
    }

    /// Removes an item. Returns false if there is none with this id.
    pub(crate) fn delete(&mut self, id: u64) -> bool {
        let Some(row) = self.rows.remove(&id) else { return false };
        let items = Arc::make_mut(&mut self.items);
        let n_levels = items.codes.len() / items.ids.len();
        let last = items.ids.len() - 1;
        items.codes.copy_within(last * n_levels.., row * n_levels);
        items.codes.truncate(last * n_levels);
        items.ids.swap_remove(row);
        if let Some(&moved) = items.ids.get(row) {
            self.rows.insert(moved, row);
        }
        if let Some(name) = items.names.remove(&id) {
            self.by_name.remove(&name);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_item_takes_the_row_of_a_deleted_one() {
        let mut tail = Tail::default();
        for id in [5, 9, 7] {
            tail.upsert(id, &[id as u8, 1], Some(&format!("name {id}")));
        }
        assert!(tail.delete(5) && !tail.delete(5));
        tail.upsert(7, &[0, 2], None);
        let items = tail.items();
        assert_eq!((&items.ids[..], &items.codes[..]), (&[7, 9][..], &[0, 2, 9, 1][..]));
        assert_eq!((tail.named("name 9"), tail.named("name 7"), tail.named("name 5")), (Some(9), None, None));
        assert!(tail.delete(9) && tail.delete(7) && tail.len() == 0);
    }
}
