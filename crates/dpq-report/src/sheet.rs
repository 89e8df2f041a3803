//! `queries.svg`: example queries and what they find at each code length, with images.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use crate::svg::{base64, escape, svg};

/// The maximum number of classes whose first query is shown, and of further queries.
const BY_CLASS: usize = 10;
const DIFFERING: usize = 4;

/// A query and its hits.
#[derive(Clone, Debug)]
pub struct Example {
    /// The id of the query's image.
    pub id: u64,
    /// The id of a second image, drawn below the query's.
    pub second: Option<u64>,
    /// A remark after the names of the classes.
    pub note: String,
    /// The classes of the query.
    pub classes: Vec<usize>,
    /// Hits, nearest first, at each code length in bits.
    pub hits: BTreeMap<u32, Vec<ExampleHit>>,
}

/// An item that a query finds.
#[derive(Clone, Copy, Debug)]
pub struct ExampleHit {
    /// The id of the item's image.
    pub id: u64,
    /// True if the item shares a class with the query.
    pub relevant: bool,
}

/// Chooses which queries to show.
///
/// Takes the first query of each class, where the first of several classes counts, and then the
/// queries whose number of relevant hits differs most between lengths.
pub fn choose(queries: &[Example]) -> Vec<&Example> {
    let mut first = BTreeMap::new();
    for query in queries {
        first.entry(query.classes.first()).or_insert(query);
    }
    let mut chosen: Vec<&Example> = first.into_values().take(BY_CLASS).collect();
    let difference = |query: &&Example| {
        let numbers = || query.hits.values().map(|hits| n_relevant(hits));
        numbers().max().unwrap_or(0) - numbers().min().unwrap_or(0)
    };
    let is_new =
        |query: &&Example| difference(query) > 0 && chosen.iter().all(|chosen| chosen.id != query.id);
    let mut further: Vec<&Example> = queries.iter().filter(is_new).collect();
    further.sort_by_key(|query| Reverse(difference(query)));
    further.truncate(DIFFERING);
    chosen.extend(further);
    chosen
}

fn n_relevant(hits: &[ExampleHit]) -> usize {
    hits.iter().filter(|hit| hit.relevant).count()
}

/// The side of an image, and the distances between hits and between lengths.
const IMAGE: f64 = 28.0;
const STEP: f64 = 31.0;
const ROW: f64 = 36.0;

/// Where the query, the lengths and the hits begin.
const QUERY: f64 = 6.0;
const LENGTHS: f64 = 78.0;
const FIRST: f64 = 128.0;

/// Draws queries and their hits. `pngs` has the image of each id, `classes` the names of the
/// classes.
pub fn sheet(queries: &[&Example], pngs: &BTreeMap<u64, Vec<u8>>, classes: &[String]) -> String {
    let n_lengths = queries.first().map_or(0, |query| query.hits.len());
    let n_hits = queries.iter().flat_map(|query| query.hits.values().map(Vec::len)).max().unwrap_or(0);
    let n_rows =
        if queries.iter().any(|query| query.second.is_some()) { n_lengths.max(4) } else { n_lengths };
    let height = ROW * n_rows as f64 + 30.0;
    let mut body = "<defs>\n".to_owned();
    for (id, png) in pngs {
        body += &format!(
            "<image id=\"i{id}\" width=\"{IMAGE}\" height=\"{IMAGE}\" href=\"data:image/png;base64,{}\"/>\n",
            base64(png)
        );
    }
    body += "</defs>\n";
    for (i, query) in queries.iter().enumerate() {
        let top = 8.0 + height * i as f64;
        let name = |&class: &usize| classes.get(class).cloned().unwrap_or_else(|| format!("class {class}"));
        let mut names = query.classes.iter().map(name).collect::<Vec<_>>().join(", ");
        if !query.note.is_empty() {
            names += &format!(", {}", query.note);
        }
        body += &format!("<text x=\"{QUERY}\" y=\"{}\">{}</text>\n", top + 12.0, escape(&names));
        for (id, y) in [Some(query.id), query.second].iter().flatten().zip([top + 20.0, top + 92.0]) {
            body += &format!("<use href=\"#i{id}\" transform=\"translate({QUERY} {y})scale(2.25)\"/>\n");
        }
        for (row, (bits, hits)) in query.hits.iter().enumerate() {
            let y = top + 20.0 + ROW * row as f64;
            body += &format!("<text class=\"soft\" x=\"{LENGTHS}\" y=\"{}\">{bits} bits</text>", y + 18.5);
            for (rank, ExampleHit { id, relevant }) in hits.iter().enumerate() {
                let x = FIRST + STEP * rank as f64;
                body += &format!("<use href=\"#i{id}\" x=\"{x}\" y=\"{y}\"/>");
                if *relevant {
                    let y = y + IMAGE + 1.0;
                    body += &format!("<path d=\"M{x} {y}h{IMAGE}v3h-{IMAGE}z\" style=\"fill:var(--good)\"/>");
                }
            }
            let x = FIRST + STEP * n_hits as f64 + 4.0;
            body +=
                &format!("<text class=\"soft\" x=\"{x}\" y=\"{}\">{}</text>\n", y + 18.5, n_relevant(hits));
        }
    }
    svg(
        480.0,
        8.0 + height * queries.len() as f64,
        "Queries and their nearest items at each code length",
        &body,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example(id: u64, class: usize, relevant: [usize; 2]) -> Example {
        let hits =
            |n: usize| (0..3).map(|rank| ExampleHit { id: 100 + rank as u64, relevant: rank < n }).collect();
        Example {
            id,
            second: None,
            note: String::new(),
            classes: vec![class],
            hits: [8, 16].into_iter().zip(relevant.map(hits)).collect(),
        }
    }

    #[test]
    fn first_of_each_class_then_where_lengths_differ() {
        let queries = [
            example(1, 1, [3, 3]),
            example(2, 0, [0, 3]),
            example(3, 1, [3, 3]),
            example(4, 1, [2, 3]),
            example(5, 0, [3, 0]),
            example(6, 0, [3, 2]),
        ];
        let ids: Vec<u64> = choose(&queries).iter().map(|query| query.id).collect();
        assert_eq!(ids, [2, 1, 5, 4, 6]);
    }

    #[test]
    fn images_are_held_once_and_relevant_ones_marked() {
        let query = example(1, 0, [1, 3]);
        let pngs = [1, 100, 101, 102].map(|id| (id, vec![0; 3])).into();
        let drawn = sheet(&[&query], &pngs, &["T-shirt & top".to_owned()]);
        assert_eq!(drawn.matches("<image id").count(), 4, "{drawn}");
        assert_eq!(drawn.matches("<use href=\"#i").count(), 1 + 2 * 3, "{drawn}");
        assert_eq!(drawn.matches("style=\"fill:var(--good)\"").count(), 1 + 3, "{drawn}");
        let attacked = Example { id: 7, second: Some(8), note: "attacked".to_owned(), ..query.clone() };
        let pair = sheet(&[&query, &attacked], &pngs, &[]);
        assert!(pair.contains("class 0, attacked") && pair.contains("href=\"#i8\""), "{pair}");
        assert!(drawn.contains("T-shirt &amp; top") && drawn.contains("href=\"data:image/png;base64,AAAA\""));
    }
}
