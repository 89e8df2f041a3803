//! Views: random changes of an image that keep what it shows, for training without labels.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use crate::image_file::resize_planes;
use crate::{Error, ImageShape};

/// The stream of random numbers that views use (docs/architecture.md).
const STREAM: u64 = 7;

/// The weights of red, green and blue in the luma of a pixel (ITU-R BT.601).
const LUMA: [f32; 3] = [0.299, 0.587, 0.114];

/// A random view of an image, decided by a seed: a crop that is resized, then other colours, then a
/// blur. Mirror images are the work of [`Augment`](crate::Augment).
///
/// Source: SimCLR (Chen et al., 2020), in the milder form that MeCoQ uses (docs/deviations.md).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct View {
    /// The minimum share of the area that a crop keeps, from 0 to 1; 1 for no crop. Its sides have
    /// a ratio from 3/4 to 4/3.
    pub crop: f32,
    /// The maximum change of brightness, contrast and saturation, from 0 to 1; hue turns by at most
    /// a quarter of it, where 1 is the whole circle of colours.
    pub jitter: f32,
    /// The probability of changes of colour, from 0 to 1.
    pub jitter_probability: f32,
    /// The probability that all colour goes, from 0 to 1.
    pub grey: f32,
    /// The probability of a blur over 3×3 pixels, from 0 to 1.
    pub blur: f32,
}

/// The random choices of a view.
struct Choices {
    /// Left, top, width and height in pixels.
    part: Option<[f64; 4]>,
    /// Factors of brightness, contrast and saturation, and an angle in radians.
    colours: Option<[f32; 4]>,
    is_grey: bool,
    /// The standard deviation of the blur in pixels.
    sigma: Option<f32>,
}

impl View {
    /// Changes an image `[C, H, W]` as `seed` decides.
    ///
    /// # Errors
    /// [`Error::BufferLength`] if `image` does not have the length of `shape`,
    /// [`Error::ImpossibleShape`] for a shape that no image has.
    pub fn apply(&self, shape: ImageShape, image: &mut [u8], seed: u64) -> Result<(), Error> {
        let shape = shape.check()?;
        shape.check_buffer(image)?;
        let Choices { part, colours, is_grey, sigma } = self.choices(shape, seed);
        if part.is_some() {
            let whole = image.to_vec();
            resize_planes(&whole, shape, part, image, shape);
        }
        if colours.is_none() && !is_grey && sigma.is_none() {
            return Ok(());
        }
        let plane = shape.height * shape.width;
        // A gray image has three equal colours, which all of this leaves equal.
        let value = |at: usize, channel: usize| f32::from(image[channel % shape.channels * plane + at]);
        let mut pixels: Vec<Pixel> =
            (0..plane).map(|at| [value(at, 0), value(at, 1), value(at, 2)]).collect();
        if let Some([brightness, contrast, saturation, angle]) = colours {
            for_each(&mut pixels, |x| x * brightness);
            let mean = pixels.iter().map(|&pixel| luma(pixel)).sum::<f32>() / plane as f32;
            for_each(&mut pixels, |x| mean + (x - mean) * contrast);
            pixels.iter_mut().for_each(|pixel| *pixel = turned(*pixel, saturation, angle));
            for_each(&mut pixels, |x| x);
        }
        if is_grey {
            pixels.iter_mut().for_each(|pixel| *pixel = [luma(*pixel); 3]);
        }
        if let Some(sigma) = sigma {
            pixels = blurred(&pixels, shape.width, sigma);
        }
        for (channel, out) in image.chunks_exact_mut(plane).enumerate() {
            out.iter_mut().zip(&pixels).for_each(|(out, pixel)| *out = pixel[channel].round() as u8);
        }
        Ok(())
    }

    /// Draws every number whether it is used or not, so that one setting does not change what
    /// another one draws.
    fn choices(&self, shape: ImageShape, seed: u64) -> Choices {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(STREAM);
        let mut uniform = || (rng.next_u32() >> 8) as f32 / (1 << 24) as f32;
        let area = self.crop + (1.0 - self.crop) * uniform();
        let ratio = ((2.0 * uniform() - 1.0) * (4.0f32 / 3.0).ln()).exp();
        let side = |length: usize, ratio: f32| {
            (length as f64 * f64::from((area * ratio).sqrt())).clamp(1.0, length as f64)
        };
        let (width, height) = (side(shape.width, ratio), side(shape.height, 1.0 / ratio));
        let left = (shape.width as f64 - width) * f64::from(uniform());
        let top = (shape.height as f64 - height) * f64::from(uniform());
        let has_jitter = uniform() < self.jitter_probability;
        let mut change = || (2.0 * uniform() - 1.0) * self.jitter;
        let [brightness, contrast, saturation] = [1.0 + change(), 1.0 + change(), 1.0 + change()];
        let angle = change() / 4.0 * std::f32::consts::TAU;
        let is_grey = uniform() < self.grey;
        let has_blur = uniform() < self.blur;
        let sigma = 0.1 + 1.9 * uniform();
        Choices {
            part: (self.crop < 1.0).then_some([left, top, width, height]),
            colours: has_jitter.then_some([brightness, contrast, saturation, angle]),
            is_grey,
            sigma: has_blur.then_some(sigma),
        }
    }
}

/// Red, green and blue, from 0 to 255.
type Pixel = [f32; 3];

/// Changes each colour of each pixel, and ends what leaves the range.
fn for_each(pixels: &mut [Pixel], change: impl Fn(f32) -> f32) {
    pixels.iter_mut().flatten().for_each(|x| *x = change(*x).clamp(0.0, 255.0));
}

fn luma(pixel: Pixel) -> f32 {
    pixel.iter().zip(LUMA).map(|(x, weight)| x * weight).sum()
}

/// Turns the colour of a pixel around the gray axis and scales its distance from gray, at the same
/// luma.
fn turned(pixel: Pixel, saturation: f32, angle: f32) -> Pixel {
    let [r, g, b] = pixel;
    let mean = (r + g + b) / 3.0;
    let (sin, cos) = angle.sin_cos();
    // Rodrigues' formula for the axis (1, 1, 1).
    let (across, y) = ([b - g, r - b, g - r].map(|x| x / 3.0f32.sqrt()), luma(pixel));
    let turned: Pixel = std::array::from_fn(|i| mean + (pixel[i] - mean) * cos + across[i] * sin);
    let shift = luma(turned);
    turned.map(|x| y + saturation * (x - shift))
}

/// Blurs rows, then columns, by a Gaussian over three pixels; the border repeats.
fn blurred(pixels: &[Pixel], width: usize, sigma: f32) -> Vec<Pixel> {
    let side = (-0.5 / (sigma * sigma)).exp();
    let [side, middle] = [side, 1.0].map(|weight| weight / (1.0 + 2.0 * side));
    let mix = |a: Pixel, b: Pixel, c: Pixel| std::array::from_fn(|i| side * (a[i] + c[i]) + middle * b[i]);
    let height = pixels.len() / width;
    let rows: Vec<Pixel> = (0..pixels.len())
        .map(|at| {
            let (row, x) = (at - at % width, at % width);
            mix(pixels[row + x.saturating_sub(1)], pixels[at], pixels[row + (x + 1).min(width - 1)])
        })
        .collect();
    let at = |y: usize, x: usize| rows[y * width + x];
    (0..rows.len())
        .map(|i| {
            let (y, x) = (i / width, i % width);
            mix(at(y.saturating_sub(1), x), at(y, x), at((y + 1).min(height - 1), x))
        })
        .collect()
}

#[cfg(test)]
mod tests;
