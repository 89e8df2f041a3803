//! The pixels of images, wherever they are stored.

use std::path::{Path, PathBuf};

use crate::files::Files;
use crate::image_file::{decode_image, resize_planes};
use crate::{Error, ImageShape};

/// The pixels of images, by row.
#[derive(Debug)]
pub(crate) enum Pixels {
    /// Images of one shape, u8 `[N, C, H, W]`.
    Memory(ImageShape, Vec<u8>),
    /// Image files of any shape, by path.
    Files(Vec<PathBuf>, Files),
    /// Collages of 2×2 cells, each black or an image of this shape from `Pixels`.
    Collages(ImageShape, Box<Pixels>, Vec<[Option<u32>; 4]>),
}

impl Pixels {
    /// Returns the shape in which images are stored, `None` for files.
    pub(crate) fn stored_shape(&self) -> Option<ImageShape> {
        match self {
            Self::Memory(shape, _) => Some(*shape),
            Self::Files(..) => None,
            Self::Collages(ImageShape { channels, height, width }, ..) => {
                Some(ImageShape { channels: *channels, height: 2 * height, width: 2 * width })
            }
        }
    }

    /// Returns the file of a row, if images are files.
    pub(crate) fn path(&self, row: usize) -> Option<&Path> {
        match self {
            Self::Files(paths, _) => paths.get(row).map(PathBuf::as_path),
            Self::Memory(..) | Self::Collages(..) => None,
        }
    }

    /// Reads the image of an existing row into `out`, u8 `[C, H, W]`.
    pub(crate) fn read(&self, row: usize, shape: ImageShape, out: &mut [u8]) -> Result<(), Error> {
        if let Some(stored) = self.stored_shape().filter(|&stored| stored != shape) {
            let mut image = vec![0; stored.len()];
            self.read(row, stored, &mut image)?;
            resize_planes(&image, stored, None, out, shape);
            return Ok(());
        }
        match self {
            Self::Memory(_, pixels) => out.copy_from_slice(&pixels[row * shape.len()..][..shape.len()]),
            Self::Files(paths, files) => {
                let path = &paths[row];
                let bytes = files.read(path).map_err(Error::io("open", path))?;
                out.copy_from_slice(&decode_image(path, &bytes, shape, u64::MAX)?);
            }
            Self::Collages(cell_shape, source, collages) => {
                out.fill(0);
                let ImageShape { channels, height, width } = *cell_shape;
                let mut image = vec![0; cell_shape.len()];
                for (cell, source_row) in collages[row].iter().enumerate() {
                    let Some(source_row) = source_row else { continue };
                    source.read(*source_row as usize, *cell_shape, &mut image)?;
                    let (top, left) = (cell / 2 * height, cell % 2 * width);
                    for channel in 0..channels {
                        for y in 0..height {
                            let from = &image[(channel * height + y) * width..][..width];
                            let to = ((channel * 2 * height) + top + y) * 2 * width + left;
                            out[to..to + width].copy_from_slice(from);
                        }
                    }
                }
            }
        }
        Ok(())
    }
}
