//! Small pictures keep the shape of an image, whatever shape the data set has.

use dpq_data::{Dataset, Error, ImageShape};
use image::{GenericImageView, ImageFormat, Rgb, RgbImage};

#[test]
fn a_picture_is_small_and_keeps_the_aspect_ratio() {
    let dir = tempfile::tempdir().unwrap();
    let wide =
        RgbImage::from_fn(300, 100, |x, _| if x < 150 { Rgb([200, 20, 20]) } else { Rgb([20, 20, 200]) });
    wide.save(dir.path().join("0.png")).unwrap();
    RgbImage::from_pixel(5, 9, Rgb([9, 99, 199])).save(dir.path().join("1.bmp")).unwrap();
    std::fs::write(dir.path().join("2.jpg"), "no image").unwrap();
    let dataset = Dataset::from_folder(dir.path(), ImageShape { channels: 1, height: 8, width: 8 }).unwrap();
    for (row, side, size) in [(0, 64, (64, 22)), (0, 1, (1, 1)), (0, 400, (300, 100)), (1, 64, (5, 9))] {
        let picture = dataset.thumbnail(row, side, u64::MAX).unwrap();
        assert_eq!(picture.content_type, "image/jpeg");
        let image = image::load_from_memory_with_format(&picture.bytes, ImageFormat::Jpeg).unwrap();
        assert_eq!(image.dimensions(), size, "row {row}");
    }
    let picture = dataset.thumbnail(0, 64, u64::MAX).unwrap();
    let image = image::load_from_memory(&picture.bytes).unwrap().into_rgb8();
    assert!(image[(5, 10)].0[0] > 150 && image[(58, 10)].0[2] > 150);
    assert!(matches!(dataset.thumbnail(2, 64, u64::MAX), Err(Error::Image(..))));
    assert!(matches!(dataset.thumbnail(3, 64, u64::MAX), Err(Error::NoSuchRow(3, 3))));
    // The wide one has 30,000 pixels.
    dataset.thumbnail(0, 64, 30_000).unwrap();
    assert!(matches!(dataset.thumbnail(0, 64, 29_999), Err(Error::Image(..))));
}

#[test]
fn pixels_in_memory_become_a_picture_of_them() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../datasets/fashion-mnist");
    let dataset = Dataset::open(folder).unwrap();
    let mut pixels = vec![0; dataset.shape().len()];
    dataset.read(7, &mut pixels).unwrap();
    let picture = dataset
        .resized(ImageShape { channels: 3, height: 40, width: 40 })
        .unwrap()
        .thumbnail(7, 64, u64::MAX)
        .unwrap();
    assert_eq!(picture.content_type, "image/png");
    let image = image::load_from_memory_with_format(&picture.bytes, ImageFormat::Png).unwrap();
    assert_eq!((image.dimensions(), image.into_luma8().into_raw()), ((28, 28), pixels));
}
