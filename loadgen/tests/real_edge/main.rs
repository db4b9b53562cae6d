//! The binary against a real edge: what docs/LOADGEN.md promises, on some hundred sessions.

mod agents;
mod fanout;
mod hostile;
mod interrupt;
mod memory;
mod reports;
mod scenario_files;
mod search;

#[path = "../support/mod.rs"]
mod support;
