//! The pictures, names and classes that `dpq serve` knows of items.

use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Error, Result, ensure};
use dpq_data::{Dataset, ImageShape};
use dpq_server::{Catalog, DrawMap, Drawn, Picture};

use crate::images;
use crate::inputs::read_lines;

/// The maximum side of a picture in pixels.
const SIDE: u32 = 256;

/// The size of pictures that are kept in memory, in bytes.
const CACHE: usize = 64 << 20;

/// Any shape: pictures keep their own.
pub(crate) const SHAPE: ImageShape = ImageShape { channels: 3, height: 32, width: 32 };

/// The names of items, and the images of a data set, a folder or an archive.
pub(crate) struct Pictures {
    /// Line i is the name of id i.
    names: Vec<String>,
    images: Option<Images>,
}

struct Images {
    dataset: Dataset,
    /// Rows by name: the path of an image, as commands write it or inside its folder. `None` for a
    /// data set, whose rows are the ids of items without a name.
    rows: Option<HashMap<PathBuf, u32>>,
    /// The folder that no picture leaves, if images are files of it.
    root: Option<PathBuf>,
    /// Images of more pixels have no picture.
    max_pixels: u64,
    cache: Mutex<Cache>,
}

/// Pictures, and why images have none: decoding them again would take as long.
#[derive(Default)]
struct Cache {
    pictures: HashMap<u32, Result<Picture, String>>,
    n_bytes: usize,
}

/// The memory of an entry besides its picture, about, in bytes.
const ENTRY: usize = 256;

impl Pictures {
    /// Opens the images of a data set, a folder or an archive, and the names of ids.
    pub(crate) fn open(images: Option<&Path>, names: Option<&Path>, max_pixels: u64) -> Result<Self> {
        let names = names.map(read_lines).transpose()?.unwrap_or_default();
        let images = images.map(|path| Images::open(path, max_pixels));
        Ok(Self { names, images: images.transpose()? })
    }
}

impl Images {
    fn open(path: &Path, max_pixels: u64) -> Result<Self> {
        let (dataset, rows) = if path.join("dataset.toml").is_file() {
            (Dataset::open(path)?, None)
        } else {
            let dataset = Dataset::from_folder(path, SHAPE)?;
            images::report_skipped(&dataset);
            let mut rows = HashMap::new();
            for row in 0..dataset.len() as u32 {
                let file = dataset.path(row as usize).context("images of a folder have paths")?;
                rows.insert(plain(file).to_owned(), row);
                if let Ok(inside) = file.strip_prefix(path) {
                    rows.insert(inside.to_owned(), row);
                }
            }
            (dataset, Some(rows))
        };
        let root = match rows {
            // Links inside the folder do not move it.
            Some(_) if path.is_dir() => {
                let root = path.canonicalize();
                Some(root.with_context(|| format!("cannot open {}", path.display()))?)
            }
            Some(_) => None,
            None => root(&dataset),
        };
        Ok(Self { dataset, rows, root, max_pixels, cache: Mutex::default() })
    }

    /// Returns the row of an item.
    fn row(&self, id: u64, name: Option<&str>) -> Option<u32> {
        match (&self.rows, name) {
            (Some(rows), Some(name)) => rows.get(plain(Path::new(name))).copied(),
            (None, None) => u32::try_from(id).ok().filter(|&row| (row as usize) < self.dataset.len()),
            _ => None,
        }
    }

    fn picture(&self, row: u32) -> Result<Picture> {
        let cache = || self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = cache().pictures.get(&row) {
            return known.clone().map_err(Error::msg);
        }
        if let (Some(root), Some(file)) = (&self.root, self.dataset.path(row as usize)) {
            let file = file.canonicalize().context("the file of the picture is gone")?;
            ensure!(file.starts_with(root), "the picture is a link out of its folder");
        }
        let picture = match self.dataset.thumbnail(row as usize, SIDE, self.max_pixels) {
            // The file may be there again later.
            Err(error @ dpq_data::Error::Io { .. }) => return Err(error.into()),
            Err(error) => Err(format!("{:#}", Error::from(error))),
            Ok(made) => Ok(Picture { content_type: made.content_type, bytes: made.bytes.into() }),
        };
        let size = |picture: &Result<Picture, String>| {
            ENTRY + picture.as_ref().map_or_else(String::len, |picture| picture.bytes.len())
        };
        let mut cache = cache();
        if cache.n_bytes + size(&picture) > CACHE {
            *cache = Cache::default();
        }
        cache.n_bytes += size(&picture);
        // Another thread may have made the same one meanwhile.
        if let Some(old) = cache.pictures.insert(row, picture.clone()) {
            cache.n_bytes -= size(&old);
        }
        picture.map_err(Error::msg)
    }
}

/// Returns a path without a leading `./`. Comparing paths ignores other such parts.
fn plain(path: &Path) -> &Path {
    path.strip_prefix(Component::CurDir).unwrap_or(path)
}

/// Returns the folder that holds all images of a data set, if they are files.
fn root(dataset: &Dataset) -> Option<PathBuf> {
    let mut paths = (0..dataset.len()).filter_map(|row| dataset.path(row)?.parent());
    let first = paths.next()?.to_owned();
    let root = paths.fold(first, |mut root, path| {
        while !path.starts_with(&root) && root.pop() {}
        root
    });
    // Paths inside an archive lead nowhere on the disk.
    Path::new(".").join(root).canonicalize().ok()
}

impl Catalog for Pictures {
    fn name(&self, id: u64) -> Option<&str> {
        self.names.get(usize::try_from(id).ok()?).map(String::as_str)
    }

    fn labels(&self, id: u64, name: Option<&str>) -> Vec<&str> {
        let Some(images) = &self.images else { return Vec::new() };
        let classes = images.row(id, name).map_or(&[][..], |row| images.dataset.labels(row as usize));
        classes.iter().map(|&class| images.dataset.class_names()[class as usize].as_str()).collect()
    }

    fn has_picture(&self, id: u64, name: Option<&str>) -> bool {
        self.images.as_ref().is_some_and(|images| images.row(id, name).is_some())
    }

    fn picture(&self, id: u64, name: Option<&str>) -> Result<Option<Picture>, String> {
        let found = self.images.as_ref().and_then(|images| Some((images, images.row(id, name)?)));
        let picture = found.map(|(images, row)| images.picture(row)).transpose();
        picture.map_err(|error| format!("there is no picture of id {id}: {error:#}"))
    }
}

/// Returns the function that draws the map of a gallery.
pub(crate) fn draw_map() -> Arc<DrawMap> {
    Arc::new(|vectors, dim| {
        let (method, points) = dpq_report::place(vectors, dim).map_err(|error| error.to_string())?;
        Ok(Drawn { method, points })
    })
}
