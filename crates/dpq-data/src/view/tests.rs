//! Each operation against a small reference, and what a seed decides.

use rayon::prelude::*;

use super::*;

const SHAPE: ImageShape = ImageShape { channels: 3, height: 12, width: 16 };
const NONE: View = View { crop: 1.0, jitter: 0.0, jitter_probability: 0.0, grey: 0.0, blur: 0.0 };
const ALL: View = View { crop: 0.5, jitter: 0.4, jitter_probability: 0.7, grey: 0.2, blur: 0.5 };

/// Smooth colours away from 0 and 255.
fn image(shape: ImageShape) -> Vec<u8> {
    let value = |channel: usize, y: usize, x: usize| {
        let angle = (channel * 2 + 1) as f32 * (y as f32 / 5.0 + x as f32 / 7.0);
        (128.0 + 40.0 * angle.sin()) as u8
    };
    (0..shape.len())
        .map(|i| value(i / (shape.height * shape.width), i / shape.width % shape.height, i % shape.width))
        .collect()
}

fn apply(view: View, seed: u64) -> Vec<u8> {
    let mut image = image(SHAPE);
    view.apply(SHAPE, &mut image, seed).unwrap();
    image
}

#[track_caller]
fn assert_near(found: &[u8], expected: impl Fn(usize, usize, usize) -> f32, tolerance: f32) {
    for (i, &found) in found.iter().enumerate() {
        let (channel, y, x) = (i / 192, i / 16 % 12, i % 16);
        let expected = expected(channel, y, x);
        let difference = (f32::from(found) - expected).abs();
        assert!(difference <= tolerance, "{channel} {y} {x}: found {found}, expected {expected}");
    }
}

fn at(image: &[u8], channel: usize, y: usize, x: usize) -> f32 {
    f32::from(image[(channel * 12 + y) * 16 + x])
}

#[test]
fn no_view_changes_nothing() {
    (0..20).for_each(|seed| assert_eq!(apply(NONE, seed), image(SHAPE)));
    // Changes of colour by nothing change nothing either.
    let still = View { jitter_probability: 1.0, ..NONE };
    (0..20).for_each(|seed| assert_eq!(apply(still, seed), image(SHAPE)));
}

/// The crop is the Catmull-Rom interpolation of its part of the image.
#[test]
fn crops_are_interpolated_and_keep_their_share() {
    let kernel = |x: f64| match x.abs() {
        x if x < 1.0 => 1.5 * x * x * x - 2.5 * x * x + 1.0,
        x if x < 2.0 => -0.5 * x * x * x + 2.5 * x * x - 4.0 * x + 2.0,
        _ => 0.0,
    };
    // The weights of the pixels of a row or column for a pixel of the result.
    let weights = |first: f64, length: f64, to: usize, n: usize| -> Vec<f64> {
        let centre = first + (to as f64 + 0.5) * length / n as f64;
        let weights: Vec<f64> = (0..n).map(|i| kernel(i as f64 + 0.5 - centre)).collect();
        let sum: f64 = weights.iter().sum();
        weights.into_iter().map(|weight| weight / sum).collect()
    };
    let (view, original) = (View { crop: 0.5, ..NONE }, image(SHAPE));
    let mut areas = Vec::new();
    for seed in 0..60 {
        let [left, top, width, height] = view.choices(SHAPE, seed).part.unwrap();
        assert!(left >= 0.0 && top >= 0.0 && left + width <= 16.0 && top + height <= 12.0);
        areas.push(width * height / 192.0);
        let expected = |channel: usize, y: usize, x: usize| {
            let (rows, columns) = (weights(top, height, y, 12), weights(left, width, x, 16));
            let of_row = |y: usize| -> f64 {
                (0..16).map(|x| columns[x] * f64::from(at(&original, channel, y, x))).sum()
            };
            (0..12).map(|y| rows[y] * of_row(y)).sum::<f64>() as f32
        };
        assert_near(&apply(view, seed), expected, 1.5);
    }
    // A crop that is wider than the image is cut.
    assert!(areas.iter().all(|&area| area > 0.43 && area <= 1.0));
    assert!(areas.iter().any(|&area| area < 0.6) && areas.iter().any(|&area| area > 0.9));
}

