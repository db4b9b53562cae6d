//! `loadgen` as a child process: the judge of every scenario.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::edge::Edge;
use crate::scenario::Bench;

/// What is asked of the load generator.
#[derive(Debug, Clone)]
pub(crate) struct Load {
    pub(crate) scenario: &'static str,
    pub(crate) sessions: u32,
    pub(crate) rate: u32,
    pub(crate) size: u32,
    pub(crate) seconds: u64,
    pub(crate) users_from: u64,
}

impl Load {
    /// Users who write to each other for so long.
    pub(crate) fn chat(seconds: u64) -> Self {
        Self {
            scenario: "chat",
            sessions: 120,
            rate: 300,
            size: 200,
            seconds,
            users_from: 1,
        }
    }

    /// Starts it.
    pub(crate) fn start(&self, bench: &Bench, edge: &Edge, scratch: &Path) -> Result<Running> {
        let json = scratch.join(format!("load-{}.json", self.users_from));
        let child = Command::new(bench.binary("loadgen"))
            .arg(self.scenario)
            .args(["--target", &edge.listen.to_string()])
            .args(["--admin", &edge.admin.to_string()])
            .arg("--data")
            .arg(&edge.data)
            .args(["--sessions", &self.sessions.to_string()])
            .args(["--rate", &self.rate.to_string()])
            .args(["--size", &self.size.to_string()])
            .args(["--duration", &self.seconds.to_string()])
            .args(["--users-from", &self.users_from.to_string()])
            .args(["--quic-engine", &bench.quic_engine])
            .args(["--drain-timeout", "120", "--quiet", "--json"])
            .arg(&json)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .context("loadgen")?;
        Ok(Running {
            child: Some(child),
            json,
        })
    }
}

/// A load under way. Killed when dropped.
#[derive(Debug)]
pub(crate) struct Running {
    child: Option<Child>,
    json: PathBuf,
}

/// What the load generator found.
#[derive(Debug)]
pub(crate) struct Account(Value);

impl Running {
    /// Whether it still runs.
    pub(crate) fn is_running(&mut self) -> Result<bool> {
        let child = self.child.as_mut().expect("taken only at the end");
        Ok(child.try_wait()?.is_none())
    }

    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        let child = self.child.as_ref().expect("taken only at the end");
        Ok(kill_process(Pid::from_child(child), signal)?)
    }

    /// Waits for its end and its account, which must be complete.
    pub(crate) fn verify(mut self) -> Result<Account> {
        let child = self.child.take().expect("taken only here");
        let output = child.wait_with_output()?;
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        let text = std::fs::read_to_string(&self.json);
        let text = text.with_context(|| format!("loadgen ended with {}: {said}", output.status))?;
        let account = Account(serde_json::from_str(&text)?);
        if !output.status.success() {
            bail!("loadgen: {}: {}", account.words(), account.0["findings"]);
        }
        ensure!(account.0["verdict"] == "pass", "{}", account.words());
        ensure!(
            account.number("messages", "acknowledged") > 0,
            "nothing was sent"
        );
        Ok(account)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Account {
    pub(crate) fn number(&self, part: &str, name: &str) -> u64 {
        self.0[part][name].as_u64().unwrap_or(0)
    }

    /// The numbers that matter, in words.
    pub(crate) fn words(&self) -> String {
        let message = |name| self.number("messages", name);
        format!(
            "{} messages, {} lost, {} doubled, {} out of order, {} postponed, {} reconnects",
            message("acknowledged"),
            message("lost"),
            message("duplicated"),
            message("reordered"),
            message("postponed"),
            self.number("sessions", "reconnected"),
        )
    }
}
