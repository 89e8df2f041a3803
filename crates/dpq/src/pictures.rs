//! The pictures, names and classes that `dpq serve` knows of items.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
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
    rows: Option<HashMap<String, u32>>,
    /// The folder that no picture leaves, if images are files of it.
    root: Option<PathBuf>,
    cache: Mutex<Cache>,
}

#[derive(Default)]
struct Cache {
    pictures: HashMap<u32, Picture>,
    n_bytes: usize,
}

impl Pictures {
    /// Opens the images of a data set, a folder or an archive, and the names of ids.
    pub(crate) fn open(images: Option<&Path>, names: Option<&Path>) -> Result<Self> {
        let names = names.map(read_lines).transpose()?.unwrap_or_default();
        Ok(Self { names, images: images.map(Images::open).transpose()? })
    }
}

impl Images {
    fn open(path: &Path) -> Result<Self> {
        if path.join("dataset.toml").is_file() {
            return Ok(Self::new(Dataset::open(path)?, None, None));
        }
        let dataset = Dataset::from_folder(path, SHAPE)?;
        images::report_skipped(&dataset);
        let root = path.is_dir().then(|| path.canonicalize()).transpose();
        let root = root.with_context(|| format!("cannot open {}", path.display()))?;
        let mut rows = HashMap::new();
        for row in 0..dataset.len() as u32 {
            let file = dataset.path(row as usize).context("images of a folder have paths")?;
            rows.insert(file.display().to_string(), row);
            if let Ok(inside) = file.strip_prefix(path) {
                rows.insert(inside.display().to_string(), row);
            }
        }
        Ok(Self::new(dataset, Some(rows), root))
    }

    fn new(dataset: Dataset, rows: Option<HashMap<String, u32>>, root: Option<PathBuf>) -> Self {
        Self { dataset, rows, root, cache: Mutex::default() }
    }

    /// Returns the row of an item.
    fn row(&self, id: u64, name: Option<&str>) -> Option<u32> {
        match (&self.rows, name) {
            (Some(rows), Some(name)) => rows.get(name).copied(),
            (None, None) => u32::try_from(id).ok().filter(|&row| (row as usize) < self.dataset.len()),
            _ => None,
        }
    }

    fn picture(&self, row: u32) -> Result<Picture> {
        let cache = || self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(picture) = cache().pictures.get(&row) {
            return Ok(picture.clone());
        }
        if let (Some(root), Some(file)) = (&self.root, self.dataset.path(row as usize)) {
            let file = file.canonicalize().context("the file of the picture is gone")?;
            anyhow::ensure!(file.starts_with(root), "the picture is a link out of its folder");
        }
        let thumbnail = self.dataset.thumbnail(row as usize, SIDE)?;
        let picture = Picture { content_type: thumbnail.content_type, bytes: thumbnail.bytes.into() };
        let mut cache = cache();
        if cache.n_bytes + picture.bytes.len() > CACHE {
            *cache = Cache::default();
        }
        cache.n_bytes += picture.bytes.len();
        cache.pictures.insert(row, picture.clone());
        Ok(picture)
    }
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