#[test]
fn colours_change_as_the_draws_say() {
    let (view, original) = (View { jitter: 0.2, jitter_probability: 1.0, ..NONE }, image(SHAPE));
    let luma = |pixel: [f32; 3]| 0.299 * pixel[0] + 0.587 * pixel[1] + 0.114 * pixel[2];
    let mut seen = [[f32::MAX, f32::MIN]; 4];
    for seed in 0..60 {
        let colours = view.choices(SHAPE, seed).colours.unwrap();
        seen.iter_mut().zip(colours).for_each(|(seen, x)| *seen = [seen[0].min(x), seen[1].max(x)]);
        let [brightness, contrast, saturation, angle] = colours;
        let pixel = |y, x| [0, 1, 2].map(|channel| brightness * at(&original, channel, y, x));
        let mean = (0..192).map(|i| luma(pixel(i / 16, i % 16))).sum::<f32>() / 192.0;
        // The hue turns around the gray axis: the rotation as a matrix, in cosines of thirds.
        let turn = |i: usize, j: usize| {
            let third = std::f32::consts::TAU / 3.0;
            (1.0 + 2.0 * (angle + third * ((3 + j - i) % 3) as f32).cos()) / 3.0
        };
        let expected = |channel: usize, y: usize, x: usize| {
            let pixel = pixel(y, x).map(|x| mean + contrast * (x - mean));
            let turned = [0, 1, 2].map(|i| (0..3).map(|j| turn(i, j) * pixel[j]).sum::<f32>());
            (luma(pixel) + saturation * (turned[channel] - luma(turned))).clamp(0.0, 255.0)
        };
        assert_near(&apply(view, seed), expected, 0.6);
    }
    for [least, most] in &seen[..3] {
        assert!((0.8..0.85).contains(least) && (1.15..1.2).contains(most), "{least} {most}");
    }
    let turn = 0.05 * std::f32::consts::TAU;
    assert!(seen[3][0] > -turn && seen[3][1] < turn && seen[3][1] - seen[3][0] > turn);
}

#[test]
fn grey_is_the_luma() {
    let (changed, original) = (apply(View { grey: 1.0, ..NONE }, 1), image(SHAPE));
    let luma = |y, x| {
        let [r, g, b] = [0, 1, 2].map(|channel| at(&original, channel, y, x));
        0.299 * r + 0.587 * g + 0.114 * b
    };
    assert_near(&changed, |_, y, x| luma(y, x), 0.51);
}

#[test]
fn a_blur_is_a_gaussian_over_nine_pixels() {
    let (view, original) = (View { blur: 1.0, ..NONE }, image(SHAPE));
    let mut sigmas = Vec::new();
    for seed in 0..40 {
        let sigma = view.choices(SHAPE, seed).sigma.unwrap();
        sigmas.push(sigma);
        let weight = |dy: isize, dx: isize| (-((dy * dy + dx * dx) as f32) / (2.0 * sigma * sigma)).exp();
        let expected = |channel: usize, y: usize, x: usize| {
            let (mut sum, mut total) = (0.0, 0.0);
            for (dy, dx) in (-1..=1).flat_map(|dy| (-1..=1).map(move |dx| (dy, dx))) {
                let y = y.saturating_add_signed(dy).min(11);
                let x = x.saturating_add_signed(dx).min(15);
                sum += weight(dy, dx) * at(&original, channel, y, x);
                total += weight(dy, dx);
            }
            sum / total
        };
        assert_near(&apply(view, seed), expected, 0.51);
    }
    assert!(sigmas.iter().any(|&sigma| sigma < 0.4) && sigmas.iter().any(|&sigma| sigma > 1.6));
}

#[test]
fn operations_occur_as_often_as_they_should() {
    let often = |view: View| (0..1000).filter(|&seed| apply(view, seed) != image(SHAPE)).count();
    assert!((660..740).contains(&often(View { jitter: 0.4, jitter_probability: 0.7, ..NONE })));
    assert!((160..240).contains(&often(View { grey: 0.2, ..NONE })));
}

#[test]
fn one_setting_does_not_change_what_another_draws() {
    for seed in 0..20 {
        let [alone, all] = [View { crop: 0.5, ..NONE }, ALL].map(|view| view.choices(SHAPE, seed).part);
        assert_eq!(alone, all);
        let blur = View { blur: 0.5, ..NONE };
        assert_eq!(blur.choices(SHAPE, seed).sigma, ALL.choices(SHAPE, seed).sigma);
    }
}

#[test]
fn a_gray_image_stays_gray() {
    let gray = ImageShape { channels: 1, ..SHAPE };
    for seed in 0..20 {
        let (mut one, mut three) = (image(gray), image(gray).repeat(3));
        ALL.apply(gray, &mut one, seed).unwrap();
        ALL.apply(SHAPE, &mut three, seed).unwrap();
        assert_eq!(one.repeat(3), three);
    }
    let error = ALL.apply(SHAPE, &mut [0; 3], 0).unwrap_err();
    assert!(matches!(error, Error::BufferLength(3, 576)));
}

/// The same seed gives the same pixels, whatever the number of threads.
#[test]
fn a_seed_decides_on_any_number_of_threads() {
    let views = |n_threads: usize| -> Vec<Vec<u8>> {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(n_threads).build().unwrap();
        pool.install(|| (0..64).into_par_iter().map(|seed| apply(ALL, seed)).collect())
    };
    let one = views(1);
    assert_eq!(one, views(3));
    let distinct: std::collections::BTreeSet<_> = one.iter().collect();
    assert_eq!(distinct.len(), 64);
}
