//! The report about grids of stochastic differential equations, from what the examples of `dpq-rmq`
//! print.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::Error;
use crate::document::{Block, markdown, measured};
use crate::files::{self, Files, RESULTS};
use crate::plot::{Axis, Chart, Curve, range};
use crate::results::Machine;
use crate::table::{Table, line};

/// The folder name of the report in `docs/results`.
pub const NAME: &str = "rmq";

const FIGURE: &str = "convergence.svg";

/// The numbers of the report.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Grids {
    /// The commit of the repository, ending in `-dirty` if a relevant file differs from it.
    pub commit: String,
    /// The computer.
    pub machine: Machine,
    /// Geometric Brownian motion.
    pub gbm: Gbm,
    /// Heston's model.
    pub heston: Heston,
}

/// Calls on geometric Brownian motion, and the cost of the solvers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Gbm {
    rows: Vec<GbmRow>,
    sweeps: Vec<Sweeps>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct GbmRow {
    scheme: String,
    steps: u32,
    points: u32,
    /// The largest error over the strikes.
    error: f64,
}

/// The grids that each solver measures.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Sweeps {
    points: u32,
    lloyd: u32,
    anderson: u32,
    newton: u32,
}

/// Calls under Heston's model.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Heston {
    strikes: Vec<f64>,
    rows: Vec<HestonRow>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct HestonRow {
    set: String,
    scheme: String,
    steps: u32,
    prices: u32,
    variances: u32,
    /// Price less exact price, by strike.
    errors: Vec<f64>,
}

impl Grids {
    /// Writes the numbers and everything made from them into `folder`, which it creates if
    /// necessary, and returns the paths.
    ///
    /// # Errors
    /// [`Error::Io`] names the file.
    pub fn write(&self, folder: impl AsRef<Path>) -> Result<Vec<PathBuf>, Error> {
        files::write_numbers(folder.as_ref(), self, self.render())
    }

    /// Reads the numbers in `folder`.
    pub(crate) fn read(folder: &Path) -> Result<Self, Error> {
        files::read(&folder.join(RESULTS))
    }

    pub(crate) fn render(&self) -> Files {
        vec![("results.md".to_owned(), self.page()), (FIGURE.to_owned(), self.figure())]
    }

    fn page(&self) -> String {
        let sweeps = self.gbm.sweeps.iter().map(|row| {
            line(&row.points.to_string(), [row.lloyd, row.anderson, row.newton].map(|n| n.to_string()))
        });
        let sweeps = Table::new("points", ["Lloyd", "Anderson", "Newton (default)"], sweeps);
        let mut blocks = vec![
            Block::Text(
                "`dpq-rmq` turns a diffusion into a Markov chain on optimal grids and prices options on it. \
                 [The page about it](../../rmq.md) explains the method and what is assumed."
                    .to_owned(),
            ),
            Block::Heading("Geometric Brownian motion".into()),
            Block::Figure(
                FIGURE,
                "Convergence: the largest error of five calls (strikes 80 to 120) against Black and Scholes, r = 0.04, \
                 σ = 0.3, one year. The error falls until that of the scheme is left."
                    .to_owned(),
            ),
            Block::Table(
                sweeps,
                "Grids measured until no point moves by more than 1e-9 standard deviations, sum over ten steps by \
                 Euler's scheme. One grid costs the same for each solver."
                    .to_owned(),
            ),
            Block::Heading("Heston's model".into()),
            Block::Text(
                "|price − exact price| of calls on a price of 100 in one year, r = 0.04. The price moves by Euler's \
                 scheme, the variance by the scheme named. Exact prices integrate the characteristic function. Set A: \
                 κ = 2.3924, θ = 0.0929, σ = 0.6903, ρ = −0.82, v₀ = 0.0719. Set B: κ = 0.1269, θ = 0.1922, \
                 σ = 0.4058, ρ = −0.925, v₀ = 0.0319; its variance may reach 0 (2κθ/σ² = 0.3)."
                    .to_owned(),
            ),
        ];
        let mut sets: BTreeMap<&str, Vec<Vec<String>>> = BTreeMap::new();
        for row in &self.heston.rows {
            let HestonRow { set, scheme, steps, prices, variances, errors } = row;
            let cells = [steps.to_string(), format!("{prices}×{variances}")].into_iter();
            let cells = cells.chain(errors.iter().map(|error| format!("{:.3}", error.abs())));
            sets.entry(set).or_default().push(line(scheme, cells));
        }
        for (set, rows) in sets {
            let strikes = self.heston.strikes.iter().map(|strike| strike.to_string());
            let header = ["steps", "points"].map(str::to_owned).into_iter().chain(strikes);
            blocks.push(Block::Table(Table::new(&format!("set {set}"), header, rows), String::new()));
        }
        let command = "cargo xtask reproduce-paper --system rmq --write-docs";
        blocks.extend(measured(command, &self.commit, &self.machine));
        markdown("Grids of stochastic differential equations", &blocks)
    }

    fn figure(&self) -> String {
        let mut curves: Vec<(String, Vec<[f64; 2]>)> = Vec::new();
        for GbmRow { scheme, steps, points, error } in &self.gbm.rows {
            let name = format!("{scheme}, {steps} steps");
            if curves.last().is_none_or(|(last, _)| *last != name) {
                curves.push((name, Vec::new()));
            }
            curves.last_mut().expect("a curve").1.push([f64::from(*points), *error]);
        }
        let curves: Vec<Curve> = curves
            .into_iter()
            .enumerate()
            .map(|(i, (name, points))| Curve::new(name, points, 1 + i))
            .collect();
        let along = |k: usize| range(curves.iter().flat_map(|curve| &curve.points).map(|point| point[k]));
        Chart {
            title: "Error by points of a grid".to_owned(),
            x: Axis::logarithmic("points", along(0)),
            y: Axis::logarithmic("largest error of five calls", along(1)),
            curves,
        }
        .svg()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_have_all_numbers() {
        let json = r#"{"commit":"abc","machine":{"cpu":"c","cores":2,"system":"s"},
            "gbm":{"rows":[{"scheme":"Euler","steps":10,"points":10,"error":0.5},
                {"scheme":"Euler","steps":10,"points":20,"error":0.125}],
                "sweeps":[{"points":10,"lloyd":5956,"anderson":146,"newton":62}]},
            "heston":{"strikes":[80.0,85.0],"rows":[
                {"set":"A","scheme":"Milstein","steps":5,"prices":20,"variances":10,"errors":[0.25,-0.75]},
                {"set":"B","scheme":"Euler","steps":5,"prices":20,"variances":10,"errors":[-0.5,0.125]}]}}"#;
        let grids: Grids = serde_json::from_str(json).unwrap();
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(grids.write(dir.path()).unwrap().len(), 3);
        let again = Grids::read(dir.path()).unwrap();
        assert_eq!(again.render(), grids.render());
        let [(_, page), (_, figure)] = &grids.render()[..] else { panic!("two files") };
        assert!(page.contains("| 10     |  5956 |      146 |               62 |"), "{page}");
        assert!(page.contains("| Milstein |     5 |  20×10 | 0.250 | 0.750 |"), "{page}");
        assert!(figure.contains("Euler, 10 steps") && figure.matches("<circle").count() == 2, "{figure}");
    }
}
