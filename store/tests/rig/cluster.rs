//! A FoundationDB cluster of one process, on loopback, in a folder of its own.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// How long a fresh cluster may take until it serves.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running `fdbserver`. Killed when dropped.
pub(crate) struct Cluster {
    server: Child,
    address: String,
    folder: tempfile::TempDir,
}

/// Whether `fdbserver` and `fdbcli` are there to start a cluster with.
pub(crate) fn is_installed() -> bool {
    ["fdbserver", "fdbcli"].iter().all(|program| {
        let mut version = Command::new(program);
        let quiet = version.arg("--version").stdout(Stdio::null());
        quiet.status().is_ok_and(|status| status.success())
    })
}

impl Cluster {
    /// Starts one and waits until it serves. `None` without the programs.
    pub(crate) fn start() -> Option<Self> {
        if !is_installed() {
            return None;
        }
        let folder = tempfile::tempdir().expect("a folder");
        for name in ["data", "logs"] {
            std::fs::create_dir(folder.path().join(name)).expect("a folder");
        }
        let address = free_address();
        let file = folder.path().join("cluster");
        std::fs::write(file, format!("test:test@{address}\n")).expect("a cluster file");
        let cluster = Self {
            server: spawn(&address, folder.path()),
            address,
            folder,
        };
        cluster.configure();
        Some(cluster)
    }

    /// The cluster file.
    pub(crate) fn file(&self) -> PathBuf {
        self.folder.path().join("cluster")
    }

    /// The process, to be signalled.
    pub(crate) fn pid(&self) -> u32 {
        self.server.id()
    }

    /// Takes the process away without a word, as a crash does.
    pub(crate) fn kill(&mut self) {
        self.server.kill().expect("it was started");
        self.server.wait().expect("it was started");
    }

    /// Starts it again on the same data.
    pub(crate) fn restart(&mut self) {
        self.server = spawn(&self.address, self.folder.path());
    }

    /// What `fdbcli` says to a command.
    pub(crate) fn ask(&self, command: &str) -> Output {
        let mut fdbcli = Command::new("fdbcli");
        fdbcli.arg("-C").arg(self.file());
        fdbcli.args(["--timeout", "10", "--exec", command]);
        fdbcli.output().expect("fdbcli runs")
    }

    fn configure(&self) {
        let began = Instant::now();
        loop {
            let output = self.ask("configure new single ssd");
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            // The try before may have arrived after its time.
            if output.status.success() || said.contains("already exists") {
                return;
            }
            assert!(began.elapsed() < PATIENCE, "no cluster: {said}");
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

fn free_address() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("bound").to_string()
}

fn spawn(address: &str, folder: &Path) -> Child {
    Command::new("fdbserver")
        .args(["-p", address, "-C", "cluster", "-d", "data", "-L", "logs"])
        .current_dir(folder)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("fdbserver starts")
}
