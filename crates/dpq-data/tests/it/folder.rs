//! Folders of images and lists of images.

use std::fs::{self, File};
use std::path::Path;

use dpq_data::{Dataset, Error, ImageShape, read_image};
use image::codecs::jpeg::JpegEncoder;
use image::imageops::FilterType;
use image::{DynamicImage, GrayImage, ImageEncoder, Luma, Rgb, RgbImage, Rgba, RgbaImage};
use tempfile::TempDir;

const GRAY: ImageShape = ImageShape { channels: 1, height: 4, width: 6 };

fn gray(path: &Path, value: u8) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    GrayImage::from_pixel(6, 4, Luma([value])).save(path).unwrap();
}

fn error(result: Result<Dataset, Error>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn sub_folders_are_classes_in_the_order_of_their_names() {
    let dir = TempDir::new().unwrap();
    gray(&dir.path().join("b/2.png"), 20);
    gray(&dir.path().join("b/1.png"), 10);
    gray(&dir.path().join("a/x.PNG"), 30);
    for file in ["a/notes.txt", "b/notes.TXT", "b/3.avif", "b/README", "b/.hidden"] {
        fs::write(dir.path().join(file), "no image").unwrap();
    }
    let dataset = Dataset::from_folder(dir.path(), GRAY).unwrap();
    let skipped: Vec<_> = dataset.skipped().iter().map(|(kind, &n)| (kind.as_str(), n)).collect();
    assert_eq!(skipped, [(".avif", 1), (".txt", 2), ("without extension", 1)]);
    assert_eq!((dataset.len(), dataset.class_names()), (3, &["a".to_owned(), "b".to_owned()][..]));
    let mut image = vec![0; 24];
    for (row, (value, class, name)) in
        [(30, 0, "a/x.PNG"), (10, 1, "b/1.png"), (20, 1, "b/2.png")].into_iter().enumerate()
    {
        dataset.read(row, &mut image).unwrap();
        assert_eq!(image, [value; 24]);
        assert_eq!(dataset.labels(row), [class]);
        assert_eq!(dataset.path(row).unwrap(), dir.path().join(name));
    }
    assert_eq!(dataset.multi_hot(&[2, 0]), [0, 1, 1, 0]);

    gray(&dir.path().join("b/inner/1.png"), 1);
    assert!(error(Dataset::from_folder(dir.path(), GRAY)).contains("a folder inside the folder of a class"));
    gray(&dir.path().join("stray.png"), 1);
    assert!(error(Dataset::from_folder(dir.path(), GRAY)).contains("an image beside sub-folders"));
    let nowhere = error(Dataset::from_folder(dir.path().join("nowhere"), GRAY));
    assert!(nowhere.starts_with("cannot read folder") && nowhere.ends_with("nowhere"), "{nowhere}");
}

#[test]
fn a_flat_folder_has_no_classes() {
    let dir = TempDir::new().unwrap();
    assert!(
        error(Dataset::from_folder(dir.path(), GRAY))
            .contains("no image in this folder, expected .png, .jpg")
    );
    gray(&dir.path().join("1.png"), 5);
    let dataset = Dataset::from_folder(dir.path(), GRAY).unwrap();
    assert_eq!((dataset.len(), dataset.n_classes(), dataset.labels(0)), (1, 0, &[][..]));
    fs::create_dir(dir.path().join("empty")).unwrap();
    fs::remove_file(dir.path().join("1.png")).unwrap();
    assert!(error(Dataset::from_folder(dir.path(), GRAY)).contains("empty: no image in this folder"));
}

#[test]
fn lists_name_paths_and_classes() {
    let dir = TempDir::new().unwrap();
    gray(&dir.path().join("images/1.png"), 1);
    let list = dir.path().join("list.txt");
    fs::write(&list, "# path label ...\nimages/1.png 10 9\n\nimages/2.png 9\n").unwrap();
    let dataset = Dataset::from_list(&list, GRAY).unwrap();
    assert_eq!(dataset.class_names(), ["9", "10"], "numbers are ordered by value");
    assert_eq!((dataset.labels(0), dataset.labels(1)), (&[0, 1][..], &[0][..]));
    let mut image = vec![0; 24];
    dataset.read(0, &mut image).unwrap();
    assert_eq!(image, [1; 24]);
    let missing = dataset.read(1, &mut image).unwrap_err().to_string();
    assert!(missing.starts_with("cannot open") && missing.ends_with("2.png"), "{missing}");

    fs::write(&list, "images/1.png cat\nimages/2.png\n").unwrap();
    let partly = error(Dataset::from_list(&list, GRAY));
    assert!(partly.contains("list.txt: line 2: `images/2.png` has no class"), "{partly}");
    fs::write(&list, "images/1.png 1 0\nimages/2.png 1 1\n").unwrap();
    let columns = error(Dataset::from_list(&list, GRAY));
    assert!(columns.contains("list.txt: columns of 0 and 1 only, set labels = \"multi-hot\""), "{columns}");
    fs::write(&list, b"\xff.png cat\n").unwrap();
    assert!(error(Dataset::from_list(&list, GRAY)).contains("not UTF-8 text"));
    fs::remove_file(&list).unwrap();
    assert!(error(Dataset::from_list(&list, GRAY)).contains("no such file, correct the path"));
}

#[test]
fn images_are_converted_and_resized() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("x.png");
    RgbImage::from_fn(12, 8, |x, _| if x < 6 { Rgb([200, 100, 0]) } else { Rgb([0, 0, 255]) })
        .save(&path)
        .unwrap();
    let rgb = read_image(&path, ImageShape { channels: 3, height: 8, width: 12 }).unwrap();
    assert_eq!((rgb[0], rgb[96], rgb[192]), (200, 100, 0), "channels lie one after another");
    assert_eq!((rgb[11], rgb[96 + 11], rgb[192 + 11]), (0, 0, 255));
    let gray = read_image(&path, ImageShape { channels: 1, height: 4, width: 6 }).unwrap();
    assert_eq!(gray.len(), 24);
    // Rec. 709 luma: 0.2126 R + 0.7152 G + 0.0722 B.
    assert!(gray[0].abs_diff(114) <= 1 && gray[5].abs_diff(18) <= 1, "{gray:?}");

    fs::write(&path, b"\x89PNG\r\n\x1a\nbroken").unwrap();
    assert!(matches!(read_image(&path, GRAY), Err(Error::Image(..))));
    let odd = read_image(&path, ImageShape { channels: 2, height: 4, width: 4 }).unwrap_err().to_string();
    assert!(odd.contains("images of 2x4x4, expected 1 or 3 channels"), "{odd}");
}

