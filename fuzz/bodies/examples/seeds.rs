//! Writes the seeds of every target into its corpus: `cargo xtask fuzz seeds`.

use std::fs;
use std::path::Path;

use roadstead_fuzz_bodies::TARGETS;

fn main() -> std::io::Result<()> {
    let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("../corpus");
    for target in TARGETS {
        let folder = corpora.join(target.name);
        fs::create_dir_all(&folder)?;
        for (n, seed) in (target.seeds)().into_iter().enumerate() {
            fs::write(folder.join(format!("seed-{n:02}")), seed)?;
        }
    }
    Ok(())
}
