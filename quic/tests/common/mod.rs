//! What the integration tests share: a seeded network, nodes of both engines, handshakes.
#![allow(dead_code, reason = "each test target uses a part of it")]
#![allow(missing_docs, unreachable_pub, reason = "test code")]

pub mod fake;
pub mod net;
pub mod own;
pub mod quinn;
pub mod real;
pub mod rig;
pub mod session;
pub mod stranger;
pub mod wire;
