//! The section about live indexes.

use super::results::{Growth, Live, Run, SegmentSearch, Segments};
use super::words::{Section, count, microseconds};
use crate::table::{Table, line};

pub(super) fn section(run: &Run<Live>) -> Section {
    let Live { commit_items, upserts, growth, segments } = &run.results;
    let Segments { items, queries, rounds, dim, searches } = segments;
    let megabytes = |bytes: u64| format!("{} MB", count((bytes as f64 / 1e6).round() as u64));
    let rows = [upserts, growth].map(|growth: &Growth| {
        let [median, p99, max] = growth.commit_seconds.map(|seconds| format!("{:.1} ms", 1e3 * seconds));
        let seconds = [growth.seconds, growth.merge_seconds].map(|seconds| format!("{seconds:.1} s"));
        let [written, kept] = [growth.bytes_written, growth.bytes_kept].map(megabytes);
        let share = format!("{:.1}", growth.bytes_written as f64 / growth.bytes_kept as f64);
        let [total, merges] = seconds;
        let segments = growth.segments.to_string();
        line(&count(growth.items), [total, merges, median, p99, max, written, kept, share, segments])
    });
    let header = [
        "time",
        "of it merges",
        "commit, median",
        "99 %",
        "maximum",
        "written",
        "kept",
        "written over kept",
        "segments",
    ];
    let grown = Table::new("upserts", header, rows);
    let rows = searches.iter().map(|&SegmentSearch { bits, k, one_ns, eight_ns }| {
        let ratio = format!("{:.2}", eight_ns as f64 / one_ns as f64);
        line(&format!("{bits} bits, k = {k}"), [microseconds(one_ns), microseconds(eight_ns), ratio])
    });
    let searched = Table::new("", ["one index, µs", "eight segments, µs", "eight over one"], rows);
    let text = [
        format!(
            "Upserts of new items in commits of {}, and all merges that fall due, one after the other.",
            count(*commit_items as u64)
        ),
        grown.to_string(),
        format!(
            "Searches of {} clustered codes, D = {dim}, inner product: eight equal segments as `dpq-live` searches them, \
             and one index of all items.",
            count(*items)
        ),
        searched.to_string(),
        run.how(&[
            "`crates/dpq-live/benches/gallery.py`: codes of 32 bits; a commit syncs its files, and its time leaves out \
             sealing the tail and merging; written bytes are those that the process passed to the system"
                .to_owned(),
            format!(
                "one query at a time by turns, one thread, lookup table included, median of {rounds} rounds of {queries} \
                 queries"
            ),
        ]),
    ];
    // Both sides are ours.
    Section::new("A live index", &text, Vec::new())
}
