//! A real edge process and a client that can say anything to it.

#![allow(dead_code, reason = "each test file uses its part")]

pub(crate) mod client;
pub(crate) mod edge;

pub(crate) use client::{Client, Expect, chat};
pub(crate) use edge::Edge;

use std::time::Duration;

/// The longest that anything in a test may take before it counts as hanging.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Awaits something that must happen.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what} did not happen within {PATIENCE:?}"),
    }
}
