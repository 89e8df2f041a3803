//! The definition of a live index: a map of items, and one index of all of them.

use std::collections::BTreeMap;
use std::path::Path;

use dpq_index::Index;
use dpq_live::{Assignment, CodeLength, Codebooks, Error, LiveIndex, Metric, SearchOptions, Snapshot};

pub(crate) const LEVELS: usize = 3;
pub(crate) const CODEWORDS: usize = 5;
const DIM: usize = 2;

/// Makes a folder that goes when it is dropped: in memory where Linux has such folders, because a
/// disk takes long to sync.
pub(crate) fn tempdir() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap()
}

/// Codebooks whose scores often tie; others for another `seed`.
pub(crate) fn codebooks(seed: u64) -> Codebooks {
    let mut random = Random(seed);
    let values = (0..LEVELS * CODEWORDS * DIM).map(|_| random.below(9) as f32 / 4.0 - 1.0).collect();
    Codebooks::new(values, LEVELS, CODEWORDS, DIM, Assignment::Euclidean).unwrap()
}

/// A splitmix generator.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let x = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (x ^ (x >> 31)) % n
    }

    pub(crate) fn code(&mut self) -> Vec<u8> {
        (0..LEVELS).map(|_| self.below(CODEWORDS as u64) as u8).collect()
    }

    /// One of few ids, so that most changes meet an item.
    pub(crate) fn change(&mut self, n_ids: u64) -> Change {
        let id = self.below(n_ids);
        match self.below(5) {
            0 => Change::Delete(id),
            1 => Change::Upsert(id, self.code(), Some(format!("é{}", self.below(n_ids)))),
            _ => Change::Upsert(id, self.code(), None),
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) enum Change {
    Upsert(u64, Vec<u8>, Option<String>),
    Delete(u64),
}

/// The items by id: code and name.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Model(pub(crate) BTreeMap<u64, (Vec<u8>, Option<String>)>);

impl Model {
    pub(crate) fn id_of(&self, wanted: &str) -> Option<u64> {
        self.0.iter().find(|(_, (_, name))| name.as_deref() == Some(wanted)).map(|(&id, _)| id)
    }

    /// Makes a change that `LiveIndex` would not refuse.
    pub(crate) fn change(&mut self, change: &Change) {
        match change {
            Change::Delete(id) => _ = self.0.remove(id),
            Change::Upsert(id, code, name) => {
                let owner = name.as_deref().and_then(|name| self.id_of(name));
                if owner.is_none_or(|owner| owner == *id) {
                    self.0.insert(*id, (code.clone(), name.clone()));
                }
            }
        }
    }

    /// Makes the change in `live` too, which must refuse it if and only if the model does.
    ///
    /// Returns errors of files.
    pub(crate) fn change_both(&mut self, live: &mut LiveIndex, change: &Change) -> Result<(), Error> {
        let mut changed = self.clone();
        changed.change(change);
        let done = match change {
            Change::Delete(id) => live.delete(*id),
            Change::Upsert(id, code, None) => live.upsert(*id, code),
            Change::Upsert(id, code, Some(name)) => live.upsert_named(*id, code, name),
        };
        match (done, change) {
            (Err(Error::UnknownId { id }), _) => assert!(!self.0.contains_key(&id)),
            (Err(Error::NameTaken { name, id }), Change::Upsert(other, ..)) => {
                assert!(self.id_of(&name) == Some(id) && id != *other);
            }
            (Err(error), _) => return Err(error),
            (Ok(()), Change::Delete(id)) => assert!(self.0.contains_key(id)),
            (Ok(()), Change::Upsert(id, code, name)) => {
                assert_eq!(changed.0[id], (code.clone(), name.clone()), "the model refuses this change");
            }
        }
        *self = changed;
        Ok(())
    }

    pub(crate) fn index(&self, codebooks: &Codebooks, metric: Metric) -> Index {
        let codes: Vec<u8> = self.0.values().flat_map(|(code, _)| code.clone()).collect();
        let ids: Vec<u64> = self.0.keys().copied().collect();
        Index::builder(codebooks, &codes).metric(metric).ids(&ids).build().unwrap()
    }

    /// Checks that a snapshot has these items, and finds them to the bit as one index of them.
    pub(crate) fn check(&self, snapshot: &Snapshot) {
        let (ids, codes) = snapshot.ids_and_codes();
        assert_eq!(ids, self.0.keys().copied().collect::<Vec<_>>());
        let mut unsorted: Vec<u64> = snapshot.ids().collect();
        unsorted.sort_unstable();
        assert_eq!(unsorted, ids);
        assert_eq!(codes, self.0.values().flat_map(|(code, _)| code.clone()).collect::<Vec<_>>());
        assert_eq!((snapshot.len(), snapshot.stats().items), (ids.len(), ids.len()));
        assert_eq!(snapshot.is_empty(), ids.is_empty());
        for (&id, (code, name)) in &self.0 {
            assert_eq!(snapshot.name_of(id), name.as_deref(), "the name of {id}");
            assert_eq!(snapshot.code_of(id).as_ref(), Some(code), "the code of {id}");
            let sharing = |n: usize| self.0.values().filter(|(other, _)| other[..n] == code[..n]).count();
            let counts: Vec<usize> = (1..=LEVELS).map(sharing).collect();
            assert_eq!(snapshot.prefix_counts(code).unwrap(), counts, "the prefixes of {id}");
            if let Some(name) = name {
                assert_eq!(snapshot.id_of(name), Some(id), "{name}");
            }
        }
        assert_eq!((snapshot.name_of(u64::MAX), snapshot.id_of("none")), (None, None));
        assert_eq!(snapshot.code_of(u64::MAX), None);

        let index = self.index(snapshot.codebooks(), snapshot.metric());
        let (allowed, denied) = (ids.iter().copied().step_by(3).collect::<Vec<_>>(), [ids.len() as u64 / 2]);
        let filter = index.allow(&allowed).and(&index.deny(&denied)).unwrap();
        let narrow = snapshot.allow(&allowed).and(&snapshot.deny(&denied)).unwrap();
        assert_eq!(narrow.len(), filter.len());
        assert_eq!(narrow.not().or(&narrow).unwrap().len(), ids.len());
        assert_eq!(narrow.not().is_empty(), ids.len() == filter.len());
        let queries = [0.3, -0.7, 1.1, 0.0, -2.0, 1.0];
        for levels in 1..=LEVELS {
            let length = CodeLength::from_levels(levels).unwrap();
            for k in [1, 3, usize::MAX] {
                let options = SearchOptions::new(k).length(length);
                for options in [options, options.min_score(0.5)] {
                    let whole = index.search_batch(&queries, &options).unwrap();
                    assert_eq!(bits(&snapshot.search_batch(&queries, &options).unwrap()), bits(&whole));
                    let filtered = index.search_batch(&queries, &options.filter(&filter)).unwrap();
                    let found = snapshot.search_filtered(&queries, &options, &narrow).unwrap();
                    assert_eq!(bits(&found), bits(&filtered));
                }
            }
        }
    }
}

pub(crate) fn bits(hits: &[Vec<dpq_live::Hit>]) -> Vec<Vec<(u64, u32)>> {
    hits.iter().map(|hits| hits.iter().map(|hit| (hit.id, hit.score.to_bits())).collect()).collect()
}

/// Returns the names of the files of a folder, sorted.
pub(crate) fn files(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}
