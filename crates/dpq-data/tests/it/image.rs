//! Image files of every format: whole, cut off, damaged, and not a file at all.

use std::fs;
use std::io::Cursor;
use std::path::Path;

use dpq_data::{Dataset, Error, ImageShape, encode_png, read_image, read_image_bytes};
use image::codecs::jpeg::JpegEncoder;
use image::{DynamicImage, GrayImage, ImageError, ImageFormat, Luma, Rgb, RgbImage};
use tempfile::TempDir;

const SHAPE: ImageShape = ImageShape { channels: 3, height: 40, width: 48 };

/// A noisy picture, so that every part of a compressed file matters.
fn picture() -> DynamicImage {
    let value =
        |x: u32, y: u32, step: u32| ((x * 5 + y * step + (x * y * 7919 + x * 104_729) % 23) % 256) as u8;
    RgbImage::from_fn(48, 40, |x, y| Rgb([3, 7, 11].map(|step| value(x, y, step)))).into()
}

fn encoded(format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(vec![]);
    picture().write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

fn read(dir: &Path, bytes: &[u8]) -> Result<Vec<u8>, Error> {
    let path = dir.join("image");
    fs::write(&path, bytes).unwrap();
    read_image(path, SHAPE)
}

/// Returns the JPEG file of a case, and the pixels that libjpeg decodes from it, `[C, H, W]`.
fn case(name: &str) -> (Vec<u8>, Vec<u8>) {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data");
    let right = read_image(data.join(format!("{name}.right.png")), SHAPE).unwrap();
    (fs::read(data.join(format!("{name}.jpg"))).unwrap(), right)
}

#[test]
fn every_format_is_read_by_its_contents() {
    let dir = TempDir::new().unwrap();
    let expected = read(dir.path(), &encoded(ImageFormat::Png)).unwrap();
    let formats = [
        (ImageFormat::Jpeg, "jfif"),
        (ImageFormat::Jpeg, "JPE"),
        (ImageFormat::WebP, "webp"),
        (ImageFormat::Bmp, "BMP"),
        (ImageFormat::Tiff, "tif"),
        (ImageFormat::Gif, "gif"),
    ];
    for (format, extension) in formats {
        fs::write(dir.path().join(format!("x.{extension}")), encoded(format)).unwrap();
    }
    fs::remove_file(dir.path().join("image")).unwrap();
    let dataset = Dataset::from_folder(dir.path(), SHAPE).unwrap();
    assert_eq!((dataset.len(), dataset.skipped().len()), (6, 0));
    let mut image = vec![0; SHAPE.len()];
    for row in 0..6 {
        dataset.read(row, &mut image).unwrap();
        let name = dataset.path(row).unwrap().display();
        let differences = image.iter().zip(&expected).map(|(found, right)| u32::from(found.abs_diff(*right)));
        let mean = differences.sum::<u32>() as f64 / image.len() as f64;
        // JPEG and GIF lose some of the noise.
        let limit = if name.to_string().contains(".g") || name.to_string().to_lowercase().contains(".j") {
            25.0
        } else {
            0.0
        };
        assert!(mean <= limit, "{name}: {mean}");
    }
}

#[test]
fn cut_off_images_are_errors_in_every_format() {
    let dir = TempDir::new().unwrap();
    let mut progressive = case("gray-adobe").0;
    let mut files: Vec<_> = [
        ImageFormat::Png,
        ImageFormat::Jpeg,
        ImageFormat::WebP,
        ImageFormat::Bmp,
        ImageFormat::Tiff,
        ImageFormat::Gif,
    ]
    .map(|format| (format!("{format:?}"), encoded(format)))
    .into();
    // Bytes that follow the end of the image do not matter, and do not make a cut image whole.
    progressive.extend([0; 16]);
    files.push(("progressive JPEG".to_owned(), progressive));
    for (name, bytes) in files {
        read(dir.path(), &bytes).unwrap_or_else(|error| panic!("{name}: {error}"));
        for percent in [5, 10, 30, 50, 60, 90, 95] {
            let end = bytes.len() * percent / 100;
            let error = read(dir.path(), &bytes[..end]).expect_err(&format!("{name} cut at {percent} %"));
            assert!(matches!(error, Error::CutOff(_) | Error::Image(..)), "{name}: {error}");
            if name.contains("Jpeg") {
                let error = read(dir.path(), &[&bytes[..end], &[0; 4096]].concat()).unwrap_err();
                assert!(matches!(error, Error::CutOff(_)), "{name}: {error}");
            }
        }
    }
}

#[test]
fn jpeg_files_that_one_decoder_cannot_read_are_read_by_another() {
    let dir = TempDir::new().unwrap();
    for name in ["gray-adobe", "scans-444"] {
        let (bytes, right) = case(name);
        let pixels = read(dir.path(), &bytes).unwrap();
        let most = pixels.iter().zip(&right).map(|(found, right)| found.abs_diff(*right)).max();
        assert!(most <= Some(3), "{name}: {most:?}");
    }
}

/// Two decoders, of which the second reads JPEG files that the first cannot.
#[test]
fn pixels_are_counted_before_an_image_is_decoded() {
    let mut png = Cursor::new(Vec::new());
    GrayImage::from_pixel(20, 10, Luma([7])).write_to(&mut png, ImageFormat::Png).unwrap();
    let shape = ImageShape { channels: 1, height: 5, width: 5 };
    assert_eq!(read_image_bytes(png.get_ref(), shape, 200).unwrap(), [7; 25]);
    let (jpeg, _) = case("gray-adobe");
    assert!(read_image_bytes(&jpeg, shape, u64::MAX).is_ok());
    for (bytes, max_pixels) in [(png.into_inner(), 199), (jpeg, 3)] {
        let Err(Error::Image(_, source)) = read_image_bytes(&bytes, shape, max_pixels) else {
            panic!("it was read")
        };
        assert!(matches!(source, ImageError::Limits(_)), "{source}");
    }
}

/// `gray-adobe` with a second component in its frame header, and a colour transform that needs
/// three: the decoder panics.
#[test]
fn a_panic_in_a_decoder_is_an_error_of_the_image() {
    let dir = TempDir::new().unwrap();
    let (mut bytes, _) = case("gray-adobe");
    let find =
        |bytes: &[u8], pattern: &[u8]| bytes.windows(pattern.len()).position(|part| part == pattern).unwrap();
    let frame = find(&bytes, &[0xff, 0xc2, 0, 11]);
    bytes[frame + 3] = 14;
    bytes[frame + 9] = 2;
    bytes.splice(frame + 13..frame + 13, [2, 0x11, 0]);
    let adobe = find(&bytes, b"Adobe");
    bytes[adobe + 11] = 2;
    let error = read(dir.path(), &bytes).unwrap_err();
    assert!(matches!(error, Error::DecoderPanic(_)), "{error:?}");
}

#[test]
fn no_damage_ends_the_process() {
    let dir = TempDir::new().unwrap();
    let mut small = vec![];
    JpegEncoder::new_with_quality(&mut small, 40).encode_image(&picture().thumbnail(24, 16)).unwrap();
    let files = [small, case("gray-adobe").0, case("scans-444").0, encoded(ImageFormat::WebP)];
    let mut random = 1u64;
    let mut next = |n: usize| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) as usize % n
    };
    for file in &files {
        for _ in 0..400 {
            let mut bytes = file.clone();
            for _ in 0..1 + next(3) {
                let at = next(bytes.len());
                bytes[at] = next(256) as u8;
            }
            // A damaged file may be readable. The call must return either way.
            let _ = read(dir.path(), &bytes);
        }
    }
}

