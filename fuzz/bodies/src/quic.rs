//! The transport: its parsers, and connections under hostile input.

pub mod frames;
pub mod hostile;
pub mod mixed;
pub mod operations;
pub mod packet;
pub mod params;
pub mod tokens;

mod drive;
mod model;

/// The network, nodes and handshakes of the crate's own tests.
#[path = "../../../quic/tests/common/mod.rs"]
pub(crate) mod common;
