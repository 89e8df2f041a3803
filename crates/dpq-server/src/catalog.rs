//! Names, classes, pictures and a map of items, which the caller of the library knows.

use std::sync::Arc;

/// Tells names, classes and pictures of items. Several threads ask at once.
///
/// `name` is the name that the gallery has for the item, or else that of [`Catalog::name`].
pub trait Catalog: Send + Sync {
    /// Returns the name of an item that has none in the gallery.
    fn name(&self, id: u64) -> Option<&str>;

    /// Returns the names of the classes of an item, none if they are not known.
    fn labels(&self, id: u64, name: Option<&str>) -> Vec<&str>;

    /// Returns true if the item has a picture.
    fn has_picture(&self, id: u64, name: Option<&str>) -> bool;

    /// Returns the picture of an item, which is `None` if it has none, or says in one sentence why
    /// it cannot.
    fn picture(&self, id: u64, name: Option<&str>) -> Result<Option<Picture>, String>;
}

/// The picture of an item, small enough for a page of many.
#[derive(Clone, Debug)]
pub struct Picture {
    /// The kind of file, such as `image/png`.
    pub content_type: &'static str,
    /// The contents of the file.
    pub bytes: Arc<[u8]>,
}

/// Draws vectors `[n, dim]` on a plane, or says in one sentence why it cannot. A server calls it
/// once, in a thread of its own.
pub type DrawMap = dyn Fn(&[f32], usize) -> Result<Drawn, String> + Send + Sync;

/// Vectors on a plane.
#[derive(Clone, Debug)]
pub struct Drawn {
    /// How they were drawn, such as `t-SNE`.
    pub method: &'static str,
    /// The place of each.
    pub points: Vec<[f32; 2]>,
}
