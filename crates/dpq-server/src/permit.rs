//! The right of a request to take memory.

use std::sync::Arc;

use axum::body::Bytes;
use tokio::sync::OwnedSemaphorePermit;

/// The right of a request to take memory: while it works or waits for a thread, and until its
/// answer is written.
pub(crate) type Permit = Arc<OwnedSemaphorePermit>;

/// Keeps the permit of a request until its answer is written.
struct Held<T> {
    bytes: T,
    _permit: Permit,
}

impl<T: AsRef<[u8]>> AsRef<[u8]> for Held<T> {
    fn as_ref(&self) -> &[u8] {
        self.bytes.as_ref()
    }
}

/// Makes the body of an answer, which takes memory until the client has read it.
pub(crate) fn held(bytes: impl AsRef<[u8]> + Send + 'static, permit: Permit) -> Bytes {
    Bytes::from_owner(Held { bytes, _permit: permit })
}
