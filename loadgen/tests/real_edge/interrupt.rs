//! A run that is ended before its time: it tells what it knows, and leaves nothing behind.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::support::{Done, Edge, loadgen, roadstead};

const PATIENCE: Duration = Duration::from_secs(60);

/// A run of ten minutes with an edge of its own.
struct Run {
    child: Child,
    lines: BufReader<ChildStderr>,
    edge: u32,
    /// The edge's folder.
    data: PathBuf,
}

impl Run {
    /// Once messages go.
    fn start(folder: &Path) -> Self {
        let mut child = loadgen()
            .args(["chat", "--start-edge", "--sessions", "20", "--ramp", "200"])
            .args(["--rate", "50", "--duration", "600", "--edge"])
            .arg(roadstead())
            .arg("--json")
            .arg(folder.join("run.json"))
            .arg("--csv")
            .arg(folder.join("run.csv"))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it runs");
        let mut lines = BufReader::new(child.stderr.take().expect("piped"));
        let (mut edge, mut line) = (0, String::new());
        while !line.contains("exchange") || line.contains("sent=0 ") {
            line.clear();
            let length = lines.read_line(&mut line).expect("text");
            assert!(length > 0, "it ended");
            if let Some(said) = line.strip_prefix("edge ") {
                let pid = said.split(' ').next().and_then(|pid| pid.parse().ok());
                edge = pid.expect("a process id");
            }
        }
        let command = std::fs::read_to_string(format!("/proc/{edge}/cmdline")).expect("it runs");
        let mut words = command.split('\0').skip_while(|word| *word != "--data");
        let data = PathBuf::from(words.nth(1).expect("a folder"));
        assert!(data.is_dir());
        Self {
            child,
            lines,
            edge,
            data,
        }
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        kill_process(pid.expect("a process id"), signal).expect("it runs");
    }

    fn edge_is_gone(&self) -> bool {
        // A zombie of the init process has no command line.
        let command = std::fs::read(format!("/proc/{}/cmdline", self.edge));
        command.unwrap_or_default().is_empty()
    }
}

/// D1 of the field: no table, reports of no bytes, a server and a folder left behind.
#[test]
fn fd1_an_interrupted_run_reports_and_leaves_nothing_behind() {
    for signal in [Signal::INT, Signal::TERM] {
        let folder = tempfile::tempdir().expect("a folder");
        let mut run = Run::start(folder.path());
        run.signal(signal);
        let reader = std::thread::spawn(move || {
            let mut rest = String::new();
            std::io::Read::read_to_string(&mut run.lines, &mut rest).expect("text");
            rest
        });
        let output = run.child.wait_with_output().expect("it ended");
        let said = reader.join().expect("it reads");
        let done = Done::new(&output, &folder.path().join("run.json"));
        assert_eq!(done.code, 130, "{said}{}", done.stdout);
        assert_eq!(done.report["verdict"], "interrupted");
        assert!(done.count("messages.sent") > 0);
        assert_eq!(
            done.count("messages.lost"),
            0,
            "{:#}",
            done.report["findings"]
        );
        assert!(done.stdout.contains("INTERRUPTED"), "{}", done.stdout);
        let csv = std::fs::read_to_string(folder.path().join("run.csv")).expect("a report");
        assert!(csv.lines().count() > 1, "{csv}");
        let mut left: Vec<_> = std::fs::read_dir(folder.path())
            .expect("a folder")
            .collect();
        assert_eq!(left.drain(..).count(), 2, "no temporary file");
        let gone = std::fs::read(format!("/proc/{}/cmdline", run.edge));
        assert!(gone.unwrap_or_default().is_empty(), "the edge has ended");
        assert!(!run.data.exists(), "its folder is gone");
    }
}

#[test]
fn fd1_a_run_that_is_killed_takes_its_edge_with_it_and_spoils_no_report() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("run.json"), "an earlier report").expect("written");
    let mut run = Run::start(folder.path());
    run.child.kill().expect("it runs");
    run.child.wait().expect("it was started");
    let began = Instant::now();
    while !run.edge_is_gone() {
        assert!(began.elapsed() < PATIENCE, "the edge runs on");
        // The kernel tells of the end of another's child in no other way.
        std::thread::park_timeout(Duration::from_millis(10));
    }
    let report = std::fs::read_to_string(folder.path().join("run.json"));
    assert_eq!(report.expect("it is there"), "an earlier report");
    assert!(
        !folder.path().join("run.csv").exists(),
        "nothing of no bytes"
    );
    std::fs::remove_dir_all(&run.data).expect("nobody was left to do it");
}

#[test]
fn fd7_a_command_line_that_says_nothing_is_exit_code_64() {
    for arguments in [
        &["chat", "--rtae", "10"][..],
        &["chat", "--rate", "10@5x"],
        &["chat", "--rate", "1e30"],
        &["chat", "--threads", "0"],
        &["chat", "--sockets", "0"],
        &["nonsense"],
    ] {
        let output = loadgen().args(arguments).output().expect("it runs");
        assert_eq!(output.status.code(), Some(64), "{arguments:?}");
        assert!(!output.stderr.is_empty() && output.stdout.is_empty());
    }
}

#[test]
fn fd11_ids_of_users_end() {
    let from = (u64::MAX - 5).to_string();
    let output = loadgen()
        .args([
            "chat",
            "--start-edge",
            "--sessions",
            "10",
            "--users-from",
            &from,
        ])
        .output()
        .expect("it runs");
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("--users-from"), "{said}");
}

/// P4 of the field: one of them was overwritten in silence.
#[test]
fn fp4_one_file_can_not_be_two_reports() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("report");
    let output = loadgen()
        .args(["chat", "--start-edge", "--edge"])
        .arg(roadstead())
        .arg("--json")
        .arg(&file)
        .arg("--csv")
        .arg(folder.path().join(".").join("report"))
        .output()
        .expect("it runs");
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("two reports"), "{said}");
}

/// A key of another server: it is no finding that nobody gets in, and no report is written of nothing.
#[test]
fn fd7_a_run_that_lets_nobody_in_could_not_be_made() {
    let (edge, other) = (Edge::start(), Edge::start());
    let key = other.directory().join("token-key.pem");
    let mut command = edge.loadgen(&["chat"], &["--quiet", "--sessions", "5"]);
    let output = command
        .arg("--token-key")
        .arg(key)
        .output()
        .expect("it runs");
    let done = Done::new(&output, &edge.report());
    assert_eq!(done.code, 1, "{}", done.stderr);
    assert!(
        done.stderr.contains("no session could be established"),
        "{}",
        done.stderr
    );
    assert!(
        done.stderr.contains("TokenInvalid") || done.stderr.contains("token_invalid"),
        "{}",
        done.stderr
    );
}
