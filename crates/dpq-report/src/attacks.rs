//! The report about adversarial queries, from what `dpq attack` measures.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::Error;
use crate::document::{Block, markdown};
use crate::files::{self, Files, RESULTS};
use crate::page::QUERIES;
use crate::results::{ByBits, Machine};
use crate::table::{Table, line};

/// The folder name of the report in `docs/results`.
pub const NAME: &str = "pq-ag";

/// The numbers of the report: attacks on the same queries and gallery.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Attacks {
    /// The program, or the commit of the repository.
    pub commit: String,
    /// The computer.
    pub machine: Machine,
    /// The attacks, at least one.
    pub attacks: Vec<Attacked>,
}

/// An attack on one model.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Attacked {
    /// The name of the data set.
    pub dataset: String,
    /// The network of the attacked model, in words.
    pub network: String,
    /// The network of the other model whose gradients were used, too.
    pub other: Option<String>,
    /// Number of queries.
    pub queries: usize,
    /// Number of items that they search.
    pub gallery: usize,
    /// The loss: `aod`, `apd` or `basic`.
    pub loss: String,
    /// The maximum change of a byte of an image.
    pub epsilon: u8,
    /// Number of steps.
    pub steps: usize,
    /// The level that was attacked, counted from 1; all if there is none.
    pub level: Option<u32>,
    /// The rule of the mean average precision.
    pub map_rule: String,
    /// The rankings of queries: `clean` as they are, with `noise`, `attacked`, and `transferred`
    /// from the other model.
    pub ranked: BTreeMap<String, Ranked>,
    /// Queries attacked per second by the model's own gradients.
    pub images_per_second: f64,
}

/// The rankings of a set of queries.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Ranked {
    /// mAP of the whole ranking.
    pub map: ByBits<f64>,
    /// Share of queries whose code is not that of the unchanged image.
    pub changed: ByBits<f64>,
}

impl Attacks {
    /// Writes the numbers and everything made from them into `folder`, which it creates if
    /// necessary, and returns the paths. `pictures` is a sheet of queries and what they find.
    ///
    /// # Errors
    /// [`Error::Io`] names the file.
    pub fn write(&self, folder: impl AsRef<Path>, pictures: Option<String>) -> Result<Vec<PathBuf>, Error> {
        let pictures = pictures.map(|svg| (QUERIES.to_owned(), svg));
        let made = pictures.into_iter().chain(self.render()).collect();
        files::write_numbers(folder.as_ref(), self, made)
    }

    /// Reads the numbers in `folder`.
    pub(crate) fn read(folder: &Path) -> Result<Self, Error> {
        files::read(&folder.join(RESULTS))
    }

    /// Returns the title and the table of mAP, for a terminal.
    pub fn summary(&self) -> String {
        format!("{}\n\n{}\n", self.title(), self.table("mAP", |ranked| &ranked.map))
    }

    pub(crate) fn render(&self) -> Files {
        vec![("results.md".to_owned(), self.page())]
    }

    fn title(&self) -> String {
        let Attacked { dataset, queries, gallery, .. } = &self.attacks[0];
        format!("Adversarial queries: {dataset}, {queries} queries, {gallery} items")
    }

    fn page(&self) -> String {
        let first = &self.attacks[0];
        let Attacked { network, other, steps, map_rule, .. } = first;
        let mut about = format!(
            "Each query was changed by at most ε per pixel so that it finds something else; the gallery is untouched. \
             {steps} steps along the signs of the gradient, from a random start within ε. Noise moves each pixel by ε up or \
             down at random. `docs/robustness.md` says what to do about it.\n\nThe network: {network}."
        );
        if let Some(other) = other {
            about += &format!(" The other model, whose gradients attack as a stranger would: {other}.");
        }
        let blocks = [
            Block::Text(about),
            Block::Table(self.table("mAP", |ranked| &ranked.map), format!("Mean average precision: {map_rule}.")),
            Block::Table(
                self.table("codes changed", |ranked| &ranked.changed),
                "Share of queries whose code is no longer that of the unchanged image.".to_owned(),
            ),
            Block::Figure(
                QUERIES,
                "Queries before and after the first attack of the table, the difference below, and what both find. \
                 Underlined items share the class of the query."
                    .to_owned(),
            ),
            Block::Heading("How it was measured".into()),
            Block::List(vec![
                format!("{}; {:.0} queries attacked per second", self.commit, first.images_per_second),
                format!("Machine: {}", self.machine),
            ]),
        ];
        markdown(&self.title(), &blocks)
    }

