//! The feature that needs a library, a tool and a server that most machines do not have: what can be done
//! without them is done, and what was not is said.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::say;
use crate::steps::{cargo, run};

/// Longer than the tests take on a slow machine. A cluster that does not answer should not keep a run.
const SECONDS_MAX: &str = "1200";

const PACKAGES: [&str; 4] = ["-p", "roadstead-store", "-p", "roadstead-edge"];
const FEATURE: [&str; 2] = ["--features", "foundationdb"];

/// Where `store/build.rs` looks for the client library, behind `FDB_CLIENT_LIB_PATH`.
const CLIENT_PLACES: [&str; 5] = [
    "/usr/lib",
    "/usr/local/lib",
    "/usr/lib64",
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
];

/// Where distributions put libclang, which makes the bindings.
const CLANG_PLACES: [&str; 4] = [
    "/usr/lib",
    "/usr/lib64",
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
];

/// What every run of CI does: all of it with a server, and without one no more than the types, as the tests
/// on the model take minutes to build.
pub(crate) fn check_in_ci() -> anyhow::Result<()> {
    if has_server() || !has_libclang() {
        return check();
    }
    type_check()?;
    say(
        "FoundationDB: type-checked only. FDB_CLUSTER_FILE names no cluster, and fdbserver and fdbcli \
         are not on the PATH; cargo xtask foundationdb runs what needs no server",
    );
    Ok(())
}

pub(crate) fn check() -> anyhow::Result<()> {
    if !has_libclang() {
        say("FoundationDB: not even type-checked, because libclang is not installed");
        return Ok(());
    }
    if !has_client() {
        type_check()?;
        say("FoundationDB: type-checked only, because its client library is not installed");
        return Ok(());
    }
    let program = cargo().get_program().to_owned();
    let mut bounded = Command::new("timeout");
    bounded.arg(SECONDS_MAX).arg(program).arg("test");
    run(bounded.args(PACKAGES).args(FEATURE))?;
    if !has_server() {
        say(
            "FoundationDB: tested on a model only. FDB_CLUSTER_FILE names no cluster, and fdbserver \
             and fdbcli are not on the PATH: what needs a server was skipped",
        );
    }
    Ok(())
}

fn type_check() -> anyhow::Result<()> {
    let targets = ["check", "--all-targets"];
    run(cargo().args(targets).args(PACKAGES).args(FEATURE))
}

fn has_client() -> bool {
    let named = env::var_os("FDB_CLIENT_LIB_PATH").map(PathBuf::from);
    let mut places = named.into_iter().chain(CLIENT_PLACES.map(PathBuf::from));
    places.any(|place| place.join("libfdb_c.so").exists())
}

/// Tests that stop and kill a server start their own; the others take the one that is named.
fn has_server() -> bool {
    let programs = ["fdbserver", "fdbcli"].iter().all(|name| is_program(name));
    programs || env::var_os("FDB_CLUSTER_FILE").is_some()
}

fn is_program(name: &str) -> bool {
    let mut version = Command::new(name);
    let quiet = version.arg("--version").stdout(Stdio::null());
    quiet.status().is_ok_and(|status| status.success())
}

fn has_libclang() -> bool {
    let named = env::var_os("LIBCLANG_PATH").map(PathBuf::from);
    let llvm = folders(Path::new("/usr/lib")).map(|folder| folder.join("lib"));
    let places = named.into_iter().chain(CLANG_PLACES.map(PathBuf::from));
    places.chain(llvm).any(|place| {
        let names = std::fs::read_dir(place).into_iter().flatten().flatten();
        let mut names = names.map(|entry| entry.file_name());
        names.any(|name| is_libclang(&name.to_string_lossy()))
    })
}

/// `libclang.so` and `libclang-14.so.1`, but not `libclang-cpp.so.14`, which is another library.
fn is_libclang(name: &str) -> bool {
    let version = name.strip_prefix("libclang-").unwrap_or_default();
    name.starts_with("libclang.so") || version.starts_with(|c: char| c.is_ascii_digit())
}

/// `llvm-14` and the like.
fn folders(path: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    let is_llvm = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default();
        name.to_string_lossy().starts_with("llvm-")
    };
    entries.map(|entry| entry.path()).filter(is_llvm)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_library_is_not_taken_for_its_neighbour() {
        assert!(
            ["libclang.so", "libclang.so.1", "libclang-14.so.13"].map(is_libclang) == [true; 3]
        );
        assert!(!is_libclang("libclang-cpp.so.14") && !is_libclang("libclangBasic.a"));
    }
}
