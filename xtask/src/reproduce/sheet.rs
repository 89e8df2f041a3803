//! `queries.svg`: some real queries and what they find at each code length, images inside.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::dpq::{Hit, Images};
use super::npy::Rows;
use super::pipeline::{BITS, HITS, SeedRun};
use super::plot::{escape, svg};
use super::stage::Runner;

/// Classes whose first query is shown, and further queries whose lengths differ most, at most.
const BY_CLASS: usize = 10;
const DIFFERING: usize = 4;

/// A query and its hits.
struct Shown {
    id: u64,
    classes: Vec<usize>,
    /// By length: ids of the hits and whether each is relevant.
    hits: Vec<Vec<(u64, bool)>>,
}

/// Draws the sheet of a training. Returns the names of the classes as well.
pub(crate) fn sheet(
    runner: &Runner,
    dir: &Path,
    run: &SeedRun,
    dataset: &Path,
) -> Result<(String, Vec<String>)> {
    let query_labels = Rows::read(&run.query.file("labels.npy"), "|u1")?;
    let gallery_labels = Rows::read(&run.gallery.file("labels.npy"), "|u1")?;
    let gallery_ids = Rows::read(&run.gallery.file("ids.npy"), "<u8")?;
    let row_of: HashMap<u64, usize> = gallery_ids.u64s().enumerate().map(|(row, id)| (id, row)).collect();
    let judge = |hit: &Hit, classes: &[usize]| {
        let row = row_of.get(&hit.id).with_context(|| format!("hit {} is not in the gallery", hit.id))?;
        Ok((hit.id, gallery_labels.classes(*row).iter().any(|class| classes.contains(class))))
    };
    let show = |(query, id): (usize, u64)| {
        let classes = query_labels.classes(query);
        let at = |hits: &Vec<Vec<Hit>>| {
            let hits = hits.get(query).context("a search has hits for every query")?;
            hits.iter().map(|hit| judge(hit, &classes)).collect::<Result<Vec<_>>>()
        };
        let hits = run.search.iter().map(|stage| at(&stage.result.hits)).collect::<Result<_>>()?;
        Ok(Shown { id, classes, hits })
    };
    let query_ids = Rows::read(&run.query.file("ids.npy"), "<u8")?;
    let queries = query_ids.u64s().enumerate().map(show).collect::<Result<Vec<_>>>()?;
    let shown = choose(&queries);

    let ids = shown.iter().flat_map(|query| query.hits.iter().flatten().map(|(id, _)| *id).chain([query.id]));
    let ids: BTreeSet<u64> = ids.collect();
    let list = ids.iter().map(u64::to_string).collect::<Vec<_>>().join(",");
    let command = format!("data images --data {} --ids {list} --out-dir OUT", dataset.display());
    let images = runner.run::<Images>(&dir.join("images"), &[], &command)?;
    let read = |&id: &u64| {
        let path = images.file(&format!("{id}.png"));
        Ok((id, fs::read(&path).with_context(|| format!("cannot read {path}"))?))
    };
    let pngs = ids.iter().map(read).collect::<Result<BTreeMap<_, _>>>()?;
    Ok((draw(&shown, &pngs, &images.result.classes), images.result.classes))
}

/// The first query of each class (of several classes it counts for the first), then those whose numbers of relevant hits
/// differ most from length to length.
fn choose(queries: &[Shown]) -> Vec<&Shown> {
    let mut first = BTreeMap::new();
    for query in queries {
        first.entry(query.classes.first()).or_insert(query);
    }
    let mut chosen: Vec<&Shown> = first.into_values().take(BY_CLASS).collect();
    let difference = |query: &&Shown| {
        let numbers = || query.hits.iter().map(|hits| n_relevant(hits));
        numbers().max().unwrap_or(0) - numbers().min().unwrap_or(0)
    };
    let is_new = |query: &&Shown| difference(query) > 0 && chosen.iter().all(|chosen| chosen.id != query.id);
    let mut others: Vec<&Shown> = queries.iter().filter(is_new).collect();
    others.sort_by_key(|query| std::cmp::Reverse(difference(query)));
    others.truncate(DIFFERING);
    chosen.extend(others);
    chosen
}

fn n_relevant(hits: &[(u64, bool)]) -> usize {
    hits.iter().filter(|(_, relevant)| *relevant).count()
}

/// Of an image, from one hit to the next, from one length to the next, of a query with its name.
const IMAGE: f64 = 28.0;
const STEP: f64 = 31.0;
const ROW: f64 = 36.0;
const BLOCK: f64 = 4.0 * ROW + 30.0;

