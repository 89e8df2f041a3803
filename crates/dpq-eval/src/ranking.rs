//! One query's ranking, checked for order and reduced to what metrics need.
//!
//! No metric looks at irrelevant items one by one. A ranking keeps the ranks of the relevant items
//! and the tie groups that contain any of them, so its size is proportional to the relevant items.

use std::borrow::Cow;

use crate::Error;

/// The ranking of a gallery (or the first part of it) for one query, with the relevance of its
/// items.
#[derive(Debug, Clone)]
pub struct Ranking {
    pub(crate) n_items: u32,
    pub(crate) n_relevant: usize,
    /// Ranks, from 0, of the relevant items in the total order.
    pub(crate) relevant_ranks: Vec<u32>,
    /// Ascending and disjoint.
    pub(crate) groups: Vec<Group>,
    pub(crate) query: Option<QueryRank>,
}

/// Items of one score, at least one of them relevant.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Group {
    pub(crate) n_before: u32,
    pub(crate) size: u32,
    pub(crate) relevant_before: u32,
    pub(crate) relevant: u32,
}

/// The rank of the query itself in its ranking.
#[derive(Debug, Clone, Copy)]
pub(crate) struct QueryRank {
    pub(crate) rank: u32,
    pub(crate) relevant: bool,
}

impl Ranking {
    /// Reads `items`, `(id, score, relevant)` each, in total order: score descending, then id
    /// ascending.
    ///
    /// Scores that compare equal are tied, 0.0 and -0.0 too. `n_relevant` is the number of relevant
    /// items in the whole gallery, ranked or not. Items that a partial ranking omits count as never
    /// retrieved, so end it where a tie ends.
    ///
    /// `query_id` is the id of the gallery item that is the query itself, for rules that exclude
    /// it; `None` if the query is not in the gallery. If the query is ranked, `n_relevant` includes
    /// it according to its flag. If a partial ranking omits it, `n_relevant` must omit it too.
    ///
    /// # Errors
    /// [`Error::NanScore`]; [`Error::Order`], also if an id occurs twice within one score (ids must
    /// be distinct throughout); [`Error::RelevantCount`] if more relevant items are ranked than
    /// exist; [`Error::TooManyItems`].
    pub fn new(
        items: impl IntoIterator<Item = (u64, f32, bool)>,
        n_relevant: usize,
        query_id: Option<u64>,
    ) -> Result<Self, Error> {
        let (mut rank, mut found) = (0_u32, 0_u32);
        let (mut relevant_ranks, mut groups) = (Vec::new(), Vec::new());
        let mut group = Group { n_before: 0, size: 0, relevant_before: 0, relevant: 0 };
        let mut close = |mut group: Group, rank, found| {
            group.size = rank - group.n_before;
            group.relevant = found - group.relevant_before;
            if group.relevant > 0 {
                groups.push(group);
            }
        };
        let mut query = None;
        let (mut last_score, mut last_id) = (f32::INFINITY, 0);
        for (id, score, relevant) in items {
            if score < last_score {
                close(group, rank, found);
                group = Group { n_before: rank, relevant_before: found, ..group };
            } else if !(score == last_score && (id > last_id || rank == 0)) {
                let rank = rank as usize;
                return Err(if score.is_nan() {
                    Error::NanScore { at: rank, id }
                } else {
                    Error::Order { rank, id }
                });
            }
            (last_score, last_id) = (score, id);
            if query_id == Some(id) {
                query = Some(QueryRank { rank, relevant });
            }
            // Replaces the rank of an irrelevant item instead of branching: relevance cannot be
            // predicted, and a branch on it per item would take longer than all other work.
            relevant_ranks.truncate(found as usize);
            relevant_ranks.push(rank);
            found += u32::from(relevant);
            rank = rank.checked_add(1).ok_or(Error::TooManyItems)?;
        }
        close(group, rank, found);
        let found = found as usize;
        relevant_ranks.truncate(found);
        if found > n_relevant {
            return Err(Error::RelevantCount { found, n_relevant });
        }
        Ok(Self { n_items: rank, n_relevant, relevant_ranks, groups, query })
    }

    /// Returns the number of items ranked.
    pub fn len(&self) -> usize {
        self.n_items as usize
    }

    /// Returns true if no item is ranked.
    pub fn is_empty(&self) -> bool {
        self.n_items == 0
    }

    /// Returns the number of relevant items in the whole gallery.
    pub fn n_relevant(&self) -> usize {
        self.n_relevant
    }

    /// Returns the ranking without the query itself, as if it were not in the gallery.
    pub(crate) fn without_query(&self) -> Cow<'_, Self> {
        let Some(QueryRank { rank, relevant }) = self.query else { return Cow::Borrowed(self) };
        let mut rest = self.clone();
        rest.query = None;
        rest.n_items -= 1;
        rest.n_relevant -= usize::from(relevant);
        rest.relevant_ranks.retain(|&r| !relevant || r != rank);
        for r in &mut rest.relevant_ranks {
            *r -= u32::from(*r > rank);
        }
        for group in &mut rest.groups {
            if group.n_before > rank {
                group.n_before -= 1;
                group.relevant_before -= u32::from(relevant);
            } else if group.end() > rank {
                group.size -= 1;
                group.relevant -= u32::from(relevant);
            }
        }
        rest.groups.retain(|group| group.relevant > 0);
        Cow::Owned(rest)
    }

    /// Returns the expected number of relevant items within the first `cutoff` ranks, over all
    /// orders of tied items.
    pub(crate) fn expected_relevant_within(&self, cutoff: usize) -> f64 {
        let reached = self.groups.partition_point(|group| (group.n_before as usize) < cutoff);
        let Some(group) = self.groups[..reached].last() else { return 0.0 };
        let places = (cutoff - group.n_before as usize).min(group.size as usize);
        f64::from(group.relevant_before) + f64::from(group.relevant) * places as f64 / f64::from(group.size)
    }
}

impl Group {
    /// The rank after the last of the group.
    pub(crate) fn end(&self) -> u32 {
        self.n_before + self.size
    }
}
