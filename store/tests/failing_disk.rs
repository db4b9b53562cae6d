//! R10: a disk that answers EIO. A child writes under a shim that makes syncs, writes or opens fail on order.

mod rig;

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};

use rig::ask::Ask;
use rig::writer::{self, Answered};
use rig::{PATIENCE, Rig, device, item, user};
use roadstead::store::{Command as Ask_, InboxLimits, Outcome, Sends, StoreError};
use roadstead_faulty_disk::{EIO, FailingDisk};

/// Not a test of its own: the process whose disk fails. It sends, and sends again what was refused.
#[test]
#[ignore = "the child of the tests here"]
#[allow(clippy::print_stdout, reason = "the parent listens")]
fn child() {
    let Ok(path) = std::env::var(writer::PATH) else {
        return;
    };
    let mut rig = Rig::open(Path::new(&path));
    let (alice, bob) = ((user(1), device(1)), (user(2), device(2)));
    rig.open(bob);
    rig.open(alice);
    let mut number = 1;
    loop {
        let sends = Sends {
            user: alice.0,
            device: alice.1,
            limits: InboxLimits::DEFAULT,
            items: vec![item(alice, bob.0, number, b"hello")],
        };
        let answer = match rig.ask(Ask_::Send(sends)) {
            Ok(Outcome::Sent { answers, .. }) => answers[0],
            Ok(other) => panic!("{other:?}"),
            Err(error) => Err(error),
        };
        match answer {
            Ok(sent) => {
                let bytes = sent.position.as_bytes().iter();
                let hex: String = bytes.map(|byte| format!("{byte:02x}")).collect();
                println!("sent {number} {hex}");
                number += 1;
            }
            Err(error) => {
                assert_eq!(
                    error,
                    StoreError::Unavailable,
                    "and so it may be tried again"
                );
                println!("refused {number}");
                // The store is being reopened by a thread whose progress only asking shows.
                std::thread::park_timeout(std::time::Duration::from_millis(5));
            }
        }
    }
}

struct Writer {
    child: Child,
    lines: Receiver<String>,
}

impl Writer {
    fn start(failing: &FailingDisk, disk: &Path) -> Self {
        let mut child = Command::new(std::env::current_exe().expect("this test"))
            .args(["--exact", "child", "--ignored", "--nocapture"])
            .env(writer::PATH, disk)
            .envs(failing.environment(disk))
            .stdout(Stdio::piped())
            .spawn()
            .expect("the child starts");
        let output = BufReader::new(child.stdout.take().expect("piped"));
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                // The test may have seen enough.
                let _ = sender.send(line);
            }
        });
        Self { child, lines }
    }

    /// Reads on until so many lines of a kind have come; how many of the other kind came.
    fn until(&self, kind: &str, count: usize, answered: &mut Answered) -> usize {
        let (mut seen, mut others) = (0, 0);
        while seen < count {
            let line = self
                .lines
                .recv_timeout(PATIENCE)
                .expect("the child goes on");
            let is_sent = answered.take(&line);
            match is_sent == (kind == "sent") && (is_sent || line.contains("refused ")) {
                true => seen += 1,
                false => others += usize::from(is_sent || line.contains("refused ")),
            }
        }
        others
    }

    /// Kills the child, and reads what it had said until then.
    fn kill(mut self, answered: &mut Answered) {
        self.stop();
        for line in self.lines.iter() {
            answered.take(&line);
        }
    }

    fn stop(&mut self) {
        // Neither fails but for a child that has ended by itself, which `until` notices.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.stop();
    }
}

fn survives(calls: &str) {
    let folder = tempfile::tempdir().expect("a folder");
    let failing = FailingDisk::build(folder.path()).expect("it compiles");
    let Some(failing) = failing else {
        return skipped();
    };
    let disk = folder.path().join("store");
    fs::create_dir(&disk).expect("a folder");
    let mut answered = Answered::default();
    let writer = Writer::start(&failing, &disk);
    writer.until("sent", 20, &mut answered);
    for _ in 0..3 {
        failing.fail(calls, EIO).expect("writes");
        // What was under way before the order may still be answered; then nothing is.
        writer.until("refused", 1, &mut answered);
        let served = writer.until("refused", 3, &mut answered);
        assert_eq!(served, 0, "something is served while every {calls} fails");
        failing.mend().expect("removes");
        writer.until("sent", 20, &mut answered);
    }
    writer.kill(&mut answered);
    writer::verify_copy(&disk, &answered);
}

#[test]
fn r10_a_sync_that_fails_is_never_served_and_loses_nothing() {
    survives("sync");
}

#[test]
fn r10_a_write_that_fails_is_never_served_and_loses_nothing() {
    survives("write open");
}

#[allow(clippy::print_stderr, reason = "a test that did not run says so")]
fn skipped() {
    eprintln!("skipped: no rustc to build the shim with");
}
