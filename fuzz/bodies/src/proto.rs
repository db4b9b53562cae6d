//! The wire of sessions.

pub mod frames;
