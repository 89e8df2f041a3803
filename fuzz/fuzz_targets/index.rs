//! Any bytes given as an index: opening, searching and verifying them may fail, never panic.

#![no_main]

use dpq_index::{CodeLength, Index, SearchOptions};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Ok(index) = Index::from_bytes(bytes.to_vec()) else { return };
    let Ok(table) = index.lookup_table(&vec![1.0; index.codebooks().dim()]) else { return };
    let filter = index.deny(&[1]);
    for length in (1..=5).filter_map(|levels| CodeLength::from_levels(levels).ok()) {
        for options in [3, usize::MAX].map(|k| SearchOptions::new(k).length(length)) {
            let _ = (index.search_with(&table, &options), index.search_with(&table, &options.filter(&filter)));
        }
    }
    let _ = index.verify();
});
