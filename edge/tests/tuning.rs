//! `tuning/apply` and `tuning/undo` on a folder that stands for a host.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const RMEM_MAX: &str = "proc/sys/net/core/rmem_max";
const WMEM_MAX: &str = "proc/sys/net/core/wmem_max";
const LIMITS: &str = "etc/security/limits.d/90-roadstead.conf";
const AFFINITY: &str = "proc/irq/7/smp_affinity_list";

/// A host with small buffers, a larger one, a file of the operator's, and a device with an interrupt.
fn host() -> tempfile::TempDir {
    let root = tempfile::tempdir().expect("a directory");
    let files = [
        (RMEM_MAX, "212992\n"),
        (WMEM_MAX, "99999999\n"),
        (LIMITS, "the operator's own\n"),
        (AFFINITY, "0-63\n"),
        ("sys/class/net/testnic0/operstate", "up\n"),
        ("sys/class/net/testnic0/device/msi_irqs/7", "msi\n"),
        ("sys/class/net/testnic0/queues/rx-0/rps_cpus", "0\n"),
    ];
    for (path, text) in files {
        let path = root.path().join(path);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        std::fs::write(path, text).expect("written");
    }
    root
}

fn run(script: &str, root: &Path, arguments: &[&str]) -> Output {
    let script = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../tuning")
        .join(script);
    Command::new("bash")
        .arg(script)
        .args(arguments)
        .env("TUNING_ROOT", root)
        .output()
        .expect("bash runs")
}

fn succeeds(script: &str, root: &Path, arguments: &[&str]) -> String {
    let output = run(script, root, arguments);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}{errors}");
    said
}

fn fails(script: &str, root: &Path, arguments: &[&str]) -> String {
    let output = run(script, root, arguments);
    assert!(!output.status.success());
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Every file below a folder with its text, without the newline that a value of /proc ends with.
fn tree(folder: &Path) -> BTreeMap<PathBuf, String> {
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            files.extend(tree(&path));
        } else {
            let text = std::fs::read_to_string(&path).expect("text");
            files.insert(path, text.trim_end().to_owned());
        }
    }
    files
}

fn read(root: &Path, path: &str) -> String {
    std::fs::read_to_string(root.join(path)).expect("it is there")
}

/// Everything but the table of nftables, which is the kernel's and not the folder's.
const PARTS: [&str; 4] = ["sysctl", "limits", "unit", "nic"];

#[test]
fn nothing_changes_without_write() {
    let host = host();
    let before = tree(host.path());
    let said = succeeds("apply", host.path(), &PARTS);
    assert!(said.contains("rmem_max = 16777216 (was 212992)"), "{said}");
    assert!(said.contains("nothing was changed"), "{said}");
    assert_eq!(tree(host.path()), before);
}

#[test]
fn undo_restores_what_was_there() {
    let host = host();
    let before = tree(host.path());
    let write: Vec<&str> = PARTS.into_iter().chain(["--write"]).collect();
    succeeds("apply", host.path(), &write);
    assert_eq!(read(host.path(), RMEM_MAX), "16777216");
    assert_eq!(read(host.path(), WMEM_MAX), "99999999\n", "never lowered");
    assert_eq!(read(host.path(), AFFINITY), "0");
    assert!(read(host.path(), LIMITS).contains("nofile"));
    assert!(read(host.path(), "etc/systemd/system/roadstead.service").contains("io_uring_setup"));

    // A second time would take the changes for what was there before.
    let error = fails("apply", host.path(), &write);
    assert!(error.contains("tuning/undo"), "{error}");

    let said = succeeds("undo", host.path(), &[]);
    assert!(said.contains("nothing was changed"), "{said}");
    assert_eq!(read(host.path(), RMEM_MAX), "16777216");
    succeeds("undo", host.path(), &["--write"]);
    assert_eq!(tree(host.path()), before);
    let error = fails("undo", host.path(), &["--write"]);
    assert!(error.contains("nothing to undo"), "{error}");
}

#[test]
fn unknown_words_are_refused() {
    let host = host();
    assert!(fails("apply", host.path(), &["--wirte"]).contains("--wirte"));
    assert!(fails("undo", host.path(), &["all"]).contains("undo"));
}