    /// A row for each set of queries. Sets that several attacks share have one row.
    fn table(&self, name: &str, numbers: impl Fn(&Ranked) -> &ByBits<f64>) -> Table {
        let mut rows: Vec<Vec<String>> = Vec::new();
        for attack in &self.attacks {
            let Attacked { loss, epsilon, level, .. } = attack;
            let size = format!("ε {epsilon}/255");
            let level = level.map_or(String::new(), |level| format!(", level {level} alone"));
            for (set, text) in [
                ("clean", "as they are".to_owned()),
                ("noise", format!("noise, {size}")),
                ("attacked", format!("{loss}, {size}{level}")),
                ("transferred", format!("{loss}, {size}{level}, by the other model")),
            ] {
                let Some(ranked) = attack.ranked.get(set) else { continue };
                let cells = numbers(ranked).values().map(|value| format!("{value:.4}"));
                let row = line(&text, cells);
                if !rows.contains(&row) {
                    rows.push(row);
                }
            }
        }
        let bits = self.attacks[0].ranked.values().next().into_iter().flat_map(|ranked| ranked.map.keys());
        Table::new(name, bits.map(|bits| format!("{bits} bits")), rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_have_all_numbers_once() {
        let json = r#"{"dataset":"d","network":"n","other":"o","queries":2,"gallery":9,"loss":"aod","epsilon":8,"steps":5,
            "level":null,"map_rule":"r","images_per_second":3.0,"ranked":{
            "clean":{"map":{"8":0.9,"16":0.95},"changed":{"8":0.0,"16":0.0}},
            "noise":{"map":{"8":0.85,"16":0.875},"changed":{"8":0.25,"16":0.5}},
            "transferred":{"map":{"8":0.6,"16":0.625},"changed":{"8":0.5,"16":0.75}},
            "attacked":{"map":{"8":0.125,"16":0.0625},"changed":{"8":0.75,"16":1.0}}}}"#;
        let first: Attacked = serde_json::from_str(json).unwrap();
        let mut second = Attacked { level: Some(1), ..first.clone() };
        second.ranked.remove("transferred");
        let machine = Machine { cpu: "c".to_owned(), cores: 2, system: "s".to_owned() };
        let attacks = Attacks { commit: "abc".to_owned(), machine, attacks: vec![first, second] };
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(attacks.write(dir.path(), Some("<svg/>".to_owned())).unwrap().len(), 3);
        let again = Attacks::read(dir.path()).unwrap();
        assert_eq!(again.render(), attacks.render());
        let [(_, page)] = &attacks.render()[..] else { panic!("one file") };
        for row in [
            "| mAP                            | 8 bits | 16 bits |",
            "| as they are                    | 0.9000 |  0.9500 |",
            "| aod, ε 8/255, level 1 alone    | 0.1250 |  0.0625 |",
            "| aod, ε 8/255, by the other model | 0.6000 |  0.6250 |",
        ] {
            let cells = |line: &str| line.split('|').map(str::trim).map(str::to_owned).collect::<Vec<_>>();
            assert!(page.lines().any(|line| cells(line) == cells(row)), "{row}\n{page}");
        }
        assert_eq!(page.matches("as they are").count(), 2, "{page}");
    }
}
