//! The way of items into a live index.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Error, Result, ensure};
use dpq_live::LiveIndex;
use indicatif::ProgressBar;

/// Takes items and commits them.
pub(super) struct Sink {
    pub(super) live: LiveIndex,
    /// Items per commit.
    pub(super) every: usize,
    /// Ends the work when it becomes true.
    pub(super) stop: Arc<AtomicBool>,
    pub(super) bar: ProgressBar,
    pub(super) n_put: usize,
    /// Items since the last commit.
    pub(super) n_open: usize,
}

impl Sink {
    pub(super) fn put(&mut self, id: u64, code: &[u8], name: Option<&str>) -> Result<()> {
        self.check()?;
        match name {
            None => self.live.upsert(id, code)?,
            Some(name) => self.live.upsert_named(id, code, name)?,
        }
        self.n_put += 1;
        self.n_open += 1;
        self.bar.inc(1);
        if self.n_open >= self.every {
            self.commit()?;
        }
        Ok(())
    }

    /// Commits, unless Ctrl-C came, then merges segments as they become many. Returns the number of
    /// the commit.
    pub(super) fn commit(&mut self) -> Result<u64> {
        self.check()?;
        self.live.commit()?;
        self.n_open = 0;
        // A merge that fails loses no items, because they are committed.
        while self.live.merge_step()? {}
        Ok(self.live.commit()?)
    }

    fn check(&self) -> Result<()> {
        ensure!(!self.stop.load(Ordering::Relaxed), "interrupted");
        Ok(())
    }

    /// Adds to an error which items it leaves.
    pub(super) fn stopped(&self, error: Error) -> Error {
        match (self.n_put, self.n_open) {
            (0, _) => error,
            (n, open) => error.context(format!("stopped after {n} items, the last {open} are not committed")),
        }
    }
}
