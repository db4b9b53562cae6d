//! Runs one input through its target with a stable compiler, for a debugger or a profiler:
//! `cargo run -p roadstead-fuzz-bodies --example replay -- TARGET FILE`.

use std::process::ExitCode;

fn main() -> std::io::Result<ExitCode> {
    let mut arguments = std::env::args().skip(1);
    let (Some(name), Some(path)) = (arguments.next(), arguments.next()) else {
        return Ok(ExitCode::from(2));
    };
    let Some(target) = roadstead_fuzz_bodies::target(&name) else {
        return Ok(ExitCode::from(2));
    };
    (target.run)(&std::fs::read(path)?);
    Ok(ExitCode::SUCCESS)
}
