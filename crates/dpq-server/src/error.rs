//! The errors of starting a server.

use std::io;
use std::net::SocketAddr;

/// An error of starting or running a server. Requests that fail are answered, and do not end it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The address can be reached from other machines, and anybody there could change the gallery.
    #[error("{address} is open to other machines, give a token that writes need, or listen at 127.0.0.1")]
    Exposed {
        /// The address.
        address: SocketAddr,
    },
    /// The token is empty, or cannot be part of a request.
    #[error("the token is empty or has characters other than visible ASCII, give another one")]
    Token,
    /// An option or a limit is too small or too large.
    #[error(transparent)]
    Limit(#[from] dpq_codebook::Error),
    /// The system refused a thread or the network.
    #[error("cannot {action}")]
    Io {
        /// The action, as a verb.
        action: &'static str,
        /// The system's reason.
        source: io::Error,
    },
    /// The last commit of a live index cannot be searched.
    #[error(transparent)]
    Live(#[from] dpq_live::Error),
}

impl Error {
    pub(crate) fn io(action: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, source }
    }
}
