//! A segment: an immutable index and the names of its items.

use std::collections::HashMap;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};

use dpq_codebook::Codebooks;
use dpq_file::Container;
use dpq_index::{Index, Metric};
use rayon::prelude::*;

use crate::Error;
use crate::folder::{Folder, Kind};
use crate::items::Items;
use crate::names::Names;

pub(crate) struct Segment {
    /// The number in the names of its files; 0 if it has none.
    pub(crate) number: u64,
    pub(crate) index: Index,
    pub(crate) names: Option<Names>,
    /// Ids, ascending, and the place of each in the index.
    by_id: OnceLock<(Vec<u64>, Vec<u32>)>,
}

/// The maximum number of items of a segment.
pub(crate) const MAX_ITEMS: usize = u32::MAX as usize;

impl Segment {
    /// Builds a segment of the tail in memory.
    pub(crate) fn build(items: &Items, codebooks: &Codebooks, metric: Metric) -> Result<Self, Error> {
        let index = Index::builder(codebooks, &items.codes).metric(metric).ids(&items.ids).build()?;
        let mut segment = Self { number: 0, index, names: None, by_id: OnceLock::new() };
        if !items.names.is_empty() {
            let bytes = Names::to_bytes(&items.names, |id| segment.place(id))?;
            segment.names = Some(Names::new(Container::from_bytes(bytes)?)?);
        }
        Ok(segment)
    }

    /// Writes a segment with a number that no other has. An error leaves no file of it.
    pub(crate) fn write(
        folder: &Folder,
        number: u64,
        items: &Items,
        codebooks: &Codebooks,
        metric: Metric,
        interrupt: &AtomicBool,
    ) -> Result<Self, Error> {
        let write = || -> Result<Self, Error> {
            let path = folder.file(Kind::Segment, number);
            let builder = Index::builder(codebooks, &items.codes).metric(metric).ids(&items.ids);
            builder.interrupt(interrupt).write(&path)?;
            let mut segment = Self::without_names(folder, number)?;
            if !items.names.is_empty() {
                let bytes = Names::to_bytes(&items.names, |id| segment.place(id))?;
                let path = folder.file(Kind::Names, number);
                dpq_file::write_atomic(&path, |out| out.write_all(&bytes))?;
                segment.names = Some(Names::new(folder.container(&path)?)?);
            }
            Ok(segment)
        };
        write().inspect_err(|_| folder.remove_segment(number))
    }

    pub(crate) fn open(folder: &Folder, number: u64, has_names: bool) -> Result<Self, Error> {
        let mut segment = Self::without_names(folder, number)?;
        if has_names {
            segment.names = Some(Names::new(folder.container(&folder.file(Kind::Names, number))?)?);
        }
        Ok(segment)
    }

    fn without_names(folder: &Folder, number: u64) -> Result<Self, Error> {
        let index = folder.index(&folder.file(Kind::Segment, number))?;
        Ok(Self { number, index, names: None, by_id: OnceLock::new() })
    }

    /// Returns the ids, ascending, and the place of each in the index. The first call sorts them.
    pub(crate) fn sort_ids(&self) -> &(Vec<u64>, Vec<u32>) {
        // Two threads may both sort: one that waited inside a rayon pool could wait for itself.
        self.by_id.get().unwrap_or_else(|| {
            let mut by_id: Vec<(u64, u32)> = self.index.ids().zip(0..).collect();
            by_id.par_sort_unstable();
            self.by_id.get_or_init(|| by_id.into_iter().unzip())
        })
    }

    /// Returns the place of an id in the index. The first call sorts all ids.
    pub(crate) fn place(&self, id: u64) -> Option<usize> {
        let (ids, places) = self.sort_ids();
        // Mostly, ids ascend over time.
        let (first, last) = (ids.first()?, ids.last()?);
        if !(first..=last).contains(&&id) {
            return None;
        }
        Some(places[ids.binary_search(&id).ok()?] as usize)
    }

