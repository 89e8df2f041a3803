//! A whole index whose bytes were changed here and there, past its header: what opening cannot see.

#![no_main]

use dpq_index::{CodeLength, Index, Kernel, SearchOptions};

const FILES: [&[u8]; 4] = [
    include_bytes!("../../crates/dpq-index/tests/data/v1.dpq"),
    include_bytes!("../../crates/dpq-index/tests/data/v1-l2.dpq"),
    include_bytes!("../../crates/dpq-index/tests/data/v2-l2.dpq"),
    include_bytes!("../../crates/dpq-index/tests/data/v3-l2.dpq"),
];

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let Some((&which, changes)) = input.split_first() else { return };
    let mut bytes = FILES[usize::from(which) % FILES.len()].to_vec();
    for &[a, b, c, value] in changes.as_chunks::<4>().0 {
        // From the end, where all but the directory lies.
        let at = u32::from_le_bytes([a, b, c, 0]) as usize % bytes.len();
        let at = bytes.len() - 1 - at;
        bytes[at] = value;
    }
    let Ok(index) = Index::from_bytes(bytes) else { return };
    let Ok(table) = index.lookup_table(&vec![1.0; index.codebooks().dim()]) else { return };
    let (some, few) = (index.deny(&[1]), index.allow(&[0, 1, 2]));
    for length in (1..=index.max_length().levels()).filter_map(|levels| CodeLength::from_levels(levels).ok()) {
        for kernel in Kernel::available() {
            for k in [1, 3, usize::MAX] {
                let options = SearchOptions::new(k).length(length).kernel(kernel);
                let _ = index.search_with(&table, &options);
                let _ = index.search_with(&table, &options.filter(&some));
                let _ = index.search_with(&table, &options.filter(&few).min_score(0.0));
                let shortlist = options.shortlist(k, CodeLength::from_levels(1).unwrap_or(length));
                let _ = index.search_with(&table, &shortlist.exact());
            }
        }
    }
    let _ = index.search_batch(&vec![1.0; 2 * index.codebooks().dim()], &SearchOptions::new(2));
    let _ = index.search(&vec![1.0; index.codebooks().dim()], usize::MAX);
    let _ = index.verify();
});
