//! Runs one input through its target with a stable compiler, for a debugger or a profiler:
//! `cargo run -p roadstead-fuzz-bodies --example replay -- TARGET FILE`.

use std::io;

fn main() -> io::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [name, path] = &arguments[..] else {
        return Err(io::Error::other("replay TARGET FILE"));
    };
    let target = roadstead_fuzz_bodies::target(name)
        .ok_or_else(|| io::Error::other(format!("no target {name}")))?;
    (target.run)(&std::fs::read(path)?);
    Ok(())
}
