//! The reader: one commit, which never changes.

use std::path::Path;
use std::sync::Arc;

use dpq_codebook::{CodeLength, Codebooks, Expected};
use dpq_index::{Hit, Index, Metric, SearchOptions};

use crate::Error;
use crate::filter::{Filter, Parts};
use crate::folder::{Access, Folder};
use crate::items::Items;
use crate::manifest::Commit;
use crate::names::Names;
use crate::segment::{Part, Segment};

/// One commit of a live index, searched as one exact index.
///
/// A snapshot keeps its files open or in memory, so it stays the same while a writer goes on,
/// merges segments and removes files. It blocks no writer. Clones share everything.
#[derive(Clone)]
pub struct Snapshot {
    path: Arc<Path>,
    codebooks: Arc<Codebooks>,
    metric: Metric,
    number: u64,
    n_tail: usize,
    parts: Arc<Parts>,
}

/// The numbers of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// The number of the commit.
    pub commit: u64,
    /// Items in the segments and the tail.
    pub items: usize,
    /// The items of each segment, with those that were deleted.
    pub segments: Vec<usize>,
    /// Items of the tail.
    pub tail: usize,
    /// Items of segments that were deleted or overwritten.
    pub deleted: usize,
    /// The size of indexes and names, in bytes.
    pub bytes: usize,
}

