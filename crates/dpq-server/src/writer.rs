//! The thread that changes a live index: one commit per request, and merges beside it.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use dpq_live::{LiveIndex, Merged};
use rayon::ThreadPoolBuilder;
use serde::Serialize;
use tokio::sync::oneshot;
use utoipa::ToSchema;

use crate::gallery::{Latest, Reader};
use crate::refusal::Refusal;

/// How long a merge that has ended waits for a request to be taken up with.
const TICK: Duration = Duration::from_millis(500);

/// The changes of a request, which are all made or none.
pub(crate) enum Change {
    Put(Vec<Item>),
    Delete(u64),
}

/// An item to add, or to replace the one with its id or name.
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

type Message = (Change, oneshot::Sender<Result<Changed, Refusal>>);

/// Sends changes to the thread, which ends with the last sender.
pub(crate) struct Writer(SyncSender<Message>);

impl Writer {
    /// Starts the thread. It sets `latest` after each commit.
    pub(crate) fn start(
        live: LiveIndex,
        latest: Arc<Latest>,
        n_waiting: usize,
    ) -> std::io::Result<(Self, JoinHandle<()>)> {
        let (sender, receiver) = sync_channel(n_waiting);
        let writing = Writing { live, latest, next_id: None, merging: None };
        let thread = spawn("dpq-writer", move || writing.run(&receiver))?;
        Ok((Self(sender), thread))
    }

    /// Hands a change over. The receiver gets the answer once the change is durable and searched.
    pub(crate) fn send(
        &self,
        change: Change,
    ) -> Result<oneshot::Receiver<Result<Changed, Refusal>>, Refusal> {
        let (sender, receiver) = oneshot::channel();
        self.0.try_send((change, sender)).map_err(|error| match error {
            TrySendError::Full(_) => Refusal::busy(),
            TrySendError::Disconnected(_) => Refusal::broken(),
        })?;
        Ok(receiver)
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
}

impl Writing {
    fn run(mut self, messages: &Receiver<Message>) {
        loop {
            let message = match messages.recv_timeout(TICK) {
                Ok(message) => Some(message),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => break,
            };
            if self.merging.as_ref().is_some_and(JoinHandle::is_finished) {
                self.take_up_merge();
            }
            let Some((change, reply)) = message else { continue };
            // A client that is gone needs no answer.
            let _ = reply.send(self.change(change));
            if self.merging.is_none()
                && let Some(merge) = self.live.plan_merge()
            {
                // Without a thread there is no merge, and searches take longer.
                self.merging = spawn("dpq-merge", move || merge.run()).ok();
            }
        }
        self.take_up_merge();
    }

    /// Waits for the merge, and commits it. If that fails, the segments stay as they were, and the
    /// next change plans a merge again.
    fn take_up_merge(&mut self) {
        let Some(Ok(Ok(merged))) = self.merging.take().map(JoinHandle::join) else { return };
        if self.live.finish_merge(merged) {
            let _ = self.commit();
        }
    }

    fn change(&mut self, change: Change) -> Result<Changed, Refusal> {
        let ids = self.apply(change).inspect_err(|_| self.rollback())?;
        let commit = self.commit()?;
        Ok(Changed { ids, items: self.live.len(), commit })
    }

    fn commit(&mut self) -> Result<u64, Refusal> {
        let commit = self.live.commit().inspect_err(|_| self.rollback())?;
        self.latest.set(Reader::Live(self.live.snapshot()?));
        Ok(commit)
    }

    fn rollback(&mut self) {
        self.live.rollback();
        self.next_id = None;
    }

    fn apply(&mut self, change: Change) -> Result<Vec<u64>, Refusal> {
        let items = match change {
            Change::Put(items) => items,
            Change::Delete(id) => {
                self.live.delete(id)?;
                return Ok(vec![id]);
            }
        };
        let put = |Item { id, name, code }: Item| {
            let named = name.as_deref().and_then(|name| self.live.id_of(name));
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
