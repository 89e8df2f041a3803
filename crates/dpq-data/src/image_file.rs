//! One image file to pixels.

use std::fmt;
use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use fast_image_resize::images::{Image, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};
use image::codecs::png::{CompressionType, FilterType as PngFilter, PngEncoder};
use image::{DynamicImage, ExtendedColorType, ImageDecoder, ImageEncoder, ImageReader, Limits, RgbaImage};

use crate::Error;

/// The shape of an image: u8, channel-major `[C, H, W]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageShape {
    /// 1 for gray, 3 for red, green and blue.
    pub channels: usize,
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
}

impl ImageShape {
    /// Bytes of an image.
    #[expect(clippy::len_without_is_empty, reason = "a shape is not a collection")]
    pub fn len(self) -> usize {
        self.channels * self.height * self.width
    }

    /// Refuses shapes that no reader of this crate makes.
    pub(crate) fn check(self, path: &Path) -> Result<Self, Error> {
        if [1, 3].contains(&self.channels) && [self.height, self.width].iter().all(|n| (1..=4096).contains(n))
        {
            return Ok(self);
        }
        Err(Error::file(path, format!("images of {self}, expected 1 or 3 channels and sides of 1 to 4096")))
    }
}

impl fmt::Display for ImageShape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}x{}", self.channels, self.height, self.width)
    }
}

/// Reads a PNG or JPEG file in `shape`: u8 `[C, H, W]`.
///
/// The orientation that a camera noted is applied, transparency is dropped, gray is the luma of a colour image, and
/// another size is resized to `shape` by a Catmull-Rom filter, without keeping the aspect ratio.
///
/// # Errors
/// [`Error::Io`] or [`Error::Image`] if the file cannot be read, or claims to be of a size beyond reason.
pub fn read_image(path: &Path, shape: ImageShape) -> Result<Vec<u8>, Error> {
    let shape = shape.check(path)?;
    let file = File::open(path).map_err(Error::io("open", path))?;
    let image =
        decode(BufReader::new(file)).map_err(|source| Error::Image { path: path.to_owned(), source })?;
    let (width, height) = (shape.width as u32, shape.height as u32);
    let image =
        if (image.width(), image.height()) == (width, height) { image } else { resize(image, width, height) };
    if shape.channels == 1 {
        return Ok(image.into_luma8().into_raw());
    }
    let pixels = image.into_rgb8().into_raw();
    Ok((0..3).flat_map(|channel| pixels.iter().skip(channel).step_by(3).copied()).collect())
}

/// A PNG file of an image, u8 `[C, H, W]`.
///
/// # Panics
/// If `pixels` does not have the length of `shape`, or `shape` has other than 1 or 3 channels.
pub fn encode_png(shape: ImageShape, pixels: &[u8]) -> Vec<u8> {
    assert_eq!(pixels.len(), shape.len(), "the shape is that of the pixels");
    let colour = match shape.channels {
        1 => ExtendedColorType::L8,
        3 => ExtendedColorType::Rgb8,
        n => panic!("{n} channels, expected 1 or 3"),
    };
    let plane = shape.height * shape.width;
    let bytes: Vec<u8> = (0..plane).flat_map(|at| pixels.iter().skip(at).step_by(plane).copied()).collect();
    let mut file = Vec::new();
    PngEncoder::new_with_quality(&mut file, CompressionType::Best, PngFilter::Adaptive)
        .write_image(&bytes, shape.width as u32, shape.height as u32, colour)
        .expect("writing to memory");
    file
}

fn resize(image: DynamicImage, width: u32, height: u32) -> DynamicImage {
    let image = image.into_rgba8();
    let from = ImageRef::new(image.width(), image.height(), image.as_raw(), PixelType::U8x4)
        .expect("an image has four bytes a pixel");
    let mut to = Image::new(width, height, PixelType::U8x4);
    // Transparency is dropped, so it does not weigh the colours either.
    let filter = ResizeAlg::Convolution(FilterType::CatmullRom);
    let options = ResizeOptions::new().resize_alg(filter).use_alpha(false);
    Resizer::new().resize(&from, &mut to, &options).expect("both images are of one kind");
    let resized = RgbaImage::from_raw(width, height, to.into_vec());
    resized.expect("four bytes a pixel were made").into()
}

/// Resizes an image `[C, H, W]`; where `to` has more channels than `from`, they are equal.
pub(crate) fn resize_planes(image: &[u8], from: ImageShape, out: &mut [u8], to: ImageShape) {
    let n = from.height * from.width;
    let value = |i: usize, channel: usize| image[channel % from.channels * n + i];
    let pixels = (0..n).flat_map(|i| [value(i, 0), value(i, 1), value(i, 2), u8::MAX]).collect();
    let image = RgbaImage::from_raw(from.width as u32, from.height as u32, pixels)
        .expect("four bytes a pixel were made");
    let resized = resize(image.into(), to.width as u32, to.height as u32).into_rgba8();
    for (channel, out) in out.chunks_exact_mut(to.height * to.width).enumerate() {
        out.iter_mut().zip(resized.pixels()).for_each(|(out, pixel)| *out = pixel.0[channel]);
    }
}

fn decode(file: BufReader<File>) -> image::ImageResult<DynamicImage> {
    let mut reader = ImageReader::new(file).with_guessed_format()?;
    // An image of a few bytes must not be able to ask for gigabytes.
    let mut limits = Limits::default();
    limits.max_image_width = Some(1 << 15);
    limits.max_image_height = Some(1 << 15);
    reader.limits(limits.clone());
    let mut decoder = reader.into_decoder()?;
    // The limits given to a decoder do not cover the pixels that it writes, nor the four bytes a pixel of resizing.
    let (width, height) = decoder.dimensions();
    limits.reserve(decoder.total_bytes().max(4 * u64::from(width) * u64::from(height)))?;
    let orientation = decoder.orientation()?;
    let mut image = DynamicImage::from_decoder(decoder)?;
    image.apply_orientation(orientation);
    Ok(image)
}
