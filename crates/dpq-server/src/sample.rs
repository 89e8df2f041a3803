//! The items that `/v1/items` lists and `/v1/map` draws.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;

use crate::catalog::{DrawMap, Drawn};
use crate::gallery::Reader;
use crate::refusal::Refusal;

/// The maximum number of items that are listed and drawn.
pub(crate) const MAX_ITEMS: usize = 2_000;

/// Items at equal distances in the gallery, found at the first request, and where a map has them.
#[derive(Default)]
pub(crate) struct Sample {
    ids: OnceLock<Vec<u64>>,
    is_drawing: AtomicBool,
    drawn: Arc<OnceLock<Result<Drawn, String>>>,
}

impl Sample {
    pub(crate) fn ids(&self, reader: &Reader) -> &[u64] {
        self.ids.get_or_init(|| {
            let (n, size) = (reader.len(), reader.len().min(MAX_ITEMS));
            let mut wanted = (0..size).map(|i| i * n / size).peekable();
            let is_wanted = |&(place, _): &(usize, u64)| wanted.next_if_eq(&place).is_some();
            reader.ids().enumerate().filter(is_wanted).map(|(_, id)| id).collect()
        })
    }

    /// Returns where the map has the items, once it is drawn.
    pub(crate) fn drawn(&self) -> Option<&Result<Drawn, String>> {
        self.drawn.get()
    }

    /// Starts to draw the map in a thread of its own, if no request did before.
    pub(crate) fn draw(&self, reader: Arc<Reader>, draw: Arc<DrawMap>) -> Result<(), Refusal> {
        if self.is_drawing.swap(true, Ordering::Relaxed) {
            return Ok(());
        }
        let (drawn, ids) = (self.drawn.clone(), self.ids(&reader).to_vec());
        let work = move || {
            let codebooks = reader.codebooks();
            // An item that was deleted since has no place of its own.
            let code = |&id: &u64| reader.code_of(id).unwrap_or_else(|| vec![0; codebooks.n_levels()]);
            let codes: Vec<u8> = ids.iter().flat_map(code).collect();
            let vectors = codebooks.decode(&codes, codebooks.max_length()).map_err(|error| error.to_string());
            let _ = drawn.set(vectors.and_then(|vectors| draw(&vectors, codebooks.dim())));
        };
        let started = thread::Builder::new().name("dpq-map".to_owned()).spawn(work);
        started.map(drop).map_err(|_| Refusal::broken())
    }
}
