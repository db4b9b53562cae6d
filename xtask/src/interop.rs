//! The protocol seen by a stranger: the walk of `interop/python` speaks every frame of it with another language,
//! another QUIC stack and another reading of the schema. The matrix of QUIC stacks beside it is not run here: its
//! peers take minutes to compile.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use anyhow::{Context, ensure};

use crate::steps::{binary, build, run};

/// Both engines of the server keep the same promises.
const ENGINES: [&str; 2] = ["lean", "quinn"];

/// Walks through a server that stands in `--server PATH`, or through one that is built first.
pub(crate) fn walk(options: &[String]) -> anyhow::Result<()> {
    let server = match options {
        [] => {
            build()?;
            binary("roadstead")
        }
        [option, path] if option == "--server" => env::current_dir()?.join(path),
        _ => anyhow::bail!("interop takes --server PATH or nothing"),
    };
    let python = environment()?;
    let root = root();
    ENGINES.into_iter().try_for_each(|engine| {
        run(Command::new(&python)
            .args(["-m", "walk", "--engine", engine, "--server"])
            .arg(&server)
            .arg("--repository")
            .arg(&root)
            .current_dir(folder())
            .env("PYTHONDONTWRITEBYTECODE", "1"))
    })
}

/// The interpreter of a virtual environment with the pinned packages, made once for each state of the pins.
fn environment() -> anyhow::Result<PathBuf> {
    let file = folder().join("requirements.txt");
    let pins = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
    let home = binary("interop-venv");
    let python = home.join("bin/python");
    let installed = home.join("installed.txt");
    if fs::read_to_string(&installed).is_ok_and(|text| text == pins) {
        return Ok(python);
    }
    ensure!(
        has_venv(),
        "the walk needs Python 3 with venv: apt-get install python3-venv"
    );
    run(Command::new("python3")
        .args(["-m", "venv", "--clear"])
        .arg(&home))?;
    // Wheels only: what builds a source package is pinned by nobody.
    run(Command::new(&python)
        .args([
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
        ])
        .args(["--require-hashes", "--only-binary", ":all:", "-r"])
        .arg(&file))?;
    fs::write(&installed, pins).with_context(|| installed.display().to_string())?;
    Ok(python)
}

fn has_venv() -> bool {
    let modules = Command::new("python3")
        .args(["-c", "import ensurepip, venv"])
        .status();
    modules.is_ok_and(|status| status.success())
}

fn folder() -> PathBuf {
    root().join("interop/python")
}

fn root() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest).to_owned()
}
