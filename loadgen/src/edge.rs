//! An edge as a child process, for the demo.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::cli::QuicEngine;

/// A start makes keys and opens a store; on a busy machine that takes a second.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// A drain has a grace of a few seconds, then the store is flushed.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);

/// How much of its last words is kept.
const LOG_BYTES_MAX: usize = 8 * 1024;

/// A running edge with a directory of its own; killed when dropped.
#[derive(Debug)]
pub(crate) struct Edge {
    child: Child,
    ready: Ready,
    log: Option<JoinHandle<String>>,
    data: TempDir,
}

/// What the edge says when it is ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Ready {
    listen: SocketAddr,
    admin: SocketAddr,
}

impl Edge {
    /// Starts the binary given, or the one beside this one, and waits until it is ready.
    pub(crate) fn start(
        binary: Option<&Path>,
        shards: Option<u16>,
        engine: QuicEngine,
    ) -> Result<Self> {
        let binary = match binary {
            Some(binary) => binary.to_path_buf(),
            None => beside_this()?,
        };
        let data = TempDir::with_prefix("roadstead-demo-")?;
        let mut command = Command::new(&binary);
        command.args([
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--admin",
            "127.0.0.1:0",
            "--data",
        ]);
        command.arg(data.path());
        command.args(["--quic-engine", engine.name()]);
        if let Some(shards) = shards {
            command.args(["--shards", &shards.to_string()]);
        }
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("starting {}", binary.display()))?;
        let stdout = child.stdout.take().context("it has an output")?;
        let log = child
            .stderr
            .take()
            .map(|stderr| thread::spawn(move || last_words(stderr)));
        match wait_until_ready(stdout) {
            Ok(ready) => Ok(Self {
                child,
                ready,
                log,
                data,
            }),
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                let words = log.and_then(|log| log.join().ok()).unwrap_or_default();
                Err(error.context(format!("the edge did not become ready; it said:\n{words}")))
            }
        }
    }

    pub(crate) fn listen(&self) -> SocketAddr {
        self.ready.listen
    }

    pub(crate) fn admin(&self) -> SocketAddr {
        self.ready.admin
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn data(&self) -> &Path {
        self.data.path()
    }

    /// Asks it to end by SIGTERM. An error if it does not end, or not with 0.
    pub(crate) fn stop(mut self) -> Result<()> {
        let raw = i32::try_from(self.child.id()).context("a process id")?;
        let pid = Pid::from_raw(raw).context("a process id")?;
        if self.child.try_wait()?.is_none() {
            kill_process(pid, Signal::TERM).context("SIGTERM")?;
        }
        let status = wait_for_exit(&mut self.child)?;
        if status.success() {
            return Ok(());
        }
        let words = self
            .log
            .take()
            .and_then(|log| log.join().ok())
            .unwrap_or_default();
        bail!("the edge ended with {status}; it said:\n{words}");
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        // Does nothing if it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn beside_this() -> Result<PathBuf> {
    let this = std::env::current_exe().context("the path of this program")?;
    let edge = this.with_file_name("roadstead");
    if !edge.is_file() {
        bail!(
            "{} is not there: build it (`cargo build --release`) or name it by --edge",
            edge.display()
        );
    }
    Ok(edge)
}

fn wait_until_ready(stdout: ChildStdout) -> Result<Ready> {
    let (sender, receiver) = mpsc::channel();
    // Reads on after the line, so that the edge never blocks on a full pipe.
    thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            if let Some(ready) = parse_ready(&line) {
                let _ = sender.send(ready);
            }
        }
    });
    receiver
        .recv_timeout(START_TIMEOUT)
        .context("no line that says 'roadstead ready'")
}

fn parse_ready(line: &str) -> Option<Ready> {
    let fields = line.strip_prefix("roadstead ready ")?;
    let value = |name: &str| {
        let prefixed = |field: &&str| field.split_once('=').is_some_and(|(key, _)| key == name);
        fields
            .split(' ')
            .find(prefixed)?
            .split_once('=')?
            .1
            .split(',')
            .next()?
            .parse()
            .ok()
    };
    Some(Ready {
        listen: value("listen")?,
        admin: value("admin")?,
    })
}

fn wait_for_exit(child: &mut Child) -> Result<ExitStatus> {
    let deadline = Instant::now() + STOP_TIMEOUT;
    while Instant::now() < deadline {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        thread::sleep(Duration::from_millis(20));
    }
    bail!(
        "the edge did not end within {} s of SIGTERM",
        STOP_TIMEOUT.as_secs()
    );
}

/// Reads to the end and keeps the last of it.
fn last_words(mut stderr: ChildStderr) -> String {
    let mut words = Vec::new();
    let mut buffer = [0; 4 * 1024];
    while let Ok(length @ 1..) = stderr.read(&mut buffer) {
        words.extend_from_slice(&buffer[..length]);
        words.drain(..words.len().saturating_sub(LOG_BYTES_MAX));
    }
    String::from_utf8_lossy(&words).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ready_line_is_read() {
        let line = "roadstead ready listen=127.0.0.1:4433 admin=127.0.0.1:9 data=/x y pid=12";
        let ready = parse_ready(line).expect("ready");
        assert_eq!(ready.listen.port(), 4433);
        assert_eq!(ready.admin.port(), 9);
        assert!(parse_ready("roadstead ready listen=1 admin=2").is_none());
        assert!(parse_ready("something else").is_none());
    }
}
