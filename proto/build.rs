//! Compiles the schema with a compiler written in Rust, so that a build needs no protoc.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=schema");
    let schema = protox::compile(["roadstead/v1/session.proto"], ["schema"])?;
    prost_build::Config::new()
        // Payloads stay slices of the received packet; nothing is copied on the way to the store.
        .bytes(["."])
        .compile_fds(schema)?;
    Ok(())
}