/// The filter of `image` is the reference: both agree within rounding. Transparency is dropped
/// first, because `image` weighs colours by it.
#[test]
fn resizing_is_that_of_a_catmull_rom_filter() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("x.png");
    let photo = RgbaImage::from_fn(50, 38, |x, y| {
        let wave = |a: u32, b: u32| (128.0 + 120.0 * ((x * a + y * b) as f32 / 9.0).sin()) as u8;
        Rgba([wave(1, 2), wave(3, 1), wave(2, 5), if x < y { 0 } else { 200 }])
    });
    photo.save(&path).unwrap();
    let photo = DynamicImage::from(photo).into_rgb8();
    for (width, height) in [(23, 17), (50, 12), (71, 90)] {
        let expected = image::imageops::resize(&photo, width, height, FilterType::CatmullRom);
        let shape = ImageShape { channels: 3, height: height as usize, width: width as usize };
        let pixels = read_image(&path, shape).unwrap();
        let n = (width * height) as usize;
        for (i, pixel) in expected.pixels().enumerate() {
            for channel in 0..3 {
                let found = pixels[channel * n + i];
                assert!(found.abs_diff(pixel[channel]) <= 1, "{shape}, pixel {i}: {found}, {pixel:?}");
            }
        }
    }
}

#[test]
fn the_orientation_that_a_camera_noted_is_applied() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("x.jpg");
    // JPEG codes blocks of 8 by 8 pixels separately: black left, white right.
    let image = GrayImage::from_fn(16, 8, |x, _| Luma([if x < 8 { 0 } else { 255 }]));
    let tall = ImageShape { channels: 1, height: 16, width: 8 };
    for (orientation, top, bottom) in [(6, 0, 255), (8, 255, 0)] {
        let mut encoder = JpegEncoder::new_with_quality(File::create(&path).unwrap(), 100);
        // A little-endian TIFF header and one entry: tag 0x0112, type u16, one value.
        let tiff =
            [b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0", &[orientation, 0, 0, 0, 0, 0, 0, 0][..]];
        encoder.set_exif_metadata(tiff.concat()).unwrap();
        encoder.encode_image(&image).unwrap();
        let pixels = read_image(&path, tall).unwrap();
        assert!(pixels[..64].iter().all(|pixel| pixel.abs_diff(top) < 8), "{pixels:?}");
        assert!(pixels[64..].iter().all(|pixel| pixel.abs_diff(bottom) < 8), "{pixels:?}");
    }
}

#[test]
fn an_image_of_a_few_bytes_cannot_ask_for_gigabytes() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("bomb.png");
    gray(&path, 1);
    // One side is too long; the pixels are too many; the pixels are too many when they are resized.
    for (width, height) in [(1_000_000u32, 4u32), (30_000, 30_000), (12_000, 12_000)] {
        let mut bytes = fs::read(&path).unwrap();
        bytes[16..20].copy_from_slice(&width.to_be_bytes());
        bytes[20..24].copy_from_slice(&height.to_be_bytes());
        // The checksum of the PNG header is recomputed, so that only the size is invalid.
        let mut crc = flate2::Crc::new();
        crc.update(&bytes[12..29]);
        bytes[29..33].copy_from_slice(&crc.sum().to_be_bytes());
        let bomb = dir.path().join("changed.png");
        fs::write(&bomb, bytes).unwrap();
        let Err(Error::Image(_, source)) = read_image(&bomb, GRAY) else { panic!("the bomb was read") };
        assert!(matches!(source, image::ImageError::Limits(_)), "{source}");
    }
}
