//! Early exercise and barriers, against integrals over Euler's scheme of two steps.

use crate::{GBM, RATE, assert_close, call, gbm, put};

/// Returns the mean payoff of the last step from x. Steps have length ½.
fn last_step(x: f64, payoff: impl Fn(f64) -> f64) -> f64 {
    integral(|z| payoff(euler(x, z)))
}

fn euler(x: f64, z: f64) -> f64 {
    x * (1.0 + 0.5 * GBM.rate + 0.5_f64.sqrt() * GBM.volatility * z)
}

fn integral(of: impl Fn(f64) -> f64) -> f64 {
    let (n, width) = (2000, 0.008);
    let node = |i: i32| -8.0 + (f64::from(i) + 0.5) * width;
    (0..n).map(node).map(|z| of(z) * (-0.5 * z * z).exp()).sum::<f64>() * width / std::f64::consts::TAU.sqrt()
}

#[test]
fn two_steps_equal_integrals() {
    let chain = gbm(2, 150);
    let discount = (-0.5 * RATE).exp();
    let bermudan = discount
        * integral(|z| {
            let x = euler(100.0, z);
            (105.0 - x).max(discount * last_step(x, |x| (105.0 - x).max(0.0)))
        });
    assert_close(chain.bermudan(RATE, put(105.0)), bermudan, 2e-3);
    let alive = |x: f64| x > 90.0;
    let barrier = discount
        * integral(|z| {
            let x = euler(100.0, z);
            let hold = |x| if alive(x) { (x - 95.0).max(0.0) } else { 0.0 };
            if alive(x) { discount * last_step(x, hold) } else { 0.0 }
        });
    // Half the mass of a cell that the barrier cuts is on the wrong side.
    assert_close(chain.barrier(RATE, |state| alive(state[0]), call(95.0)), barrier, 0.05);
}

#[test]
fn rights_have_a_price_and_barriers_take_one() {
    let chain = gbm(10, 40);
    for strike in [80.0, 100.0, 120.0] {
        let european = chain.european(RATE, put(strike));
        let bermudan = chain.bermudan(RATE, put(strike));
        assert!(bermudan > european + 0.05, "{bermudan} {european}");
        // Without dividends a call is not exercised early, but for the error of grid and scheme.
        let early = chain.bermudan(RATE, call(strike)) - chain.european(RATE, call(strike));
        assert!((0.0..0.02).contains(&early), "{early}");
        let out = |level: f64| chain.barrier(RATE, move |state| state[0] > level, call(strike));
        assert!(out(95.0) < out(85.0) && out(85.0) < chain.european(RATE, call(strike)));
        assert_eq!(out(0.0), chain.european(RATE, call(strike)));
    }
}
