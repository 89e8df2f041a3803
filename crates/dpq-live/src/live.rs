//! The writer.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use dpq_codebook::{Codebooks, Expected};
use dpq_index::Metric;

use crate::folder::{Access, Folder, Kind};
use crate::manifest::{Commit, write_deleted};
use crate::merge::{self, Merge, Merged};
use crate::segment::{Part, Segment};
use crate::tail::Tail;
use crate::{Error, Snapshot};

/// The maximum number of items of the tail.
const MAX_TAIL: usize = 65_536;

/// The writer of a live index: a folder of segments, and a manifest that names those of the last
/// commit.
///
/// A folder has one writer at a time and any number of [`Snapshot`]s, in this process and others.
/// Changes since the last [`commit`](Self::commit) are in memory only, and seen by no snapshot.
pub struct LiveIndex {
    lock: Arc<File>,
    /// The last commit.
    committed: Commit,
    parts: Vec<Part>,
    tail: Tail,
    max_tail: usize,
    /// The numbers of the last commit that was tried, and of the next file.
    number: u64,
    next: u64,
    /// The files written since the last commit that was synced, and those of that commit.
    written: Vec<PathBuf>,
    is_changed: bool,
    /// False if the folder could not be synced after the last commit.
    is_synced: bool,
}

impl LiveIndex {
    /// Makes a live index without items. The folder is made too, unless it exists.
    ///
    /// # Errors
    /// [`Error::Exists`] if the folder is a live index, [`Error::Foreign`] if it has another
    /// `codebook.safetensors`, or files of a live index whose manifest was lost,
    /// [`Error::Locked`], and [`Error::Io`], [`Error::File`] or [`Error::Codebook`] if it cannot
    /// be written. [`Error::Codebook`] too for the Euclidean metric if the norms of codes may
    /// overflow, so that no index could hold them.
    pub fn create(path: impl AsRef<Path>, codebooks: &Codebooks, metric: Metric) -> Result<Self, Error> {
        // Norms of codes are at most 2³⁰ units.
        if metric == Metric::Euclidean && codebooks.norm_unit() * 2f64.powi(30) > f32::MAX.into() {
            return Err(dpq_codebook::Error::Overflow.into());
        }
        let folder = Folder::new(path.as_ref(), Access::Read);
        folder.create()?;
        let lock = folder.lock()?;
        if folder.is_live()? {
            return Err(Error::Exists { path: folder.path().to_owned() });
        }
        let path = folder.codebook();
        if folder.has(&path)? && Codebooks::open(&path).ok().as_ref() != Some(codebooks) {
            return Err(Error::Foreign { path });
        }
        // The sweep would remove them.
        if let Some(path) = folder.numbered()? {
            return Err(Error::Foreign { path });
        }
        codebooks.save(folder.codebook())?;
        let (codebooks, parts, tail) = (Arc::new(codebooks.clone()), Vec::new(), Arc::default());
        Commit { folder: folder.clone(), codebooks, metric, number: 0, next: 1, parts, tail }.write()?;
        Self::locked(&folder, lock)
    }

