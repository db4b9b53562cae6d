//! Memory of the server per idle session: starts the edge, lets `loadgen hold` open sessions and hold them
//! in silence, and tells what the edge has grown by. Both programs come from the target folder.
//!
//! `cargo build --release && cargo bench -p roadstead-bench --bench bytes_per_session [-- SESSIONS]`
//!
//! What the transport alone needs is measured by `cargo run --release -p roadstead-net --example load`.
#![allow(
    clippy::print_stdout,
    reason = "printing numbers is what this program is for"
)]

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use roadstead_bench::{number_argument, print_machine};
use serde_json::Value;

const SESSIONS: u32 = 10_000;

/// Sessions opened per second: what two busy cores still do without piling up handshakes.
const RAMP: &str = "1500";

/// How long they are silent, in seconds, so that timers of the handshake have run out.
const HOLD: &str = "20";

/// A running edge; killed when dropped.
struct Edge {
    child: Child,
    listen: String,
    admin: String,
}

impl Edge {
    fn start(data: &Path) -> Self {
        let mut child = Command::new(binary("roadstead"))
            .args(["serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"])
            .arg("--data")
            .arg(data)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the edge starts");
        let stdout = BufReader::new(child.stdout.take().expect("a pipe"));
        let ready = stdout
            .lines()
            .map_while(Result::ok)
            .find(|line| line.starts_with("roadstead ready "))
            .expect("the edge becomes ready");
        let field = |name: &str| {
            let mut words = ready.split(' ');
            let value = words.find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
            value.expect("the ready line has it").to_owned()
        };
        Self {
            listen: field("listen"),
            admin: field("admin"),
            child,
        }
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        // It may have ended; its data goes anyway.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A program of the workspace: benches run in `target/release/deps`.
fn binary(name: &str) -> PathBuf {
    let this = std::env::current_exe().expect("the path of this program");
    let folder = this.ancestors().nth(2).expect("target/release");
    let path = folder.join(name);
    assert!(
        path.is_file(),
        "{} is missing: cargo build --release",
        path.display()
    );
    path
}

fn hold(edge: &Edge, folder: &Path, sessions: u32) -> Value {
    let report = folder.join("report.json");
    let status = Command::new(binary("loadgen"))
        .args(["hold", "--quiet", "--ramp", RAMP, "--duration", HOLD])
        .args(["--sessions", &sessions.to_string()])
        .args(["--target", &edge.listen, "--admin", &edge.admin])
        .arg("--data")
        .arg(folder)
        .arg("--json")
        .arg(&report)
        .status()
        .expect("loadgen runs");
    println!("loadgen hold: {status}");
    let text = std::fs::read_to_string(report).expect("loadgen wrote its report");
    serde_json::from_str(&text).expect("JSON")
}

fn main() {
    print_machine();
    let sessions = number_argument(SESSIONS);
    let folder = tempfile::tempdir().expect("a folder");
    let edge = Edge::start(folder.path());
    let report = hold(&edge, folder.path(), sessions);
    let number = |pointer: &str| {
        let value = report.pointer(pointer).and_then(Value::as_u64);
        value.map_or("unknown".to_owned(), |number| number.to_string())
    };
    println!(
        "sessions: {} established of {sessions}, {} lost",
        number("/sessions/established"),
        number("/sessions/lost")
    );
    println!(
        "server: {} bytes resident when empty, {} with the sessions held",
        number("/target/rss_bytes_empty"),
        number("/target/rss_bytes")
    );
    println!(
        "bytes per idle session: {}",
        number("/target/bytes_per_session")
    );
}
