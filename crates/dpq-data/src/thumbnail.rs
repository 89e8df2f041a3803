//! Small pictures of images, for pages of many.

use crate::image_file::shrink;
use crate::pixels::Pixels;
use crate::{Dataset, Error, encode_png};

/// A small picture.
#[derive(Debug)]
pub struct Thumbnail {
    /// `image/jpeg` or `image/png`.
    pub content_type: &'static str,
    /// The contents of the file.
    pub bytes: Vec<u8>,
}

impl Dataset {
    /// Returns a small picture of a row, with the aspect ratio of the image: a JPEG file of at most
    /// `side` pixels wide and high if images are files, else a PNG file of all pixels.
    ///
    /// # Errors
    /// Those of [`read_image_bytes`](crate::read_image_bytes) if its file cannot be read or has more
    /// than `max_pixels`; [`Error::NoSuchRow`].
    ///
    /// # Panics
    /// If `side` is 0 or above 65,535, which is no size of a picture.
    pub fn thumbnail(&self, row: usize, side: u32, max_pixels: u64) -> Result<Thumbnail, Error> {
        assert!((1..1 << 16).contains(&side), "found a side of {side} pixels");
        if row >= self.len() {
            return Err(Error::NoSuchRow(row, self.len()));
        }
        if let Pixels::Files(paths, files) = &self.pixels {
            let path = &paths[row];
            let bytes = files.read(path).map_err(Error::io("open", path))?;
            let bytes = shrink(path, &bytes, side, max_pixels)?;
            return Ok(Thumbnail { content_type: "image/jpeg", bytes });
        }
        let shape = self.pixels.stored_shape().unwrap_or(self.shape);
        let mut pixels = vec![0; shape.len()];
        self.pixels.read(row, shape, &mut pixels)?;
        Ok(Thumbnail { content_type: "image/png", bytes: encode_png(shape, &pixels)? })
    }
}
