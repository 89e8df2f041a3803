//! One image file to pixels, and back.

use std::fmt;
use std::io::Cursor;
use std::panic;
use std::path::Path;

use fast_image_resize::images::{Image, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};
use image::codecs::jpeg::JpegEncoder;
use image::codecs::png::{CompressionType, FilterType as PngFilter, PngEncoder};
use image::error::{DecodingError, LimitError, LimitErrorKind, UnsupportedError, UnsupportedErrorKind};
use image::metadata::Orientation;
use image::{
    DynamicImage, ExtendedColorType, GrayImage, ImageDecoder, ImageEncoder, ImageError, ImageFormat,
    ImageReader, ImageResult, Limits, RgbImage, RgbaImage,
};
use jpeg_decoder::PixelFormat;

use crate::Error;
use crate::files::Files;
use crate::jpeg::Markers;

/// Extensions of the image files that [`read_image`] reads.
const EXTENSIONS: [&str; 12] =
    ["png", "apng", "jpg", "jpeg", "jpe", "jfif", "webp", "gif", "bmp", "dib", "tif", "tiff"];

/// The quality of JPEG files that are written.
const QUALITY: u8 = 85;

/// Returns true if a file of this name is read as an image.
pub(crate) fn is_image_name(path: &Path) -> bool {
    let extension = path.extension().map(|extension| extension.to_ascii_lowercase());
    extension.is_some_and(|extension| EXTENSIONS.iter().any(|&known| known == extension))
}

/// The shape of an image: u8, channel-major `[C, H, W]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageShape {
    /// 1 for gray; 3 for red, green and blue.
    pub channels: usize,
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
}

impl ImageShape {
    /// Returns the number of bytes of an image.
    #[expect(clippy::len_without_is_empty, reason = "a shape is not a collection")]
    pub fn len(self) -> usize {
        self.channels * self.height * self.width
    }

    /// Refuses shapes that no reader of this crate makes.
    pub(crate) fn check(self) -> Result<Self, Error> {
        let sides = [self.height, self.width];
        let is_possible =
            [1, 3].contains(&self.channels) && sides.iter().all(|side| (1..=4096).contains(side));
        if is_possible { Ok(self) } else { Err(Error::ImpossibleShape(self)) }
    }

    /// Refuses a buffer that does not have the length of one image.
    pub(crate) fn check_buffer(self, buffer: &[u8]) -> Result<(), Error> {
        let (found, expected) = (buffer.len(), self.len());
        if found == expected { Ok(()) } else { Err(Error::BufferLength(found, expected)) }
    }
}

impl fmt::Display for ImageShape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}x{}", self.channels, self.height, self.width)
    }
}

/// Reads an image file in `shape`: u8 `[C, H, W]`.
///
/// Formats are PNG, JPEG, WebP, GIF, BMP and TIFF, recognised by their contents; of an animation or
/// of several pages the first is read. The orientation that a camera noted is applied and
/// transparency is dropped. Colour becomes gray by its luma. Another size is resized to `shape` by
/// a Catmull-Rom filter, without keeping the aspect ratio.
///
/// # Errors
/// [`Error::Io`], [`Error::Image`], [`Error::CutOff`] or [`Error::DecoderPanic`] if the file cannot
/// be read. A size beyond 32,768 pixels per side, or beyond 512 MiB of pixels, is an
/// [`Error::Image`]. [`Error::ImpossibleShape`] for `shape`.
pub fn read_image(path: impl AsRef<Path>, shape: ImageShape) -> Result<Vec<u8>, Error> {
    let (path, shape) = (path.as_ref(), shape.check()?);
    let bytes = Files::Disk.read(path).map_err(Error::io("open", path))?;
    decode_image(path, &bytes, shape, u64::MAX)
}

/// Reads the contents of an image file, as [`read_image`]. An error names it "the image".
///
/// # Errors
/// As [`read_image`], and [`Error::Image`] for more than `max_pixels` before resizing. These are
/// counted before anything is decoded.
pub fn read_image_bytes(bytes: &[u8], shape: ImageShape, max_pixels: u64) -> Result<Vec<u8>, Error> {
    decode_image(Path::new("the image"), bytes, shape.check()?, max_pixels)
}