/// Where the query, the lengths and the hits begin.
const QUERY: f64 = 6.0;
const LENGTHS: f64 = 78.0;
const FIRST: f64 = 128.0;

fn draw(queries: &[&Shown], pngs: &BTreeMap<u64, Vec<u8>>, classes: &[String]) -> String {
    let mut body = "<defs>\n".to_owned();
    for (id, png) in pngs {
        body += &format!(
            "<image id=\"i{id}\" width=\"{IMAGE}\" height=\"{IMAGE}\" href=\"data:image/png;base64,{}\"/>\n",
            base64(png)
        );
    }
    body += "</defs>\n";
    for (i, query) in queries.iter().enumerate() {
        let top = 8.0 + BLOCK * i as f64;
        let name = |&class: &usize| classes.get(class).cloned().unwrap_or_else(|| format!("class {class}"));
        let names = query.classes.iter().map(name).collect::<Vec<_>>().join(", ");
        body += &format!(
            "<text x=\"{QUERY}\" y=\"{}\">{}</text>\n<use href=\"#i{}\" transform=\"translate({QUERY} {})scale(2.25)\"/>\n",
            top + 12.0,
            escape(&names),
            query.id,
            top + 20.0
        );
        for (row, (hits, bits)) in query.hits.iter().zip(BITS).enumerate() {
            let y = top + 20.0 + ROW * row as f64;
            body += &format!("<text class=\"soft\" x=\"{LENGTHS}\" y=\"{}\">{bits} bits</text>", y + 18.5);
            for (rank, (id, relevant)) in hits.iter().enumerate() {
                let x = FIRST + STEP * rank as f64;
                body += &format!("<use href=\"#i{id}\" x=\"{x}\" y=\"{y}\"/>");
                if *relevant {
                    let y = y + IMAGE + 1.0;
                    body += &format!("<path d=\"M{x} {y}h{IMAGE}v3h-{IMAGE}z\" style=\"fill:var(--good)\"/>");
                }
            }
            let x = FIRST + STEP * HITS as f64 + 4.0;
            body +=
                &format!("<text class=\"soft\" x=\"{x}\" y=\"{}\">{}</text>\n", y + 18.5, n_relevant(hits));
        }
    }
    svg(
        480.0,
        8.0 + BLOCK * queries.len() as f64,
        "Queries and their nearest items at each code length",
        &body,
    )
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let bits = (0..3).fold(0, |bits, i| bits << 8 | u32::from(chunk.get(i).copied().unwrap_or(0)));
        for i in 0..4 {
            let digit = DIGITS[(bits >> (18 - 6 * i)) as usize & 63].into();
            text.push(if i <= chunk.len() { digit } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(id: u64, class: usize, relevant: [usize; 2]) -> Shown {
        let hits = |n: usize| (0..3).map(|rank| (100 + rank as u64, rank < n)).collect();
        Shown { id, classes: vec![class], hits: relevant.map(hits).into() }
    }

    #[test]
    fn first_of_each_class_then_where_lengths_differ() {
        let queries = [
            shown(1, 1, [3, 3]),
            shown(2, 0, [0, 3]),
            shown(3, 1, [3, 3]),
            shown(4, 1, [2, 3]),
            shown(5, 0, [3, 0]),
            shown(6, 0, [3, 2]),
        ];
        let ids: Vec<u64> = choose(&queries).iter().map(|query| query.id).collect();
        assert_eq!(ids, [2, 1, 5, 4, 6]);
    }

    #[test]
    fn images_are_held_once_and_relevant_ones_marked() {
        let query = shown(1, 0, [1, 3]);
        let pngs = [1, 100, 101, 102].map(|id| (id, vec![0; 3])).into();
        let sheet = draw(&[&query], &pngs, &["T-shirt & top".to_owned()]);
        assert_eq!(sheet.matches("<image id").count(), 4, "{sheet}");
        assert_eq!(sheet.matches("<use href=\"#i").count(), 1 + 2 * 3, "{sheet}");
        assert_eq!(sheet.matches("style=\"fill:var(--good)\"").count(), 1 + 3, "{sheet}");
        assert!(sheet.contains("T-shirt &amp; top") && sheet.contains("href=\"data:image/png;base64,AAAA\""));
    }

    #[test]
    fn base64_is_that_of_the_standard() {
        let texts = ["", "f", "fo", "foo", "foob", "fooba", "foobar"].map(|text| base64(text.as_bytes()));
        assert_eq!(texts, ["", "Zg==", "Zm8=", "Zm9v", "Zm9vYg==", "Zm9vYmE=", "Zm9vYmFy"]);
        assert_eq!(base64(&[0xfb, 0xff]), "+/8=");
    }
}
