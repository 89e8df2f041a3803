//! Merging segments: few and large ones are searched faster than many small ones.

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use dpq_codebook::Codebooks;
use dpq_index::Metric;

use crate::Error;
use crate::folder::Folder;
use crate::items::Items;
use crate::segment::{MAX_ITEMS, Part, Segment};

/// Segments of about equal size that are merged.
const FANOUT: usize = 8;

/// A merge of segments into one. [`LiveIndex::plan_merge`](crate::LiveIndex::plan_merge) makes it,
/// any thread may run it, and [`LiveIndex::finish_merge`](crate::LiveIndex::finish_merge) takes the
/// result.
pub struct Merge {
    pub(crate) folder: Folder,
    pub(crate) codebooks: Arc<Codebooks>,
    pub(crate) metric: Metric,
    /// The number of the new segment.
    pub(crate) number: u64,
    pub(crate) parts: Vec<Part>,
    /// No other writer may use the number.
    pub(crate) lock: Arc<File>,
}

/// A merge that has run. Dropping it removes its files.
pub struct Merged {
    /// The parts that were merged.
    pub(crate) from: Vec<Part>,
    folder: Folder,
    /// None once a live index has taken it.
    segment: Option<Segment>,
    _lock: Arc<File>,
}

impl Merged {
    /// Returns the segment, whose files stay.
    pub(crate) fn take(&mut self) -> Option<Segment> {
        self.segment.take()
    }
}

impl Drop for Merged {
    fn drop(&mut self) {
        self.segment.iter().for_each(|segment| self.folder.remove_segment(segment.number));
    }
}

impl Merge {
    /// Checks every byte of the segments, then writes and syncs the merged one: the long part of
    /// the work. It takes about 30 bytes per item in memory besides codes and names.
    ///
    /// # Errors
    /// They name a damaged file. [`Error::Index`] or [`Error::File`] if the segment cannot be
    /// written. The live index stays as it is.
    pub fn run(self) -> Result<Merged, Error> {
        self.run_until(&AtomicBool::new(false))
    }

    /// Does the same until `interrupt` becomes true, and ends soon after that.
    ///
    /// # Errors
    /// As [`run`](Self::run), and [`dpq_index::Error::Interrupted`], which leaves no files.
    pub fn run_until(self, interrupt: &AtomicBool) -> Result<Merged, Error> {
        let mut items = Items::default();
        for part in &self.parts {
            if interrupt.load(Ordering::Relaxed) {
                return Err(dpq_index::Error::Interrupted.into());
            }
            // The merged segment would have checksums of damaged bytes.
            part.segment.verify()?;
            part.append_to(&mut items);
        }
        let segment =
            Segment::write(&self.folder, self.number, &items, &self.codebooks, self.metric, interrupt)?;
        // Here, this keeps neither the writer nor a search waiting.
        segment.sort_ids();
        Ok(Merged { from: self.parts, folder: self.folder, segment: Some(segment), _lock: self.lock })
    }
}

/// Returns segments to merge, if any: eight of about the same size, or one of which more than half
/// was deleted. `unit` is the size of the smallest segments.
pub(crate) fn plan(parts: &[Part], unit: usize) -> Option<Vec<Part>> {
    if let Some(part) = parts.iter().find(|part| part.n_live() > 0 && part.n_deleted() > part.n_live()) {
        return Some(vec![part.clone()]);
    }
    // A tier ends at half of its full size, because items may be deleted before a merge.
    let tier = |part: &Part| (2 * part.n_live() / unit).max(1).ilog(FANOUT);
    let of_tier = |wanted| parts.iter().filter(|part| tier(part) == wanted).cloned().collect();
    let mut tiers = (0..=parts.iter().map(tier).max()?).map(of_tier);
    tiers.find_map(|parts: Vec<Part>| {
        let mut groups = groups(&parts, Part::n_live, MAX_ITEMS).filter(|_| parts.len() >= FANOUT);
        groups.find(|group| group.len() > 1).map(<[Part]>::to_vec)
    })
}

/// Returns the segments that make `parts` compact: neighbours together, as many as one segment can
/// hold. Those that stay as they are are left out.
pub(crate) fn plan_all(parts: &[Part]) -> Vec<Vec<Part>> {
    let groups = groups(parts, Part::n_live, MAX_ITEMS);
    groups.filter(|group| group.len() > 1 || group[0].n_deleted() > 0).map(<[Part]>::to_vec).collect()
}

/// Divides parts into neighbours whose items are at most `max` together.
fn groups<T>(parts: &[T], len: impl Fn(&T) -> usize, max: usize) -> impl Iterator<Item = &[T]> {
    let mut sum = parts.first().map_or(0, &len);
    parts.chunk_by(move |_, next| {
        sum += len(next);
        let fits = sum <= max;
        if !fits {
            sum = len(next);
        }
        fits
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_have_as_many_items_as_fit() {
        let groups = |parts: &[usize]| -> Vec<Vec<usize>> {
            groups(parts, |&n| n, 10).map(<[usize]>::to_vec).collect()
        };
        assert_eq!(
            groups(&[4, 6, 1, 10, 3, 3, 3, 3]),
            [vec![4, 6], vec![1], vec![10], vec![3, 3, 3], vec![3]]
        );
        assert!(groups(&[]).is_empty());
    }
}