    /// Reads and checks every byte. Returns the ids of the items.
    pub(crate) fn verify(&self) -> Result<Vec<u64>, Error> {
        self.index.verify()?;
        let ids: Vec<u64> = self.index.ids().collect();
        self.names.iter().try_for_each(|names| names.verify(&ids))?;
        Ok(ids)
    }

    pub(crate) fn max_id(&self) -> Option<u64> {
        self.index.ids().max()
    }

    pub(crate) fn n_bytes(&self) -> usize {
        self.index.n_bytes() + self.names.as_ref().map_or(0, Names::n_bytes)
    }
}

/// A segment, and its items that were deleted or overwritten since it was made.
#[derive(Clone)]
pub(crate) struct Part {
    pub(crate) segment: Arc<Segment>,
    /// One bit per place in the index; empty if nothing was deleted.
    deleted: Arc<Vec<u64>>,
    n_deleted: usize,
    /// The number of the file that holds `deleted`; 0 if there is none.
    pub(crate) deleted_file: u64,
}

impl Part {
    pub(crate) fn new(segment: Segment) -> Self {
        Self { segment: Arc::new(segment), deleted: Arc::default(), n_deleted: 0, deleted_file: 0 }
    }

    /// Adds what was deleted. Returns `None` if `deleted` is not of this segment.
    pub(crate) fn with_deleted(self, deleted: Vec<u64>, deleted_file: u64) -> Option<Self> {
        let n_items = self.segment.index.len();
        let fits = deleted.len() == n_items.div_ceil(64)
            && deleted.last().is_none_or(|last| n_items.is_multiple_of(64) || last >> (n_items % 64) == 0);
        let n_deleted = deleted.iter().map(|word| word.count_ones() as usize).sum();
        fits.then_some(Self { deleted: Arc::new(deleted), n_deleted, deleted_file, ..self })
    }

    pub(crate) fn deleted(&self) -> &[u64] {
        &self.deleted
    }

    pub(crate) fn n_deleted(&self) -> usize {
        self.n_deleted
    }

    /// Returns the number of items that were not deleted.
    pub(crate) fn n_live(&self) -> usize {
        self.segment.index.len() - self.n_deleted
    }

    pub(crate) fn is_live(&self, place: usize) -> bool {
        let word = self.deleted.get(place / 64).copied().unwrap_or(0);
        place < self.segment.index.len() && word >> (place % 64) & 1 == 0
    }

    /// Returns the place of an item that was not deleted.
    pub(crate) fn place(&self, id: u64) -> Option<usize> {
        self.segment.place(id).filter(|&place| self.is_live(place))
    }

    /// Deletes the item at a place where one is.
    pub(crate) fn delete(&mut self, place: usize) {
        let deleted = Arc::make_mut(&mut self.deleted);
        deleted.resize(self.segment.index.len().div_ceil(64), 0);
        deleted[place / 64] |= 1 << (place % 64);
        self.n_deleted += 1;
        self.deleted_file = 0;
    }

    /// Returns the id of a name, unless that item was deleted.
    pub(crate) fn named(&self, name: &str) -> Option<u64> {
        let (id, place) = self.segment.names.as_ref()?.find(name)?;
        self.is_live(place).then_some(id)
    }

    /// Returns the name of an id, unless that item was deleted.
    pub(crate) fn name_of(&self, id: u64) -> Option<&str> {
        let (name, place) = self.segment.names.as_ref()?.of(id)?;
        self.is_live(place).then_some(name)
    }

    /// Appends the items that were not deleted.
    pub(crate) fn append_to(&self, items: &mut Items) {
        let Segment { index, names, .. } = &*self.segment;
        let names = names.iter().flat_map(Names::entries).map(|(_, place, name)| (place, name));
        let names: HashMap<usize, &str> = names.collect();
        let codes = index.codes();
        let rows = codes.chunks_exact(index.codebooks().n_levels());
        for (place, (id, code)) in index.ids().zip(rows).enumerate() {
            if self.is_live(place) {
                items.ids.push(id);
                items.codes.extend_from_slice(code);
                items.names.extend(names.get(&place).map(|&name| (id, name.to_owned())));
            }
        }
    }
}
