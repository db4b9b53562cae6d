//! A start that can not succeed: it ends at once, with the reason, and holds nothing up.

mod support;

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use rustix::process::Signal;
use support::edge::roadstead;
use support::{Client, Edge, soon};

/// `roadstead serve` on a data directory, to its end.
async fn serve(command: Command, data: &Path, options: &[&str]) -> Output {
    let mut command = tokio::process::Command::from(command);
    command.args(["serve", "--listen", "127.0.0.1:0", "--data"]);
    let child = command
        .arg(data)
        .args(options)
        .kill_on_drop(true)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    soon("its end", child.wait_with_output())
        .await
        .expect("it ran")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// It hung for ever, without a word, and never became ready.
#[tokio::test]
async fn fd2_an_admin_address_that_can_not_be_had_is_a_clear_error() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a socket");
    let taken = taken.local_addr().expect("bound").to_string();
    for (admin, reason) in [
        (taken.as_str(), "in use"),
        ("203.0.113.1:9433", "Cannot assign requested address"),
    ] {
        let data = tempfile::tempdir().expect("a directory");
        let output = serve(roadstead(), data.path(), &["--admin", admin]).await;
        assert_eq!(output.status.code(), Some(1));
        let error = text(&output.stderr);
        let last = error.lines().last().unwrap_or_default();
        let said = format!("admin address {admin}: ");
        assert!(last.contains(&said) && last.contains(reason), "{error}");
        assert!(!data.path().join("store").exists(), "nothing was begun");
        assert!(output.stdout.is_empty(), "it was never ready");
    }
}

/// It said that it was draining for 13 s, and why at the end.
#[tokio::test]
#[allow(clippy::print_stderr, reason = "a test that did not run says so")]
async fn fd14_a_shard_that_can_not_start_ends_the_start_with_its_reason() {
    // A program and a folder that somebody without rights may use: the kernel limits nobody else.
    let folder = tempfile::tempdir().expect("a directory");
    let open = |path: &Path| {
        std::fs::set_permissions(path, PermissionsExt::from_mode(0o755)).expect("its owner");
    };
    open(folder.path());
    let (program, data) = (folder.path().join("roadstead"), folder.path().join("data"));
    std::fs::copy(env!("CARGO_BIN_EXE_roadstead"), &program).expect("a copy");
    open(&program);
    std::fs::create_dir(&data).expect("a directory");
    if std::os::unix::fs::chown(&data, Some(65_534), Some(65_534)).is_err() {
        eprintln!("skipped: only root may run a program as somebody else");
        return;
    }
    let mut command = Command::new("sh");
    let limited = "ulimit -l 256 && exec \"$0\" \"$@\"";
    command.args(["-c", limited]).arg(&program);
    command.uid(65_534).gid(65_534).current_dir(folder.path());
    let options = ["--admin", "127.0.0.1:0", "--shards", "2"];
    let output = serve(command, &data, &options).await;
    let error = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.contains("RLIMIT_MEMLOCK"), "{error}");
    assert!(!error.contains("draining"), "nobody was in: {error}");
}

#[tokio::test]
async fn fd9_a_log_in_a_file_has_no_colours() {
    let mut edge = Edge::start();
    let log = edge.whole_log();
    assert!(!log.is_empty() && !log.contains(&0x1b), "{}", text(&log));
}

/// The admin address answers until the end: that it drains is what it has to say.
#[tokio::test]
async fn fd2_the_admin_address_answers_while_sessions_are_drained() {
    let mut edge = Edge::start();
    let _one = Client::login(&edge, 1, 11).await;
    edge.signal(Signal::TERM);
    soon("readiness to end", async {
        while edge.get("/readyz").await.0 != 503 {}
    })
    .await;
    assert!(edge.terminate().success());
}

#[test]
fn fd7_a_command_line_that_says_nothing_is_exit_code_64() {
    for arguments in [
        &["serve", "--rtae", "10"][..],
        &["nonsense"],
        &[],
        &["token"],
        &["serve", "--shards", "many"],
    ] {
        let output = roadstead().args(arguments).output().expect("it runs");
        assert_eq!(output.status.code(), Some(64), "{arguments:?}");
        assert!(!output.stderr.is_empty() && output.stdout.is_empty());
    }
    let help = roadstead().arg("--help").output().expect("it runs");
    assert!(help.status.success() && !help.stdout.is_empty());
}
