//! Items in memory.

use std::collections::BTreeMap;

/// Items with distinct ids.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Items {
    pub(crate) ids: Vec<u64>,
    /// u8 `[N, L]`.
    pub(crate) codes: Vec<u8>,
    /// By id, of those that have one.
    pub(crate) names: BTreeMap<u64, String>,
}
