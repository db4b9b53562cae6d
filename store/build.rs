//! Finds the FoundationDB client library, if the feature asks for it.
#![allow(
    clippy::print_stdout,
    reason = "this is how a build script speaks to cargo"
)]

use std::env;
use std::path::{Path, PathBuf};

const LIBRARY: &str = "libfdb_c.so";

/// Names a folder that holds the library, as for the bindings.
const VARIABLE: &str = "FDB_CLIENT_LIB_PATH";

/// Where packages and people put it.
const PLACES: [&str; 5] = [
    "/usr/lib",
    "/usr/local/lib",
    "/usr/lib64",
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
];

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed={VARIABLE}");
    if env::var_os("CARGO_FEATURE_FOUNDATIONDB").is_none() {
        return;
    }
    let named = env::var_os(VARIABLE).map(PathBuf::from);
    let mut places = named.into_iter().chain(PLACES.map(PathBuf::from));
    match places.find(|place| holds_library(place)) {
        Some(place) => println!("cargo::rustc-link-search=native={}", place.display()),
        None => println!(
            "cargo::warning=the FoundationDB client library ({LIBRARY}) was not found in {}: checks \
             pass, but nothing with the feature `foundationdb` will link. Install the client package \
             of FoundationDB 7.3 or newer, or set {VARIABLE} to the folder of the library.",
            PLACES.join(", ")
        ),
    }
}

fn holds_library(place: &Path) -> bool {
    place.join(LIBRARY).exists()
}
