//! Processes that the tests start, and what a run of the binary leaves behind.

#![allow(dead_code, reason = "each test binary uses its part")]

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

/// The binary under test.
pub(crate) fn loadgen() -> Command {
    Command::new(env!("CARGO_BIN_EXE_loadgen"))
}

/// A chat of three seconds.
pub(crate) const CHAT: [&str; 8] = [
    "--sessions",
    "200",
    "--ramp",
    "1000",
    "--rate",
    "200",
    "--duration",
    "3",
];

/// What a run left behind.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    /// `Null` if it wrote none.
    pub(crate) report: Value,
}

impl Done {
    /// Of a process that ended, with the report that it wrote to this file.
    pub(crate) fn new(output: &Output, report: &Path) -> Self {
        let json = std::fs::read(report).unwrap_or_default();
        Self {
            code: output.status.code().expect("it was not killed"),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            report: serde_json::from_slice(&json).unwrap_or_default(),
        }
    }

    #[track_caller]
    pub(crate) fn passed(self) -> Self {
        self.ended_with(0, "pass")
    }

    #[track_caller]
    pub(crate) fn failed(self) -> Self {
        self.ended_with(2, "fail")
    }

    #[track_caller]
    fn ended_with(self, code: i32, verdict: &str) -> Self {
        let report = &self.report;
        let said = format!("{}{}", self.stdout, self.stderr);
        assert_eq!(self.code, code, "{:#}\n{said}", report["findings"]);
        assert_eq!(report["verdict"], verdict, "{report:#}{said}");
        self
    }

    /// A number of the report by its path, as in `messages.sent`.
    #[track_caller]
    pub(crate) fn number(&self, path: &str) -> f64 {
        let found = path.split('.').fold(&self.report, |at, name| &at[name]);
        let number = found.as_f64();
        number.unwrap_or_else(|| panic!("{path} in {:#}", self.report))
    }

    /// A whole number of the report by its path.
    #[track_caller]
    pub(crate) fn count(&self, path: &str) -> u64 {
        let found = path.split('.').fold(&self.report, |at, name| &at[name]);
        let number = found.as_u64();
        number.unwrap_or_else(|| panic!("{path} in {:#}", self.report))
    }
}

/// A process that ends with the test.
#[derive(Debug)]
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// An agent process.
#[derive(Debug)]
pub(crate) struct Agent {
    process: Process,
    /// Its name on the command line of a leader.
    pub(crate) address: String,
}

/// The secret of the tests' agents.
pub(crate) const TOKEN: &str = "a token of some length\n";

impl Agent {
    /// Starts one that knows [`TOKEN`], which it leaves as `agent-token` in the directory.
    pub(crate) fn start(directory: &Path) -> Self {
        std::fs::write(token_file(directory), TOKEN).expect("written");
        let mut child = loadgen()
            .args(["agent", "--listen", "127.0.0.1:0", "--token-file"])
            .arg(token_file(directory))
            .stdout(Stdio::piped())
            .spawn()
            .expect("it runs");
        let line = first_line(&mut child);
        let (_, address) = line.trim().split_once("listen=").expect("its address");
        Self {
            address: address.to_owned(),
            process: Process(child),
        }
    }

    /// Takes the process away without a word, as a crash does.
    pub(crate) fn kill(&mut self) {
        self.process.0.kill().expect("it can be killed");
        self.process.0.wait().expect("it was started");
    }
}

/// Where [`Agent::start`] leaves the secret.
pub(crate) fn token_file(directory: &Path) -> PathBuf {
    directory.join("agent-token")
}

/// A real edge process on a directory of its own.
#[derive(Debug)]
pub(crate) struct Edge {
    _process: Process,
    pub(crate) listen: SocketAddr,
    pub(crate) admin: SocketAddr,
    directory: tempfile::TempDir,
}

impl Edge {
    pub(crate) fn start() -> Self {
        Self::start_with("")
    }

    /// With this configuration file.
    pub(crate) fn start_with(config: &str) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("roadstead.toml");
        std::fs::write(&file, config).expect("written");
        let mut child = Command::new(roadstead())
            .args(["serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"])
            .arg("--config")
            .arg(file)
            .arg("--data")
            .arg(directory.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the edge starts");
        let line = first_line(&mut child);
        let field = |name: &str| {
            let value = line
                .split_whitespace()
                .find_map(|word| word.strip_prefix(name));
            let value = value.unwrap_or_else(|| panic!("the edge is not ready: {line:?}"));
            value.parse().expect("an address")
        };
        Self {
            listen: field("listen="),
            admin: field("admin="),
            _process: Process(child),
            directory,
        }
    }

    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// A run against it that writes its report to [`Edge::report`].
    pub(crate) fn loadgen(&self, scenario: &[&str], options: &[&str]) -> Command {
        let mut command = loadgen();
        command
            .args(scenario)
            .args(["--target", &self.listen.to_string()])
            .args(["--admin", &self.admin.to_string(), "--data"])
            .arg(self.directory())
            .arg("--json")
            .arg(self.report())
            .args(options);
        command
    }

    /// Where runs write their report.
    pub(crate) fn report(&self) -> PathBuf {
        self.directory().join("report.json")
    }

    /// Makes a run to its end.
    pub(crate) fn run(&self, scenario: &[&str], options: &[&str]) -> Done {
        let output = self.loadgen(scenario, options).output().expect("it runs");
        Done::new(&output, &self.report())
    }
}

/// The server's binary, built like the one under test.
pub(crate) fn roadstead() -> PathBuf {
    let path = Path::new(env!("CARGO_BIN_EXE_loadgen")).with_file_name("roadstead");
    if !path.exists() {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut build = Command::new(cargo);
        build.args(["build", "--package", "roadstead-edge"]);
        if cfg!(not(debug_assertions)) {
            build.arg("--release");
        }
        let status = build.status().expect("cargo runs");
        assert!(status.success(), "the edge does not build");
    }
    path
}

/// What a child says first. The rest of its output is read and forgotten, so that it never waits for a
/// reader.
fn first_line(child: &mut Child) -> String {
    let mut output = BufReader::new(child.stdout.take().expect("piped"));
    let mut line = String::new();
    output.read_line(&mut line).expect("a line");
    std::thread::spawn(move || std::io::copy(&mut output, &mut std::io::sink()));
    line
}
