//! Errors of set-up and of the loop. What goes wrong with one connection is a
//! [`CloseReason`](crate::CloseReason).

use std::{io, net::SocketAddr};

/// Why a server or client could not start, or why a loop had to end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The kernel has no io_uring, or not the parts that are needed.
    #[error(
        "this kernel lacks {what} of io_uring, which Roadstead needs (Linux 6.1 or newer): {source}"
    )]
    RingMissing {
        /// The missing part.
        what: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// io_uring is there, and this process may not use it.
    #[error(
        "io_uring is forbidden for this process: {reason}; allow it with `sysctl kernel.io_uring_disabled=0` \
         (1 allows only members of kernel.io_uring_group), or in the seccomp profile of the container \
         (io_uring_setup, io_uring_enter, io_uring_register): {source}"
    )]
    RingForbidden {
        /// Which switch forbids it, as far as can be told.
        reason: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// Memory that io_uring pins is limited and stayed used up.
    #[error(
        "no memory for an io_uring after {attempts} attempts; raise RLIMIT_MEMLOCK (LimitMEMLOCK= in systemd): {source}"
    )]
    RingMemory {
        /// How often it was tried.
        attempts: u32,
        /// The kernel's answer.
        source: io::Error,
    },
    /// Another process, or another instance of this one, has the port (T17).
    #[error("{address} is in use by another process")]
    PortInUse {
        /// The address.
        address: SocketAddr,
    },
    /// A socket call failed.
    #[error("{call} for {address}: {source}")]
    Socket {
        /// The call.
        call: &'static str,
        /// The address it was for.
        address: SocketAddr,
        /// The kernel's answer.
        source: io::Error,
    },
    /// Another system call failed.
    #[error("{call}: {source}")]
    System {
        /// The call.
        call: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A value of the configuration cannot be used.
    #[error("configuration: {0}")]
    Config(String),
    /// A certificate, key or ticket file cannot be used.
    #[error("TLS: {0}")]
    Tls(String),
}

impl From<rustls::Error> for Error {
    fn from(error: rustls::Error) -> Self {
        Self::Tls(error.to_string())
    }
}

/// Why a connection could not even be started.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// This thread is a server's.
    #[error("this thread has no client configuration")]
    NotAClient,
    /// No socket of this thread fits the remote address's family, or the chosen one does not exist.
    #[error("no socket for {0}")]
    NoSocket(SocketAddr),
    /// The engine refused.
    #[error("{0}")]
    Engine(String),
}
