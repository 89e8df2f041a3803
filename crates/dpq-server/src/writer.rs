//! The thread that changes a live index: one commit per request, and merges beside it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use axum::http::StatusCode;
use dpq_live::{Error, LiveIndex, Merged};
use rayon::ThreadPoolBuilder;
use serde::Serialize;
use tokio::sync::oneshot;
use tracing::{info, warn};
use utoipa::ToSchema;

use crate::gallery::{Latest, Reader};
use crate::permit::Permit;
use crate::refusal::Refusal;

/// How long a merge that has ended waits for a request to be taken up with.
const TICK: Duration = Duration::from_millis(500);

/// The changes of a request, which are all made or none.
pub(crate) enum Change {
    /// Adds items. Those of the same id or name are replaced, or else the change is refused.
    Put {
        items: Vec<Item>,
        replace: bool,
    },
    Delete(u64),
}

/// An item to add.
pub(crate) struct Item {
    pub(crate) id: Option<u64>,
    pub(crate) name: Option<String>,
    pub(crate) code: Vec<u8>,
}

/// The gallery after a change.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Changed {
    /// The ids of the items that were added, replaced or deleted, in the order of the request.
    pub(crate) ids: Vec<u64>,
    /// Items of the gallery.
    pub(crate) items: usize,
    /// The commit that has the change.
    pub(crate) commit: u64,
}

/// A change that waits for the thread. The permit limits how many there are.
struct Request {
    change: Change,
    permit: Permit,
    reply: oneshot::Sender<Result<Changed, Refusal>>,
}

/// Sends changes to the thread.
pub(crate) struct Writer(Sender<Option<Request>>);

/// The thread that makes changes. It ends when it is told to, or with the last [`Writer`].
pub(crate) struct WriterThread {
    thread: JoinHandle<()>,
    messages: Sender<Option<Request>>,
    stop: Arc<AtomicBool>,
}

impl Writer {
    /// Starts the thread. It sets `latest` after each commit.
    pub(crate) fn start(live: LiveIndex, latest: Arc<Latest>) -> std::io::Result<(Self, WriterThread)> {
        let (messages, receiver) = channel();
        let stop = Arc::new(AtomicBool::new(false));
        let writing = Writing { live, latest, next_id: None, merging: None, stop: stop.clone() };
        let thread = spawn("dpq-writer", move || writing.run(&receiver))?;
        Ok((Self(messages.clone()), WriterThread { thread, messages, stop }))
    }

    /// Makes a writer without a thread.
    #[cfg(test)]
    pub(crate) fn idle() -> (Self, impl Sized) {
        let (messages, requests) = channel();
        (Self(messages), requests)
    }

    /// Hands a change over. The receiver gets the answer once the change is durable and searched.
    /// If it is dropped before the change begins, nothing is changed.
    pub(crate) fn send(
        &self,
        change: Change,
        permit: Permit,
    ) -> Result<oneshot::Receiver<Result<Changed, Refusal>>, Refusal> {
        let (reply, receiver) = oneshot::channel();
        self.0.send(Some(Request { change, permit, reply })).map_err(|_| Refusal::broken())?;
        Ok(receiver)
    }
}

