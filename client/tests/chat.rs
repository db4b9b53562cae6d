//! The terminal client as a process.

use std::process::{Command, Stdio};

#[test]
fn fd13_without_a_terminal_there_is_an_error_and_nothing_is_written() {
    let folder = tempfile::tempdir().expect("a folder");
    let state = folder.path().join("state");
    let output = Command::new(env!("CARGO_BIN_EXE_roadstead-chat"))
        .args(["--user", "1", "--state"])
        .arg(&state)
        .stdin(Stdio::null())
        .output()
        .expect("starts");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(output.stdout.is_empty(), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("terminal"), "{said}");
    assert!(!state.exists());
}
