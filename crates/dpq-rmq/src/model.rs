//! Models: a drift and a diffusion per variable.

use crate::update::Coefficients;

/// A diffusion of D variables, driven by D Brownian motions that correlate.
pub trait Model<const D: usize>: Sync {
    /// Returns drift and diffusion of each variable in a state, with derivatives by that variable.
    ///
    /// A grid may hold states a little outside the model's domain, as a negative variance.
    fn coefficients(&self, state: &[f64; D]) -> [Coefficients; D];

    /// Returns the correlations of the Brownian motions, independent ones by default.
    fn correlation(&self) -> [[f64; D]; D] {
        std::array::from_fn(|f| std::array::from_fn(|g| f64::from(u8::from(f == g))))
    }
}

/// Geometric Brownian motion, dS = r S dt + σ S dW.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Gbm {
    /// r.
    pub rate: f64,
    /// σ.
    pub volatility: f64,
}

impl Model<1> for Gbm {
    fn coefficients(&self, &[s]: &[f64; 1]) -> [Coefficients; 1] {
        [Coefficients { drift: linear(self.rate, s), diffusion: linear(self.volatility, s) }]
    }
}

/// Constant elasticity of variance, dS = r S dt + σ S^β dW. A negative price has no diffusion.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cev {
    /// r.
    pub rate: f64,
    /// σ.
    pub volatility: f64,
    /// β.
    pub elasticity: f64,
}

impl Model<1> for Cev {
    fn coefficients(&self, &[s]: &[f64; 1]) -> [Coefficients; 1] {
        [Coefficients { drift: linear(self.rate, s), diffusion: power(self.volatility, s, self.elasticity) }]
    }
}

/// Heston's model, dS = r S dt + √v S dW, dv = κ (θ − v) dt + σ √v dB. The state is \[S, v\].
///
/// A negative variance counts as 0, but still returns to θ.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Heston {
    /// r.
    pub rate: f64,
    /// κ.
    pub reversion: f64,
    /// θ.
    pub mean: f64,
    /// σ.
    pub volatility: f64,
    /// The correlation of W and B.
    pub correlation: f64,
}

impl Model<2> for Heston {
    fn coefficients(&self, &[s, v]: &[f64; 2]) -> [Coefficients; 2] {
        [
            Coefficients { drift: linear(self.rate, s), diffusion: linear(v.max(0.0).sqrt(), s) },
            Coefficients {
                drift: [self.reversion * (self.mean - v), -self.reversion, 0.0],
                diffusion: power(self.volatility, v, 0.5),
            },
        ]
    }

    fn correlation(&self) -> [[f64; 2]; 2] {
        pair(self.correlation)
    }
}

/// SABR, dF = α F^β dW, dα = ν α dB. The state is \[F, α\]. A negative price has no diffusion.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sabr {
    /// β.
    pub elasticity: f64,
    /// ν.
    pub volatility: f64,
    /// The correlation of W and B.
    pub correlation: f64,
}

impl Model<2> for Sabr {
    fn coefficients(&self, &[f, alpha]: &[f64; 2]) -> [Coefficients; 2] {
        [
            Coefficients { drift: [0.0; 3], diffusion: power(alpha, f, self.elasticity) },
            Coefficients { drift: [0.0; 3], diffusion: linear(self.volatility, alpha) },
        ]
    }

    fn correlation(&self) -> [[f64; 2]; 2] {
        pair(self.correlation)
    }
}

/// Stein and Stein's model, dS = r S dt + v S dW, dv = κ (θ − v) dt + σ dB. The state is \[S, v\].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SteinStein {
    /// r.
    pub rate: f64,
    /// κ.
    pub reversion: f64,
    /// θ.
    pub mean: f64,
    /// σ.
    pub volatility: f64,
    /// The correlation of W and B.
    pub correlation: f64,
}

impl Model<2> for SteinStein {
    fn coefficients(&self, &[s, v]: &[f64; 2]) -> [Coefficients; 2] {
        [
            Coefficients { drift: linear(self.rate, s), diffusion: linear(v, s) },
            Coefficients {
                drift: [self.reversion * (self.mean - v), -self.reversion, 0.0],
                diffusion: [self.volatility, 0.0, 0.0],
            },
        ]
    }

    fn correlation(&self) -> [[f64; 2]; 2] {
        pair(self.correlation)
    }
}

/// The 3/2 model, dS = r S dt + √v S dW, dv = κ v (θ − v) dt + σ v^1.5 dB. The state is \[S, v\].
///
/// A negative variance counts as 0 and stays.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ThreeHalves {
    /// r.
    pub rate: f64,
    /// κ.
    pub reversion: f64,
    /// θ.
    pub mean: f64,
    /// σ.
    pub volatility: f64,
    /// The correlation of W and B.
    pub correlation: f64,
}

impl Model<2> for ThreeHalves {
    fn coefficients(&self, &[s, v]: &[f64; 2]) -> [Coefficients; 2] {
        let v = v.max(0.0);
        let (k, mean) = (self.reversion, self.mean);
        [
            Coefficients { drift: linear(self.rate, s), diffusion: linear(v.sqrt(), s) },
            Coefficients {
                drift: [k * v * (mean - v), k * (mean - 2.0 * v), -2.0 * k],
                diffusion: power(self.volatility, v, 1.5),
            },
        ]
    }

    fn correlation(&self) -> [[f64; 2]; 2] {
        pair(self.correlation)
    }
}

/// Returns `factor x` and its derivatives.
fn linear(factor: f64, x: f64) -> [f64; 3] {
    [factor * x, factor, 0.0]
}

/// Returns `factor x^exponent` and its derivatives, all 0 where x is not positive.
fn power(factor: f64, x: f64, exponent: f64) -> [f64; 3] {
    if x <= 0.0 {
        return [0.0; 3];
    }
    let value = factor * x.powf(exponent);
    let first = exponent * value / x;
    [value, first, (exponent - 1.0) * first / x]
}

fn pair(correlation: f64) -> [[f64; 2]; 2] {
    [[1.0, correlation], [correlation, 1.0]]
}
