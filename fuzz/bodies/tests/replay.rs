//! Every input of every corpus through its target: what fuzzing once found stays found, with a stable
//! compiler and without libFuzzer.

#![allow(
    clippy::print_stdout,
    reason = "counts, and the name of an input that fails"
)]

use std::fs;
use std::path::PathBuf;

use roadstead_fuzz_bodies::{TARGETS, target};

fn corpora() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../corpus")
}

#[test]
fn every_corpus_is_replayed() {
    let mut total = 0;
    for target in TARGETS {
        let folder = corpora().join(target.name);
        let entries =
            fs::read_dir(&folder).expect("`cargo xtask fuzz seeds` makes a corpus for each");
        let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("a name").path()).collect();
        paths.sort();
        assert!(!paths.is_empty(), "{}", folder.display());
        for path in &paths {
            // The name of the input that fails is the last line before the panic.
            println!("{}", path.display());
            (target.run)(&fs::read(path).expect("it reads"));
        }
        println!("{}: {} inputs", target.name, paths.len());
        total += paths.len();
    }
    println!("{} targets, {total} inputs", TARGETS.len());
}

#[test]
fn every_corpus_and_every_binary_has_a_target() {
    for entry in fs::read_dir(corpora()).expect("there are corpora") {
        let name = entry
            .expect("a name")
            .file_name()
            .into_string()
            .expect("ASCII");
        assert!(target(&name).is_some(), "{name}");
    }
    let manifest = corpora().join("../Cargo.toml");
    let manifest = fs::read_to_string(manifest).expect("it reads");
    for target in TARGETS {
        let line = format!("name = \"{}\"", target.name);
        assert!(manifest.contains(&line), "{line} in fuzz/Cargo.toml");
    }
}

#[test]
fn every_target_takes_its_seeds_and_nothing() {
    for target in TARGETS {
        (target.run)(&[]);
        for seed in (target.seeds)() {
            (target.run)(&seed);
        }
    }
}
