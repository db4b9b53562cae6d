//! What a misspelt task says.

use std::process::Command;

/// It printed the help and ended with 0: a pipeline with a misspelt task passed for ever.
#[test]
fn fd7_a_task_that_there_is_not_is_exit_code_64() {
    let xtask = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
        command.args(arguments).output().expect("it runs")
    };
    let output = xtask(&["nonsense"]);
    assert_eq!(output.status.code(), Some(64));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains("\"nonsense\""), "{said}");
    assert_eq!(xtask(&["help"]).status.code(), Some(0));
    assert_eq!(xtask(&["--help"]).status.code(), Some(0));
    assert_eq!(xtask(&[]).status.code(), Some(0));
}