/// Decodes the contents of the image file at `path`, see [`read_image_bytes`].
pub(crate) fn decode_image(
    path: &Path,
    bytes: &[u8],
    shape: ImageShape,
    max_pixels: u64,
) -> Result<Vec<u8>, Error> {
    let image = decode_any(path, bytes, max_pixels)?;
    let (width, height) = (shape.width as u32, shape.height as u32);
    let image = if (image.width(), image.height()) == (width, height) {
        image
    } else {
        resize(image, width, height, None)
    };
    if shape.channels == 1 {
        return Ok(image.into_luma8().into_raw());
    }
    let pixels = image.into_rgb8().into_raw();
    Ok((0..3).flat_map(|channel| pixels.iter().skip(channel).step_by(3).copied()).collect())
}

/// Decodes an image file in its own size.
fn decode_any(path: &Path, bytes: &[u8], max_pixels: u64) -> Result<DynamicImage, Error> {
    let jpeg = Markers::read(bytes);
    // The decoder fills the missing part of a JPEG file with gray; other decoders fail.
    if jpeg.as_ref().is_some_and(|jpeg| !jpeg.is_whole) {
        return Err(Error::CutOff(path.to_owned()));
    }
    let needs_other_decoder = jpeg.is_some_and(|jpeg| jpeg.needs_other_decoder());
    // Decoders are foreign code. A panic in one of them must not end a run over a million images.
    // The panic hook of the process still runs: a library must not replace it.
    let decode = if needs_other_decoder { decode_jpeg } else { decode };
    let decoded = panic::catch_unwind(|| decode(bytes, max_pixels));
    match decoded {
        Ok(decoded) => decoded.map_err(|source| Error::Image(path.to_owned(), source)),
        Err(_) => Err(Error::DecoderPanic(path.to_owned())),
    }
}

/// Makes a JPEG file of the image file at `path`, at most `side` pixels wide and high.
pub(crate) fn shrink(path: &Path, bytes: &[u8], side: u32, max_pixels: u64) -> Result<Vec<u8>, Error> {
    let image = decode_any(path, bytes, max_pixels)?;
    let (width, height) = (image.width(), image.height());
    let longest = width.max(height);
    let small = |length: u32| (length * side).div_ceil(longest).max(1);
    let image = if longest > side { resize(image, small(width), small(height), None) } else { image };
    let mut file = Vec::new();
    let written = JpegEncoder::new_with_quality(&mut file, QUALITY).encode_image(&image.into_rgb8());
    written.expect("writing to memory");
    Ok(file)
}

/// Makes a PNG file of an image, u8 `[C, H, W]`.
///
/// # Errors
/// [`Error::BufferLength`] if `pixels` does not have the length of `shape`,
/// [`Error::ImpossibleShape`] for a shape that no image has.
pub fn encode_png(shape: ImageShape, pixels: &[u8]) -> Result<Vec<u8>, Error> {
    let shape = shape.check()?;
    shape.check_buffer(pixels)?;
    let colour = if shape.channels == 1 { ExtendedColorType::L8 } else { ExtendedColorType::Rgb8 };
    let plane = shape.height * shape.width;
    let bytes: Vec<u8> = (0..plane).flat_map(|at| pixels.iter().skip(at).step_by(plane).copied()).collect();
    let mut file = Vec::new();
    PngEncoder::new_with_quality(&mut file, CompressionType::Best, PngFilter::Adaptive)
        .write_image(&bytes, shape.width as u32, shape.height as u32, colour)
        .expect("writing to memory");
    Ok(file)
}

/// Resizes an image, or a part of it: left, top, width and height in pixels.
fn resize(image: DynamicImage, width: u32, height: u32, part: Option<[f64; 4]>) -> DynamicImage {
    let image = image.into_rgba8();
    let from = ImageRef::new(image.width(), image.height(), image.as_raw(), PixelType::U8x4)
        .expect("an image has four bytes a pixel");
    let mut to = Image::new(width, height, PixelType::U8x4);
    // Transparency is dropped, so it does not weigh the colours either.
    let filter = ResizeAlg::Convolution(FilterType::CatmullRom);
    let mut options = ResizeOptions::new().resize_alg(filter).use_alpha(false);
    if let Some([left, top, width, height]) = part {
        options = options.crop(left, top, width, height);
    }
    Resizer::new().resize(&from, &mut to, &options).expect("both images are of one kind");
    let resized = RgbaImage::from_raw(width, height, to.into_vec());
    resized.expect("four bytes a pixel were made").into()
}