    /// Opens a live index for changes, and reads its segments into memory.
    ///
    /// # Errors
    /// [`Error::NotLive`], [`Error::Locked`] if another writer has it open, and [`Error::Io`] if
    /// the folder cannot be written. Errors of damaged files name them.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        Self::open_as(Folder::new(path.as_ref(), Access::Read))
    }

    /// Opens a live index for changes, and memory-maps its segments.
    ///
    /// # Safety
    /// Until the index and its snapshots and merges are dropped, nobody may change or truncate the
    /// files of the folder, in this process or another one. Writers of this crate never do: they
    /// write a file once and remove it.
    #[expect(unsafe_code, reason = "a mapping is only as constant as its file")]
    pub unsafe fn map(path: impl AsRef<Path>) -> Result<Self, Error> {
        Self::open_as(Folder::new(path.as_ref(), Access::Map))
    }

    fn open_as(folder: Folder) -> Result<Self, Error> {
        if !folder.is_live()? {
            return Err(Error::NotLive { path: folder.path().to_owned() });
        }
        let lock = folder.lock()?;
        Self::locked(&folder, lock)
    }

    fn locked(folder: &Folder, lock: File) -> Result<Self, Error> {
        let committed = Commit::open(folder)?;
        // The writer before may have ended between renaming its manifest and syncing the folder.
        // Files of the commit before may go only once that name is durable.
        dpq_file::sync_folder(folder.path())?;
        folder.sweep(&committed.files())?;
        Ok(Self {
            lock: Arc::new(lock),
            parts: committed.parts.clone(),
            tail: Tail::new(committed.tail.clone()),
            max_tail: MAX_TAIL,
            number: committed.number,
            next: committed.next,
            committed,
            written: Vec::new(),
            is_changed: false,
            is_synced: true,
        })
    }

    /// Seals the tail into a segment when it has `n` items, 1 to 65,536. The default is the
    /// maximum.
    ///
    /// # Errors
    /// [`Error::Codebook`] for another number.
    pub fn set_max_tail(&mut self, n: usize) -> Result<(), Error> {
        Expected::Range(1..=MAX_TAIL).check("maximum of the tail", n)?;
        self.max_tail = n;
        Ok(())
    }

    /// Returns the codebooks, which make the codes of all items.
    pub fn codebooks(&self) -> &Codebooks {
        &self.committed.codebooks
    }

    /// Returns the metric.
    pub fn metric(&self) -> Metric {
        self.committed.metric
    }

    /// Returns the number of items, with all changes.
    pub fn len(&self) -> usize {
        self.parts.iter().map(Part::n_live).sum::<usize>() + self.tail.len()
    }

    /// Returns true if there are no items.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns true if there is an item with this id.
    pub fn contains(&self, id: u64) -> bool {
        self.tail.has(id) || self.find(id).is_some()
    }

    /// Returns an id that no item exceeds: the maximum of the items there are, and perhaps of some
    /// that were deleted. None if there never were items.
    pub fn max_id(&self) -> Option<u64> {
        let segments = self.parts.iter().filter_map(|part| part.segment.max_id());
        segments.chain(self.tail.items().ids.iter().copied()).max()
    }

    /// Returns the id of the item with this name.
    pub fn id_of(&self, name: &str) -> Option<u64> {
        self.tail.named(name).or_else(|| self.parts.iter().find_map(|part| part.named(name)))
    }

    /// Adds an item without a name, or replaces the item with this id, and its name. `code` has one
    /// byte per level.
    ///
    /// # Errors
    /// [`Error::CodeLength`] or [`Error::Code`] for a code that these codebooks do not make.
    /// [`Error::Index`] or [`Error::File`] if the tail is full and a segment cannot be written.
    /// The item is then not added, and everything else stays.
    pub fn upsert(&mut self, id: u64, code: &[u8]) -> Result<(), Error> {
        self.put(id, code, None)
    }

    /// Adds an item with a name, or replaces the item with this id.
    ///
    /// # Errors
    /// As [`upsert`](Self::upsert), and [`Error::NameTaken`] if another item has this name.
    pub fn upsert_named(&mut self, id: u64, code: &[u8], name: &str) -> Result<(), Error> {
        self.put(id, code, Some(name))
    }

    /// Encodes features, f32 `[N, D]`, and adds or replaces the items with these ids, `[N]`. The
    /// last of equal ids counts.
    ///
    /// # Errors
    /// [`Error::Codebook`] if the features are not whole rows, as many as ids, of finite values;
    /// nothing is changed then. Otherwise as [`upsert`](Self::upsert).
    pub fn upsert_features(&mut self, ids: &[u64], features: &[f32]) -> Result<(), Error> {
        let codebooks = self.committed.codebooks.clone();
        let codes = codebooks.encode(features)?;
        let rows = codes.chunks_exact(codebooks.n_levels());
        Expected::Shape(vec![rows.len()]).check("ids", ids.len())?;
        ids.iter().zip(rows).try_for_each(|(&id, code)| self.upsert(id, code))
    }

    /// Deletes an item.
    ///
    /// # Errors
    /// [`Error::UnknownId`] if there is none with this id.
    pub fn delete(&mut self, id: u64) -> Result<(), Error> {
        if !self.tail.delete(id) {
            let (part, place) = self.find(id).ok_or(Error::UnknownId { id })?;
            self.parts[part].delete(place);
        }
        self.is_changed = true;
        Ok(())
    }

    fn put(&mut self, id: u64, code: &[u8], name: Option<&str>) -> Result<(), Error> {
        let (expected, n_codewords) = (self.codebooks().n_levels(), self.codebooks().n_codewords());
        if code.len() != expected {
            return Err(Error::CodeLength { id, found: code.len(), expected });
        }
        if let Some(level) = code.iter().position(|&byte| usize::from(byte) >= n_codewords) {
            return Err(Error::Code { id, level, found: code[level], n_codewords });
        }
        if let Some(name) = name
            && let Some(other) = self.id_of(name).filter(|&other| other != id)
        {
            return Err(Error::NameTaken { name: name.to_owned(), id: other });
        }
        if !self.tail.has(id) {
            if self.tail.len() >= self.max_tail {
                self.seal()?;
            }
            if let Some((part, place)) = self.find(id) {
                self.parts[part].delete(place);
            }
        }
        self.tail.upsert(id, code, name);
        self.is_changed = true;
        Ok(())
    }

    /// Returns the segment and the place of an id outside the tail.
    fn find(&self, id: u64) -> Option<(usize, usize)> {
        self.parts.iter().enumerate().find_map(|(i, part)| Some((i, part.place(id)?)))
    }

    /// Makes a segment of the tail.
    fn seal(&mut self) -> Result<(), Error> {
        let number = self.take_number();
        self.add_written(number);
        let Commit { folder, codebooks, metric, .. } = &self.committed;
        let never = AtomicBool::new(false);
        let segment = Segment::write(folder, number, self.tail.items(), codebooks, *metric, &never)?;
        self.parts.push(Part::new(segment));
        self.tail = Tail::default();
        self.is_changed = true;
        Ok(())
    }

    fn take_number(&mut self) -> u64 {
        self.next += 1;
        self.next - 1
    }

    /// Remembers the files of a segment, to remove them once no commit needs them.
    fn add_written(&mut self, number: u64) {
        let file = |kind| self.committed.folder.file(kind, number);
        self.written.extend([Kind::Segment, Kind::Names].map(file));
    }

    /// Makes all changes durable at once: a snapshot opened from now on has them, and so has the
    /// folder after a crash. Returns the number of the commit. Without changes, there is nothing to
    /// do.
    ///
    /// It writes the tail, and one bit per item of each segment in which something was deleted.
    ///
    /// # Errors
    /// [`Error::File`] if a file cannot be written. The last commit stands, the changes stay in
    /// memory, and another commit may succeed. [`Error::Unsynced`] if only the last step failed,
    /// which syncs the folder: the new commit stands, and the next one, which needs no changes,
    /// tries to make it durable. Until then a crash may bring back the commit before.
    pub fn commit(&mut self) -> Result<u64, Error> {
        if !self.is_changed && self.is_synced {
            return Ok(self.committed.number);
        }
        self.parts.retain(|part| part.n_live() > 0);
        for i in 0..self.parts.len() {
            if self.parts[i].n_deleted() > 0 && self.parts[i].deleted_file == 0 {
                let number = self.take_number();
                self.written.push(self.committed.folder.file(Kind::Deleted, number));
                write_deleted(&self.committed.folder, number, self.parts[i].deleted())?;
                self.parts[i].deleted_file = number;
            }
        }
        self.number += 1;
        let (number, next, tail) = (self.number, self.next, self.tail.items().clone());
        let commit = Commit { number, next, parts: self.parts.clone(), tail, ..self.committed.clone() };
        let unsynced = match commit.write() {
            Err(Error::File(dpq_file::Error::Unsynced { source, .. })) => Some(source),
            written => written.map(|()| None)?,
        };
        self.written.extend(self.committed.files());
        self.committed = commit;
        self.is_changed = false;
        self.is_synced = unsynced.is_none();
        if let Some(source) = unsynced {
            // The commit before may come back, so its files stay.
            return Err(Error::Unsynced { commit: number, source });
        }
        let needed = self.committed.files();
        // A file that cannot be removed now is removed by the next writer.
        for file in self.written.drain(..).filter(|file| !needed.contains(file)) {
            let _ = fs::remove_file(file);
        }
        Ok(number)
    }

    /// Drops all changes since the last commit.
    pub fn rollback(&mut self) {
        self.parts = self.committed.parts.clone();
        self.tail = Tail::new(self.committed.tail.clone());
        self.is_changed = false;
    }

    /// Returns the last commit.
    ///
    /// # Errors
    /// [`Error::Index`] if the norms of its codes overflow.
    pub fn snapshot(&self) -> Result<Snapshot, Error> {
        Snapshot::new(&self.committed)
    }

    /// Returns a merge that makes searches faster, if there is one: of segments of about equal
    /// size, or of one of which more than half was deleted.
    ///
    /// [`Merge::run`] does the work, in any thread, while this index is changed and committed.
    pub fn plan_merge(&mut self) -> Option<Merge> {
        let parts = merge::plan(&self.parts, self.max_tail)?;
        Some(self.merge_of(parts))
    }

    fn merge_of(&mut self, parts: Vec<Part>) -> Merge {
        let (lock, number) = (self.lock.clone(), self.take_number());
        let Commit { folder, codebooks, metric, .. } = self.committed.clone();
        Merge { folder, codebooks, metric, number, parts, lock }
    }

    /// Puts a merged segment in the place of those that it was made from; the next commit makes
    /// that durable. Items deleted meanwhile are deleted. Returns false, and drops the segment,
    /// if another merge replaced them first, or it is of another index.
    pub fn finish_merge(&mut self, mut merged: Merged) -> bool {
        let position =
            |old: &Part| self.parts.iter().position(|part| Arc::ptr_eq(&part.segment, &old.segment));
        let positions: Option<Vec<usize>> = merged.from.iter().map(position).collect();
        let Some((positions, segment)) = positions.and_then(|positions| Some((positions, merged.take()?)))
        else {
            return false;
        };
        let from = &merged.from;
        self.add_written(segment.number);
        let mut part = Part::new(segment);
        for (old, &position) in from.iter().zip(&positions) {
            let new = &self.parts[position];
            for (place, id) in new.segment.index.ids().enumerate() {
                if old.is_live(place)
                    && !new.is_live(place)
                    && let Some(place) = part.segment.place(id)
                {
                    part.delete(place);
                }
            }
        }
        let is_merged = |part: &Part| from.iter().any(|old| Arc::ptr_eq(&old.segment, &part.segment));
        self.parts.retain(|part| !is_merged(part));
        self.parts.push(part);
        self.is_changed = true;
        true
    }

    /// Runs one merge, if there is one to make. Returns false if there was none.
    ///
    /// # Errors
    /// As [`Merge::run`].
    pub fn merge_step(&mut self) -> Result<bool, Error> {
        let Some(merge) = self.plan_merge() else { return Ok(false) };
        Ok(self.finish_merge(merge.run()?))
    }

    /// Merges everything into one segment without deleted items, and commits. Its file is the one
    /// that [`dpq_index::IndexBuilder::write`] writes of the same items. More than 2³² − 1 items
    /// become several segments, of at most as many each.
    ///
    /// # Errors
    /// As [`Merge::run`] and [`commit`](Self::commit).
    pub fn compact(&mut self) -> Result<u64, Error> {
        if self.tail.len() > 0 {
            self.seal()?;
        }
        self.parts.retain(|part| part.n_live() > 0);
        for parts in merge::plan_all(&self.parts) {
            let merge = self.merge_of(parts);
            self.finish_merge(merge.run()?);
        }
        self.commit()
    }
}
