//! Merging segments: few and large ones are searched faster than many small ones.

use std::fs::File;
use std::sync::Arc;

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

/// A merge that has run.
pub struct Merged {
    /// The parts that were merged.
    pub(crate) from: Vec<Part>,
    pub(crate) folder: Folder,
    pub(crate) segment: Segment,
    pub(crate) _lock: Arc<File>,
}

impl Merge {
    /// Checks every byte of the segments, then writes and syncs the merged one: the long part of the
    /// work. It takes about 30 bytes per item in memory besides codes and names.
    ///
    /// # Errors
    /// They name a damaged file. [`Error::Index`] or [`Error::File`] if the segment cannot be
    /// written. The live index stays as it is.
    pub fn run(self) -> Result<Merged, Error> {
        let mut items = Items::default();
        for part in &self.parts {
            // The merged segment would have checksums of damaged bytes.
            part.segment.verify()?;
            part.append_to(&mut items);
        }
        let segment = Segment::write(&self.folder, self.number, &items, &self.codebooks, self.metric)?;
        Ok(Merged { from: self.parts, folder: self.folder, segment, _lock: self.lock })
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
    tiers.find(|parts: &Vec<Part>| parts.len() >= FANOUT && fits(parts))
}

/// Returns true if one segment can hold all items.
pub(crate) fn fits(parts: &[Part]) -> bool {
    parts.iter().map(Part::n_live).sum::<usize>() <= MAX_ITEMS
}