/// Resizes an image `[C, H, W]`, or a part of it as [`resize`] does; where `to` has more channels
/// than `from`, they are equal.
pub(crate) fn resize_planes(
    image: &[u8],
    from: ImageShape,
    part: Option<[f64; 4]>,
    out: &mut [u8],
    to: ImageShape,
) {
    let n = from.height * from.width;
    let value = |i: usize, channel: usize| image[channel % from.channels * n + i];
    let pixels = (0..n).flat_map(|i| [value(i, 0), value(i, 1), value(i, 2), u8::MAX]).collect();
    let image = RgbaImage::from_raw(from.width as u32, from.height as u32, pixels)
        .expect("four bytes a pixel were made");
    let resized = resize(image.into(), to.width as u32, to.height as u32, part).into_rgba8();
    for (channel, out) in out.chunks_exact_mut(to.height * to.width).enumerate() {
        out.iter_mut().zip(resized.pixels()).for_each(|(out, pixel)| *out = pixel.0[channel]);
    }
}

fn decode(bytes: &[u8], max_pixels: u64) -> ImageResult<DynamicImage> {
    let mut reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format()?;
    let mut limits = limits();
    reader.limits(limits.clone());
    let mut decoder = reader.into_decoder()?;
    // The limits given to a decoder cover neither the pixels that it writes nor the four bytes per
    // pixel of resizing.
    let (width, height) = decoder.dimensions();
    check_pixels(width, height, max_pixels)?;
    limits.reserve(decoder.total_bytes().max(4 * u64::from(width) * u64::from(height)))?;
    let orientation = decoder.orientation()?;
    let mut image = DynamicImage::from_decoder(decoder)?;
    image.apply_orientation(orientation);
    Ok(image)
}

/// Decodes a JPEG file by a decoder that is slower and knows more kinds of them than that of
/// `image`.
fn decode_jpeg(bytes: &[u8], max_pixels: u64) -> ImageResult<DynamicImage> {
    let error = |error| ImageError::Decoding(DecodingError::new(ImageFormat::Jpeg.into(), error));
    let mut decoder = jpeg_decoder::Decoder::new(bytes);
    decoder.read_info().map_err(error)?;
    let info = decoder.info().expect("the header was read");
    let (width, height) = (u32::from(info.width), u32::from(info.height));
    let mut limits = limits();
    check_pixels(width, height, max_pixels)?;
    limits.check_dimensions(width, height)?;
    limits.reserve(4 * u64::from(width) * u64::from(height))?;
    let pixels = decoder.decode().map_err(error)?;
    let image = match info.pixel_format {
        PixelFormat::L8 => GrayImage::from_raw(width, height, pixels).map(DynamicImage::from),
        PixelFormat::RGB24 => RgbImage::from_raw(width, height, pixels).map(DynamicImage::from),
        _ => None,
    };
    let mut image = image.ok_or_else(|| {
        let kind = UnsupportedErrorKind::GenericFeature(format!("{:?} in separate scans", info.pixel_format));
        ImageError::Unsupported(UnsupportedError::from_format_and_kind(ImageFormat::Jpeg.into(), kind))
    })?;
    let orientation = decoder.exif_data().and_then(Orientation::from_exif_chunk);
    image.apply_orientation(orientation.unwrap_or(Orientation::NoTransforms));
    Ok(image)
}

fn check_pixels(width: u32, height: u32, max_pixels: u64) -> ImageResult<()> {
    let is_possible = u64::from(width) * u64::from(height) <= max_pixels;
    let error = || ImageError::Limits(LimitError::from_kind(LimitErrorKind::DimensionError));
    is_possible.then_some(()).ok_or_else(error)
}

/// Limits so that an image of a few bytes cannot ask for gigabytes.
fn limits() -> Limits {
    let mut limits = Limits::default();
    limits.max_image_width = Some(1 << 15);
    limits.max_image_height = Some(1 << 15);
    limits
}
