//! The figures of a report that need images and features, for its first run.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;
use dpq_data::{Dataset, encode_png};
use dpq_index::Hit;
use dpq_model::Model;
use dpq_report::{Example, ExampleHit, choose, sheet};

use super::measure::Measured;

/// The maximum side of an image. Larger images are halved, so that a page stays small.
const SIDE: usize = 64;

/// Draws example queries and what they find at each length.
pub(super) fn examples(measured: &Measured, folder: &Path) -> Result<String> {
    let dataset = Dataset::open(folder)?;
    let classes = |id: u64| dataset.labels(id as usize);
    let hits = |query: usize, id: u64| {
        let judge = |hit: &Hit| ExampleHit {
            id: hit.id,
            relevant: classes(hit.id).iter().any(|class| classes(id).contains(class)),
        };
        let of_length =
            |(&bits, hits): (&u32, &Vec<Vec<Hit>>)| (bits, hits[query].iter().map(judge).collect());
        measured.hits.iter().map(of_length).collect()
    };
    let ids = measured.query.rows.iter().map(|&row| u64::from(row));
    let examples: Vec<Example> = ids
        .enumerate()
        .map(|(query, id)| Example {
            id,
            second: None,
            note: String::new(),
            classes: classes(id).iter().map(|&class| class as usize).collect(),
            hits: hits(query, id),
        })
        .collect();
    let chosen = choose(&examples);

    let mut shape = dataset.shape();
    while shape.height.max(shape.width) > SIDE {
        (shape.height, shape.width) = (shape.height.div_ceil(2), shape.width.div_ceil(2));
    }
    let thumbnails = Dataset::open(folder)?.resized(shape)?;
    let mut pixels = vec![0; shape.len()];
    let mut pngs = BTreeMap::new();
    for example in &chosen {
        for id in example.hits.values().flatten().map(|hit| hit.id).chain([example.id]) {
            thumbnails.read(id as usize, &mut pixels)?;
            pngs.insert(id, encode_png(shape, &pixels)?);
        }
    }
    Ok(sheet(&chosen, &pngs, dataset.class_names()))
}

/// Draws at most `n_items` items at equal distances in the gallery, by features and
/// reconstructions.
pub(super) fn tsne(
    measured: &Measured,
    model: &Model,
    folder: &Path,
    n_items: usize,
) -> Result<Option<String>> {
    let dataset = Dataset::open(folder)?;
    let (gallery, codebooks) = (&measured.gallery, model.codebooks());
    let n_items = n_items.min(gallery.rows.len());
    let places: Vec<usize> = (0..n_items).map(|i| i * gallery.rows.len() / n_items).collect();
    let rows = |values: &[f32]| -> Vec<f32> { pick(values, codebooks.dim(), &places) };
    let codes = pick(&gallery.codes, codebooks.n_levels(), &places);
    let mut panels = vec![("features".to_owned(), rows(&gallery.features))];
    for length in codebooks.lengths() {
        panels.push((format!("{} bits", length.bits()), codebooks.decode(&codes, length)?));
    }
    let labels = places.iter().map(|&place| dataset.labels(gallery.rows[place] as usize));
    let labels: Vec<Vec<usize>> =
        labels.map(|labels| labels.iter().map(|&class| class as usize).collect()).collect();
    Ok(dpq_report::tsne(&panels, codebooks.dim(), &labels, dataset.class_names())?)
}

/// Returns some rows of a matrix.
fn pick<T: Copy>(values: &[T], columns: usize, rows: &[usize]) -> Vec<T> {
    rows.iter().flat_map(|&row| &values[row * columns..][..columns]).copied().collect()
}
