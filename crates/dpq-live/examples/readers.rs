//! A reader keeps its snapshot while a writer adds, deletes and merges:
//!
//! `cargo run --release -p dpq-live --example readers`

use dpq_live::{Assignment, Codebooks, LiveIndex, Metric, Snapshot};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let codewords = vec![1.0, 0.0, 0.0, 1.0, /* level 1 */ 0.25, 0.0, 0.0, 0.25];
    let codebooks = Codebooks::new(codewords, 2, 2, 2, Assignment::Euclidean)?;
    let folder = std::env::temp_dir().join(format!("dpq-readers-{}", std::process::id()));

    let mut live = LiveIndex::create(&folder, &codebooks, Metric::InnerProduct)?;
    live.set_max_tail(100)?;
    for id in 0..1000 {
        live.upsert_named(id, &[(id % 2) as u8, (id / 2 % 2) as u8], &format!("item {id}"))?;
    }
    live.commit()?;

    let before = Snapshot::open(&folder)?;
    (0..900).try_for_each(|id| live.delete(id))?;
    while live.merge_step()? {}
    live.commit()?;
    let after = Snapshot::open(&folder)?;

    for (name, snapshot) in [("before", &before), ("after", &after)] {
        let nearest = snapshot.search(&[0.0, 1.0], 1)?[0];
        let stats = snapshot.stats();
        println!(
            "{name}: {} items in {} segments, the nearest is {}",
            snapshot.len(),
            stats.segments.len(),
            snapshot.name_of(nearest.id).unwrap_or("without a name")
        );
    }
    std::fs::remove_dir_all(&folder)?;
    Ok(())
}