impl Snapshot {
    /// Opens the last commit of a live index, and reads it into memory. It needs no right to write.
    ///
    /// # Errors
    /// [`Error::NotLive`] if the folder is not a live index. Errors of damaged files name them.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        Self::new(&Commit::open(&Folder::new(path.as_ref(), Access::Read))?)
    }

    /// Opens the last commit of a live index, and memory-maps its segments. It takes time for the
    /// codebooks, of which each segment has a copy, for an index of the tail, and for one bit per
    /// item.
    ///
    /// # Safety
    /// Until the snapshot and its clones are dropped, nobody may change or truncate the files of
    /// the folder, in this process or another one. Writers of this crate never do: they write a
    /// file once and remove it.
    #[expect(unsafe_code, reason = "a mapping is only as constant as its file")]
    pub unsafe fn map(path: impl AsRef<Path>) -> Result<Self, Error> {
        Self::new(&Commit::open(&Folder::new(path.as_ref(), Access::Map))?)
    }

    pub(crate) fn new(commit: &Commit) -> Result<Self, Error> {
        let mut parts = commit.parts.clone();
        let n_tail = commit.tail.ids.len();
        if n_tail > 0 || parts.is_empty() {
            parts.push(Part::new(Segment::build(&commit.tail, &commit.codebooks, commit.metric)?));
        }
        let visible = |part: Part| {
            let filter = (part.n_deleted() > 0).then(|| {
                let live: Vec<u64> = part.deleted().iter().map(|word| !word).collect();
                part.segment.index.filter_from_bitmap(&live)
            });
            Ok((part, filter.transpose()?))
        };
        let parts = parts.into_iter().map(visible).collect::<Result<_, Error>>()?;
        let (path, codebooks) = (commit.folder.path().into(), commit.codebooks.clone());
        Ok(Self { path, codebooks, metric: commit.metric, number: commit.number, n_tail, parts })
    }

    /// Returns the number of the commit: 0 for that which made the live index.
    pub fn commit(&self) -> u64 {
        self.number
    }

    /// Returns the number of items that a search may return.
    pub fn len(&self) -> usize {
        self.parts.iter().map(|(part, _)| part.n_live()).sum()
    }

    /// Returns true if there are no items.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the codebooks, which made the codes of all items.
    pub fn codebooks(&self) -> &Codebooks {
        &self.codebooks
    }

    /// Returns the metric.
    pub fn metric(&self) -> Metric {
        self.metric
    }

    /// Returns the version of the segments' file format.
    pub fn version(&self) -> u8 {
        self.any().version()
    }

    /// Returns the lengths that the segments have norms for, as [`Index::norm_lengths`].
    pub fn norm_lengths(&self) -> &[CodeLength] {
        self.any().norm_lengths()
    }

    /// Returns the numbers of the commit.
    pub fn stats(&self) -> Stats {
        let segments = self.parts.iter().map(|(part, _)| &part.segment).filter(|segment| segment.number > 0);
        let sum = |of: fn(&Part) -> usize| self.parts.iter().map(|(part, _)| of(part)).sum();
        Stats {
            commit: self.number,
            items: sum(Part::n_live),
            segments: segments.map(|segment| segment.index.len()).collect(),
            tail: self.n_tail,
            deleted: sum(Part::n_deleted),
            bytes: sum(|part| part.segment.n_bytes()),
        }
    }

    /// Returns the best `k` items for a query `[D]`, as [`Index::search`].
    pub fn search(&self, query: &[f32], k: usize) -> Result<Vec<Hit>, Error> {
        Expected::Shape(vec![self.codebooks.dim()]).check("query", query.len())?;
        Ok(self.search_batch(query, &SearchOptions::new(k))?.remove(0))
    }

    /// Returns the best items for each of many queries, f32 `[Q, D]`: the hits, their order and the
    /// bits of their scores are those of [`Index::search_batch`] of one index of all items.
    ///
    /// # Errors
    /// As [`Index::search_batch`], and [`dpq_index::Error::ForeignFilter`] for options with a
    /// filter: [`search_filtered`](Self::search_filtered) takes that of a snapshot.
    pub fn search_batch(&self, queries: &[f32], options: &SearchOptions) -> Result<Vec<Vec<Hit>>, Error> {
        let parts = self.parts.iter().map(|(part, visible)| (&part.segment.index, visible.as_ref()));
        Ok(Index::search_parts(&parts.collect::<Vec<_>>(), queries, options)?)
    }

    /// Returns the same as [`search_batch`](Self::search_batch) of the items that pass `filter`.
    ///
    /// # Errors
    /// As [`search_batch`](Self::search_batch), and [`dpq_index::Error::ForeignFilter`] for a
    /// filter of another snapshot.
    pub fn search_filtered(
        &self,
        queries: &[f32],
        options: &SearchOptions,
        filter: &Filter,
    ) -> Result<Vec<Vec<Hit>>, Error> {
        let indexes = self.parts.iter().map(|(part, _)| &part.segment.index);
        let parts = indexes.zip(filter.of(&self.parts)?.iter().map(Some));
        Ok(Index::search_parts(&parts.collect::<Vec<_>>(), queries, options)?)
    }

    /// Makes the filter of the items with these ids. Ids that the snapshot does not hold are
    /// ignored.
    pub fn allow(&self, ids: &[u64]) -> Filter {
        Filter::new(&self.parts, |index| index.allow(ids))
    }

    /// Makes the filter of all items except those with these ids.
    pub fn deny(&self, ids: &[u64]) -> Filter {
        Filter::new(&self.parts, |index| index.deny(ids))
    }

    /// Returns the name of an id, if the commit has such an item and it has a name.
    pub fn name_of(&self, id: u64) -> Option<&str> {
        self.parts.iter().find_map(|(part, _)| part.name_of(id))
    }

    /// Returns the id of the item with this name.
    pub fn id_of(&self, name: &str) -> Option<u64> {
        self.parts.iter().find_map(|(part, _)| part.named(name))
    }

    /// Returns the code of the item with this id, as [`Index::code_of`].
    pub fn code_of(&self, id: u64) -> Option<Vec<u8>> {
        self.parts.iter().find_map(|(part, _)| part.segment.index.code_at(part.place(id)?))
    }

    /// Sorts ids now, as the first [`code_of`](Self::code_of) would, so that no later one takes
    /// long. The writer of this process and its snapshots share what was sorted.
    pub fn sort_ids(&self) {
        self.parts.iter().for_each(|(part, _)| _ = part.segment.sort_ids());
    }

    /// Returns how many items have codes that begin with the first 1, 2, … bytes of `code`, as
    /// [`Index::prefix_counts`].
    ///
    /// # Errors
    /// [`Error::Index`] for another number of bytes.
    pub fn prefix_counts(&self, code: &[u8]) -> Result<Vec<usize>, Error> {
        let mut counts = vec![0; self.codebooks.n_levels()];
        for (part, visible) in &*self.parts {
            let of_part = part.segment.index.prefix_counts(code, visible.as_ref())?;
            counts.iter_mut().zip(of_part).for_each(|(count, n)| *count += n);
        }
        Ok(counts)
    }

    /// Returns the ids of all items of the commit, in no particular order.
    pub fn ids(&self) -> impl Iterator<Item = u64> {
        self.parts.iter().flat_map(|(part, _)| {
            let ids = part.segment.index.ids().enumerate();
            ids.filter(|&(place, _)| part.is_live(place)).map(|(_, id)| id)
        })
    }

    /// Returns the ids of all items of the commit, ascending, and the code of each, u8 `[N, L]`.
    pub fn ids_and_codes(&self) -> (Vec<u64>, Vec<u8>) {
        let mut items = Items::default();
        self.parts.iter().for_each(|(part, _)| part.append_to(&mut items));
        let n_levels = self.codebooks.n_levels();
        let mut rows: Vec<(u64, &[u8])> =
            items.ids.iter().copied().zip(items.codes.chunks_exact(n_levels)).collect();
        rows.sort_unstable();
        (rows.iter().map(|row| row.0).collect(), rows.iter().flat_map(|row| row.1).copied().collect())
    }

    /// Scores hits of a query `[D]` again by original vectors, as [`Index::rerank`].
    pub fn rerank<E: From<dpq_index::Error>>(
        &self,
        query: &[f32],
        hits: &[Hit],
        k: usize,
        read: impl FnMut(u64, &mut [f32]) -> Result<(), E>,
    ) -> Result<Vec<Hit>, E> {
        self.any().rerank(query, hits, k, read)
    }

    /// Returns squared Euclidean distances of hits, as [`Index::squared_distances`].
    pub fn squared_distances(&self, query: &[f32], hits: &[Hit]) -> Result<Vec<f32>, Error> {
        Ok(self.any().squared_distances(query, hits)?)
    }

    /// Returns an index with the codebooks and the metric of all.
    fn any(&self) -> &Index {
        &self.parts[0].0.segment.index
    }

    /// Reads and checks every byte of the segments, and that no two items share an id or a name.
    ///
    /// # Errors
    /// They name the damaged file.
    pub fn verify(&self) -> Result<(), Error> {
        let (mut all, mut names) = (Vec::with_capacity(self.len()), Vec::new());
        for (part, _) in &*self.parts {
            let ids = part.segment.verify()?;
            let of_segment = part.segment.names.iter().flat_map(Names::entries);
            names.extend(of_segment.filter(|&(_, place, _)| part.is_live(place)).map(|(.., name)| name));
            all.extend(
                ids.into_iter().enumerate().filter(|&(place, _)| part.is_live(place)).map(|item| item.1),
            );
        }
        all.sort_unstable();
        names.sort_unstable();
        let twice = all.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| format!("id {}", pair[0]));
        let name =
            || names.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| format!("name {:?}", pair[0]));
        match twice.or_else(name) {
            None => Ok(()),
            Some(what) => Err(Error::Format {
                path: self.path.to_path_buf(),
                reason: format!("{what} belongs to two items, restore the folder from a copy"),
            }),
        }
    }
}