#[cfg(unix)]
#[test]
fn pipes_and_folders_named_as_images_are_errors() {
    let dir = TempDir::new().unwrap();
    let pipe = dir.path().join("pipe.jpg");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let error = |path: &Path| read_image(path, SHAPE).unwrap_err();
    let Error::Io("open", _, source) = error(&pipe) else { panic!("the pipe was opened") };
    assert_eq!(source.to_string(), "not a regular file");
    assert!(matches!(error(dir.path()), Error::Io("open", ..)));
    fs::rename(pipe, dir.path().join("dataset.toml")).unwrap();
    assert!(matches!(Dataset::open(dir.path()), Err(Error::Io("read", ..))));
}

// Other systems keep no such files.
#[cfg(target_os = "linux")]
#[test]
fn names_that_no_list_can_hold_are_refused_first() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    for name in [&b"x\ny.png"[..], b"x\ry.png", b"\xff.png"] {
        let dir = TempDir::new().unwrap();
        fs::write(dir.path().join(OsStr::from_bytes(name)), encoded(ImageFormat::Png)).unwrap();
        let error = Dataset::from_folder(dir.path(), SHAPE).unwrap_err();
        assert!(matches!(error, Error::Name(_)) && !error.to_string().contains('\n'), "{error}");
    }
}

#[test]
fn buffers_and_rows_that_do_not_exist_are_errors() {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("x.png"), encoded(ImageFormat::Png)).unwrap();
    let dataset = Dataset::from_folder(dir.path(), SHAPE).unwrap();
    let mut image = vec![0; SHAPE.len()];
    dataset.read(0, &mut image).unwrap();
    assert!(matches!(dataset.read(1, &mut image), Err(Error::NoSuchRow(1, 1))));
    assert!(matches!(dataset.read(0, &mut image[1..]), Err(Error::BufferLength(5759, 5760))));
    assert!(matches!(encode_png(SHAPE, &image[1..]), Err(Error::BufferLength(5759, 5760))));
    let odd = ImageShape { channels: 2, ..SHAPE };
    assert!(matches!(encode_png(odd, &image), Err(Error::ImpossibleShape(_))));
}