impl WriterThread {
    /// Interrupts a merge, and begins no other.
    pub(crate) fn stop_merging(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Ends the thread after the change under way, and waits for it until `deadline`. A system that
    /// does not answer can hold it longer; the folder then stays locked until the process ends.
    pub(crate) fn end(self, deadline: Instant) {
        self.stop_merging();
        let _ = self.messages.send(None);
        while !self.thread.is_finished() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Starts a thread whose parallel work stays in it, so that searches keep the other cores.
fn spawn<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> std::io::Result<JoinHandle<T>> {
    thread::Builder::new().name(name.to_owned()).spawn(move || {
        match ThreadPoolBuilder::new().num_threads(1).build() {
            Ok(pool) => pool.install(work),
            // The pool of the process does the parallel work.
            Err(_) => work(),
        }
    })
}

struct Writing {
    live: LiveIndex,
    latest: Arc<Latest>,
    /// An id that exceeds those of all items, once it was needed; `None` inside if there is none.
    next_id: Option<Option<u64>>,
    merging: Option<JoinHandle<Result<Merged, dpq_live::Error>>>,
    /// Ends the merge.
    stop: Arc<AtomicBool>,
}

impl Writing {
    fn run(mut self, messages: &Receiver<Option<Request>>) {
        loop {
            let request = match messages.recv_timeout(TICK) {
                Ok(Some(request)) => Some(request),
                Err(RecvTimeoutError::Timeout) => None,
                Ok(None) | Err(RecvTimeoutError::Disconnected) => break,
            };
            if self.merging.as_ref().is_some_and(JoinHandle::is_finished) {
                self.take_up_merge();
            }
            // A client that is gone needs no change.
            let Some(Request { change, permit, reply }) =
                request.filter(|request| !request.reply.is_closed())
            else {
                continue;
            };
            let changed = self.change(change);
            drop(permit);
            let _ = reply.send(changed);
            if self.merging.is_none()
                && !self.stop.load(Ordering::Relaxed)
                && let Some(merge) = self.live.plan_merge()
            {
                info!("merge begins");
                let stop = self.stop.clone();
                let started = spawn("dpq-merge", move || merge.run_until(&stop));
                // Without a thread there is no merge, and searches take longer.
                self.merging = started.inspect_err(|error| warn!(%error, "no merge")).ok();
            }
        }
        self.take_up_merge();
    }

    /// Waits for the merge, and commits it. If that fails, the segments stay as they were, and the
    /// next change plans a merge again.
    fn take_up_merge(&mut self) {
        let merged = match self.merging.take().map(JoinHandle::join) {
            Some(Ok(Ok(merged))) => merged,
            Some(Ok(Err(Error::Index(dpq_index::Error::Interrupted)))) => {
                info!("merge interrupted");
                return;
            }
            Some(Ok(Err(error))) => {
                warn!(%error, "no merge");
                return;
            }
            Some(Err(_)) => {
                warn!(error = "its thread panicked", "no merge");
                return;
            }
            None => return,
        };
        if !self.live.finish_merge(merged) {
            warn!(error = "its segments are no longer in the index", "no merge");
            return;
        }
        match self.commit() {
            Ok(_) => info!("merge ends"),
            Err(refusal) => warn!(error = refusal.sentence(), "no merge"),
        }
    }

    fn change(&mut self, change: Change) -> Result<Changed, Refusal> {
        // A change that is refused frees no id: that of a deleted item would be given again.
        let next_id = self.next_id;
        let ids = self.apply(change).inspect_err(|_| {
            self.rollback();
            self.next_id = next_id;
        })?;
        let commit = self.commit()?;
        Ok(Changed { ids, items: self.live.len(), commit })
    }

    fn commit(&mut self) -> Result<u64, Refusal> {
        let committed = self.live.commit();
        if !matches!(committed, Ok(_) | Err(Error::Unsynced { .. })) {
            self.rollback();
            return Ok(committed?);
        }
        // Other readers of the folder see the commit now, even if it could not be synced.
        let snapshot = self.live.snapshot().map_err(|error| {
            let sentence = format!("the change is made, but cannot be searched, compact the index: {error}");
            Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, sentence)
        })?;
        // Not in a search, which has a time limit.
        snapshot.sort_ids();
        let items = snapshot.len();
        self.latest.set(Reader::Live(snapshot));
        let commit = committed?;
        info!(commit, items, "commit");
        Ok(commit)
    }

    fn rollback(&mut self) {
        self.live.rollback();
        self.next_id = None;
    }

    fn apply(&mut self, change: Change) -> Result<Vec<u64>, Refusal> {
        let (items, replace) = match change {
            Change::Put { items, replace } => (items, replace),
            Change::Delete(id) => {
                self.live.delete(id)?;
                return Ok(vec![id]);
            }
        };
        let put = |Item { id, name, code }: Item| {
            let named = name.as_deref().and_then(|name| self.live.id_of(name));
            if !replace && let Some(id) = id.filter(|&id| self.live.contains(id)).or(named) {
                let sentence =
                    format!("item {id} has this id or name, give another one, or replace it by PUT");
                return Err(Refusal::new(StatusCode::CONFLICT, sentence));
            }
            let id = id.or(named).map_or_else(|| self.new_id(), Ok)?;
            match name {
                Some(name) => self.live.upsert_named(id, &code, &name)?,
                None => self.live.upsert(id, &code)?,
            }
            if let Some(next) = &mut self.next_id {
                *next = next.and_then(|next| Some(next.max(id.checked_add(1)?)));
            }
            Ok(id)
        };
        items.into_iter().map(put).collect()
    }

    /// Returns an id that no item has.
    fn new_id(&mut self) -> Result<u64, Refusal> {
        let live = &self.live;
        let next = self.next_id.get_or_insert_with(|| match live.max_id() {
            None => Some(0),
            Some(max) => max.checked_add(1),
        });
        next.ok_or_else(|| Refusal::bad("an item has the greatest id that there is, give the new item an id"))
    }
}

#[cfg(test)]
mod tests {
    use dpq_index::{Assignment, Codebooks, Metric};
    use tokio::sync::Semaphore;

    use super::*;

    #[test]
    fn changes_of_clients_that_are_gone_are_not_made() {
        let dir = tempfile::tempdir().unwrap();
        let codebooks = Codebooks::new(vec![1.0, 0.0, 0.0, 1.0], 1, 2, 2, Assignment::Euclidean).unwrap();
        let live = LiveIndex::create(dir.path().join("live"), &codebooks, Metric::InnerProduct).unwrap();
        let latest = Arc::new(Latest::new(Reader::Live(live.snapshot().unwrap())));
        let (messages, receiver) = channel();
        let (writer, permits) = (Writer(messages), Arc::new(Semaphore::new(3)));
        let send = |id| {
            let item = Item { id: Some(id), name: None, code: vec![1] };
            let change = Change::Put { items: vec![item], replace: false };
            writer.send(change, Arc::new(permits.clone().try_acquire_owned().unwrap())).unwrap()
        };
        let (gone, mut here, also_gone) = (send(0), send(1), send(2));
        // Until then, each change counts.
        assert_eq!(permits.available_permits(), 0);
        drop((gone, also_gone));
        drop(writer);
        let stop = Arc::default();
        Writing { live, latest: latest.clone(), next_id: None, merging: None, stop }.run(&receiver);
        assert_eq!(permits.available_permits(), 3);
        assert_eq!(here.try_recv().unwrap().unwrap().commit, 1);
        let found = [0, 1, 2].map(|id| latest.get().code_of(id));
        assert_eq!(found, [None, Some(vec![1]), None]);
    }
}
