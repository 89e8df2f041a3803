//! The items that `/v1/items` lists and `/v1/map` draws.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use crate::catalog::{DrawMap, Drawn};
use crate::gallery::Reader;
use crate::refusal::Refusal;

/// The maximum number of items that are listed and drawn.
pub(crate) const MAX_ITEMS: usize = 2_000;

/// Items at equal distances in the gallery, and where a map has them.
#[derive(Default)]
pub(crate) struct Sample {
    listed: Mutex<Option<Listed>>,
    map: Arc<Mutex<State>>,
}

/// The items of the commit that was listed last.
struct Listed {
    commit: Option<u64>,
    ids: Arc<[u64]>,
}

#[derive(Default)]
struct State {
    is_drawing: bool,
    map: Option<Arc<Map>>,
}

/// A map, or why there is none.
pub(crate) struct Map {
    /// Items of the gallery when it was drawn.
    n_items: usize,
    pub(crate) ids: Arc<[u64]>,
    pub(crate) drawn: Result<Drawn, String>,
}

impl Sample {
    pub(crate) fn ids(&self, reader: &Reader) -> Arc<[u64]> {
        let commit = reader.commit();
        if let Some(known) = lock(&self.listed).as_ref().filter(|known| known.commit == commit) {
            return known.ids.clone();
        }
        // Reads all ids, and other requests must not wait.
        let ids = sample(reader);
        let mut listed = lock(&self.listed);
        // A slow request may have an old commit.
        if listed.as_ref().is_none_or(|known| known.commit < commit) {
            *listed = Some(Listed { commit, ids: ids.clone() });
        }
        ids
    }

    /// Returns the map once it is drawn. A thread of its own draws it at the first request, and
    /// again for at least twice or at most half as many items. Until then the map before is
    /// returned.
    pub(crate) fn map(&self, reader: &Arc<Reader>, draw: &Arc<DrawMap>) -> Result<Option<Arc<Map>>, Refusal> {
        let mut state = lock(&self.map);
        let n_items = reader.len();
        let is_old = state.map.as_ref().is_none_or(|map| {
            let is_other = n_items != map.n_items;
            is_other && (n_items >= map.n_items.saturating_mul(2) || n_items <= map.n_items / 2)
        });
        if is_old && !state.is_drawing {
            let (to, reader, draw) = (self.map.clone(), reader.clone(), draw.clone());
            let work = move || {
                let ids = sample(&reader);
                // A panic of the caller's function must not leave the map unfinished for ever.
                let drawn = catch_unwind(AssertUnwindSafe(|| drawn(&reader, &ids, &*draw)));
                let drawn =
                    drawn.unwrap_or_else(|_| Err("the map cannot be drawn, its code panicked".to_owned()));
                let map = Arc::new(Map { n_items, ids, drawn });
                *lock(&to) = State { is_drawing: false, map: Some(map) };
            };
            thread::Builder::new().name("dpq-map".to_owned()).spawn(work).map_err(|_| Refusal::broken())?;
            state.is_drawing = true;
        }
        // Nobody looks at the map of an empty gallery if another one comes.
        Ok(state.map.clone().filter(|map| !(is_old && map.ids.is_empty())))
    }
}

fn sample(reader: &Reader) -> Arc<[u64]> {
    let (n, size) = (reader.len(), reader.len().min(MAX_ITEMS));
    let mut wanted = (0..size).map(|i| i * n / size).peekable();
    let is_wanted = |&(place, _): &(usize, u64)| wanted.next_if_eq(&place).is_some();
    reader.ids().enumerate().filter(is_wanted).map(|(_, id)| id).collect()
}

fn drawn(reader: &Reader, ids: &[u64], draw: &DrawMap) -> Result<Drawn, String> {
    if ids.is_empty() {
        return Ok(Drawn { method: "nothing", points: Vec::new() });
    }
    let codebooks = reader.codebooks();
    let codes: Vec<u8> = ids.iter().filter_map(|&id| reader.code_of(id)).flatten().collect();
    let vectors = codebooks.decode(&codes, codebooks.max_length()).map_err(|error| error.to_string())?;
    draw(&vectors, codebooks.dim())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
