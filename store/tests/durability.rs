//! Durability against kill -9: a child writes, the parent kills it and looks.

mod rig;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use rig::writer::{self, Answered};

/// Not a test of its own: the process that the others kill.
#[test]
#[ignore = "the child of the tests here"]
fn child() {
    writer::run();
}

/// Lets a child send, kills it after `sends` answers, and collects everything it was answered.
fn run_and_kill(path: &Path, young: usize, sends: usize, answered: &mut Answered) {
    let mut child = Command::new(std::env::current_exe().expect("this test"))
        .args(["--exact", "child", "--ignored", "--nocapture"])
        .env(writer::PATH, path)
        .env(writer::YOUNG, young.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the child starts");
    let output = BufReader::new(child.stdout.take().expect("piped"));
    let mut seen = 0;
    for line in output.lines() {
        seen += usize::from(answered.take(&line.expect("text")));
        if seen == sends {
            child.kill().expect("kill -9");
        }
    }
    child.wait().expect("the child is gone");
    assert!(seen >= sends, "the child answered {seen} of {sends}");
}

#[test]
fn r11_nothing_answered_is_lost_by_kill_9() {
    // With little kept young every few commits begin a checkpoint, so that kills meet those too.
    for young in [1 << 20, 2_000] {
        let folder = tempfile::tempdir().expect("a folder");
        let mut answered = Answered::default();
        for sends in [1, 30, 80] {
            run_and_kill(folder.path(), young, sends, &mut answered);
            writer::verify_copy(folder.path(), &answered);
        }
    }
}
