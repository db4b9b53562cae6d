//! An edge as a child process, for the demo and for scenarios that restart it.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::cli::{OwnEdge, QuicEngine};
use crate::clock::Micros;

/// A start makes keys and opens a store; on a busy machine that takes a second.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// A drain has a grace of a few seconds, then the store is flushed.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);

/// The same for a conductor that watches meanwhile.
pub(crate) const STOP_PATIENCE: Micros = 30_000_000;

/// How much of its last words is kept.
const LOG_BYTES_MAX: usize = 8 * 1024;

/// A running edge with a directory of its own; killed when dropped.
#[derive(Debug)]
pub(crate) struct Edge {
    // Dropped before its directory is.
    running: Running,
    binary: PathBuf,
    /// Beside addresses and directory.
    arguments: Vec<String>,
    data: TempDir,
    /// Ends that were not as they should be.
    failures: Vec<anyhow::Error>,
}

/// Its present process.
#[derive(Debug)]
struct Running {
    child: Child,
    ready: Ready,
    log: Option<JoinHandle<String>>,
}

/// What the edge says when it is ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Ready {
    listen: SocketAddr,
    admin: SocketAddr,
}

impl Edge {
    /// Starts the binary given, or the one beside this one, and waits until it is ready.
    pub(crate) fn start(own: &OwnEdge, engine: QuicEngine) -> Result<Self> {
        let binary = match &own.edge {
            Some(binary) => binary.clone(),
            None => beside_this()?,
        };
        let data = TempDir::with_prefix("roadstead-demo-")?;
        let mut arguments = vec!["--quic-engine".to_owned(), engine.name().to_owned()];
        if let Some(shards) = own.shards {
            arguments.extend(["--shards".to_owned(), shards.to_string()]);
        }
        if let Some(text) = own.config {
            let file = data.path().join("roadstead.toml");
            std::fs::write(&file, text)?;
            arguments.extend(["--config".to_owned(), file.display().to_string()]);
        }
        arguments.extend(own.edge_options.iter().cloned());
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let addresses = Ready {
            listen: any,
            admin: any,
        };
        let running = Running::start(&binary, data.path(), &arguments, addresses)?;
        Ok(Self {
            running,
            binary,
            arguments,
            data,
            failures: Vec::new(),
        })
    }

    /// Asks it to end by SIGTERM.
    pub(crate) fn terminate(&mut self) -> Result<()> {
        self.running.terminate()
    }

    /// Whether it has ended since.
    pub(crate) fn has_ended(&mut self) -> bool {
        !matches!(self.running.child.try_wait(), Ok(None))
    }

    /// Starts it again on the same data and addresses. How it ended is told by [`Edge::stop`].
    pub(crate) fn start_again(&mut self) -> Result<()> {
        let addresses = self.running.ready;
        if let Err(error) = self.running.ended_well() {
            self.failures.push(error);
        }
        self.running = Running::start(&self.binary, self.data.path(), &self.arguments, addresses)?;
        Ok(())
    }

    pub(crate) fn listen(&self) -> SocketAddr {
        self.running.ready.listen
    }

    pub(crate) fn admin(&self) -> SocketAddr {
        self.running.ready.admin
    }

    pub(crate) fn pid(&self) -> u32 {
        self.running.child.id()
    }

    pub(crate) fn data(&self) -> &Path {
        self.data.path()
    }

    /// Ends it by SIGTERM. An error if it did not end with 0, now or before.
    pub(crate) fn stop(mut self) -> Result<()> {
        self.running.terminate()?;
        wait_for_exit(&mut self.running.child)?;
        self.running.ended_well()?;
        self.failures.into_iter().next().map_or(Ok(()), Err)
    }
}

impl Running {
    fn start(binary: &Path, data: &Path, arguments: &[String], at: Ready) -> Result<Self> {
        let mut child = Command::new(binary)
            .args(["serve", "--listen", &at.listen.to_string()])
            .args(["--admin", &at.admin.to_string(), "--data"])
            .arg(data)
            .args(arguments)
            // Whatever ends this process ends it, and a Ctrl-C is this process's to answer.
            .env("ROADSTEAD_END_WITH_PARENT", "1")
            .process_group(0)
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
            Ok(ready) => Ok(Self { child, ready, log }),
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                let words = log.and_then(|log| log.join().ok()).unwrap_or_default();
                Err(error.context(format!("the edge did not become ready; it said:\n{words}")))
            }
        }
    }

    fn terminate(&mut self) -> Result<()> {
        if self.child.try_wait()?.is_some() {
            return Ok(());
        }
        let raw = i32::try_from(self.child.id()).context("a process id")?;
        let pid = Pid::from_raw(raw).context("a process id")?;
        kill_process(pid, Signal::TERM).context("SIGTERM")
    }

    /// An error unless it has ended with 0.
    fn ended_well(&mut self) -> Result<()> {
        let status = self.child.try_wait()?.context("the edge still runs")?;
        if status.success() {
            return Ok(());
        }
        let log = self.log.take();
        let words = log.and_then(|log| log.join().ok()).unwrap_or_default();
        bail!("the edge ended with {status}; it said:\n{words}");
    }
}

impl Drop for Running {
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
