//! Calls under Heston's model: grids against the characteristic function.
//!
//! Prints |price − exact price| for nine strikes, two parameter sets, three schemes of the variance
//! and several numbers of steps and points. `--quick` takes small grids, and `--json` prints one
//! JSON object.

use std::error::Error;
use std::time::Instant;

use dpq_rmq::{Chain, Heston, Settings, Update};

const RATE: f64 = 0.04;
const STRIKES: [f64; 9] = [80.0, 85.0, 90.0, 95.0, 100.0, 105.0, 110.0, 115.0, 120.0];

/// A parameter set, its first variance, and its calls at [`STRIKES`] by the characteristic
/// function. Set B lets the variance reach 0: 2 κ θ / σ² is 0.3, less than 1.
const SETS: [(&str, Heston, f64, [f64; 9]); 2] = [
    (
        "A",
        Heston { rate: RATE, reversion: 2.3924, mean: 0.0929, volatility: 0.6903, correlation: -0.82 },
        0.0719,
        [26.390253, 22.606302, 19.050205, 15.752345, 12.742658, 10.048892, 7.694231, 5.694283, 4.053648],
    ),
    (
        "B",
        Heston { rate: RATE, reversion: 0.1269, mean: 0.1922, volatility: 0.4058, correlation: -0.925 },
        0.0319,
        [24.919781, 20.751032, 16.754682, 12.968245, 9.440628, 6.243579, 3.501707, 1.456485, 0.404693],
    ),
];

const SCHEMES: [(&str, Update); 3] =
    [("Euler", Update::Euler), ("Milstein", Update::Milstein), ("weak order 2", Update::WeakOrder2)];

const QUICK: [(usize, [usize; 2]); 2] = [(5, [10, 5]), (5, [20, 10])];

const GRIDS: [(usize, [usize; 2]); 7] = [
    (5, [20, 10]),
    (10, [20, 10]),
    (20, [20, 10]),
    (5, [40, 20]),
    (10, [40, 20]),
    (20, [40, 20]),
    (10, [60, 30]),
];

fn main() -> Result<(), Box<dyn Error>> {
    let has = |flag: &str| std::env::args().any(|argument| argument == flag);
    let (json, grids) = (has("--json"), if has("--quick") { &QUICK[..] } else { &GRIDS });
    let mut rows = Vec::new();
    if !json {
        println!(
            "The price moves by Euler's scheme. The exact prices are those of the characteristic function."
        );
        let strikes: String = STRIKES.iter().map(|strike| format!("{strike:>8}")).collect();
        println!("set  variance by    steps  prices×variances{strikes}  seconds");
    }
    for (set, model, variance, expected) in SETS {
        for (scheme, update) in SCHEMES {
            for &(steps, points) in grids {
                let settings =
                    Settings { updates: [Update::Euler, update], ..Settings::new(1.0, steps, points) };
                let clock = Instant::now();
                let chain = Chain::new(&model, [100.0, variance], &settings)?;
                let seconds = clock.elapsed().as_secs_f64();
                let price = |strike: f64| chain.european(RATE, |state| (state[0] - strike).max(0.0));
                let errors: Vec<f64> =
                    STRIKES.iter().zip(expected).map(|(&strike, exact)| price(strike) - exact).collect();
                let [prices, variances] = points;
                if json {
                    rows.push(format!(
                        "{{\"set\":\"{set}\",\"scheme\":\"{scheme}\",\"steps\":{steps},\"prices\":{prices},\
                         \"variances\":{variances},\"errors\":{errors:?}}}"
                    ));
                } else {
                    let errors: String = errors.iter().map(|error| format!("{:8.4}", error.abs())).collect();
                    let grid = format!("{prices}×{variances}");
                    println!("{set:<4} {scheme:<13} {steps:>6}  {grid:>16}{errors} {seconds:8.3}");
                }
            }
        }
    }
    if json {
        println!("{{\"strikes\":{STRIKES:?},\"rows\":[\n{}\n]}}", rows.join(",\n"));
    }
    Ok(())
}
