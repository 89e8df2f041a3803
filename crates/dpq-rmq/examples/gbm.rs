//! Calls on geometric Brownian motion: grids against Black and Scholes, and solvers against each
//! other.
//!
//! Prints the largest error over five strikes by scheme, steps and points, and how many grids each
//! solver measures in ten steps. `--quick` takes fewer points, and `--json` prints one JSON object.

use std::error::Error;

use dpq_rmq::{Chain, Gbm, Settings, Solver, Update};

const MODEL: Gbm = Gbm { rate: 0.04, volatility: 0.3 };

/// Strikes and calls by Black and Scholes.
const CALLS: [(f64, f64); 5] =
    [(80.0, 25.872052), (90.0, 19.149138), (100.0, 13.753265), (110.0, 9.625358), (120.0, 6.592325)];

const CURVES: [(&str, Update, usize); 4] = [
    ("Euler", Update::Euler, 10),
    ("Euler", Update::Euler, 40),
    ("Milstein", Update::Milstein, 10),
    ("weak order 2", Update::WeakOrder2, 10),
];

fn main() -> Result<(), Box<dyn Error>> {
    let has = |flag: &str| std::env::args().any(|argument| argument == flag);
    let quick = has("--quick");
    let points = if quick { &[10, 20, 40][..] } else { &[10, 20, 40, 80, 160] };
    let mut rows = Vec::new();
    for (scheme, update, steps) in CURVES {
        for &points in points {
            let chain = Chain::new(
                &MODEL,
                [100.0],
                &Settings { updates: [update], ..Settings::new(1.0, steps, [points]) },
            )?;
            let price = |strike: f64| chain.european(MODEL.rate, |state| (state[0] - strike).max(0.0));
            let errors = CALLS.map(|(strike, exact)| (price(strike) - exact).abs());
            rows.push((scheme, steps, points, errors.into_iter().fold(0.0, f64::max)));
        }
    }
    let mut sweeps = Vec::new();
    for points in [10, 20, 30, 40].into_iter().take(if quick { 2 } else { 4 }) {
        let mut counts = [0; 3];
        for (count, solver) in counts.iter_mut().zip([Solver::Lloyd, Solver::Anderson, Solver::Newton]) {
            let settings = Settings { solver, max_sweeps: 100_000, ..Settings::new(1.0, 10, [points]) };
            let chain = Chain::new(&MODEL, [100.0], &settings)?;
            *count = chain.searches().iter().map(|search| search[0].sweeps).sum::<usize>();
        }
        sweeps.push((points, counts));
    }
    if has("--json") {
        let row = |(scheme, steps, points, error): &(&str, usize, usize, f64)| {
            format!("{{\"scheme\":\"{scheme}\",\"steps\":{steps},\"points\":{points},\"error\":{error}}}")
        };
        let rows: Vec<String> = rows.iter().map(row).collect();
        let sweep = |(points, [lloyd, anderson, newton]): &(usize, [usize; 3])| {
            format!("{{\"points\":{points},\"lloyd\":{lloyd},\"anderson\":{anderson},\"newton\":{newton}}}")
        };
        let sweeps: Vec<String> = sweeps.iter().map(sweep).collect();
        println!("{{\"rows\":[\n{}\n],\"sweeps\":[\n{}\n]}}", rows.join(",\n"), sweeps.join(",\n"));
        return Ok(());
    }
    println!("scheme         steps  points  largest error");
    for (scheme, steps, points, error) in rows {
        println!("{scheme:<13} {steps:>6}  {points:>6}  {error:>13.4}");
    }
    println!("\ngrids measured in ten steps\npoints    Lloyd  Anderson  Newton");
    for (points, [lloyd, anderson, newton]) in sweeps {
        println!("{points:>6} {lloyd:>8} {anderson:>9} {newton:>7}");
    }
    Ok(())
}
