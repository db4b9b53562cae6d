//! What the server process reads: credentials and its configuration.
//!
//! The admin HTTP has no target: its three routes are GETs without parameters, and nothing of this
//! repository reads a body.

pub mod config;
pub mod tickets;
pub mod tokens;
