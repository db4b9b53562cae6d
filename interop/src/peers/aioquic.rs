//! aioquic, a Python package, in processes that take steps and orders as lines of JSON (python/peer.py).

use std::{
    io::{BufRead, BufReader, Write},
    net::SocketAddr,
    path::PathBuf,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Implementation;
use crate::{
    identity::Identity,
    scenario::Feature,
    script::{Client, ClientOptions, Facts, Order, Role, Server, ServerOptions, Step},
};

const REQUIREMENTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/python/requirements.txt");
const PEER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/python/peer.py");

/// aioquic in a virtual environment beside the build.
#[derive(Debug)]
pub(super) struct Aioquic {
    python: PathBuf,
}

impl Aioquic {
    /// Makes the virtual environment, unless it is there, and installs the pinned packages: wheels with the hashes of
    /// the file, and nothing else.
    pub(super) fn new() -> Result<Self> {
        let exe = std::env::current_exe()?;
        let venv = exe.parent().context("no folder")?.join("aioquic-venv");
        let python = venv.join("bin/python");
        if !python.exists() {
            run(Command::new("python3").args(["-m", "venv"]).arg(&venv))?;
        }
        run(Command::new(&python)
            .args(["-m", "pip", "install", "--quiet", "--require-hashes"])
            .args(["--only-binary", ":all:", "-r", REQUIREMENTS]))?;
        Ok(Self { python })
    }

    fn start(&self, role: &str, identity: &Identity, options: &impl Serialize) -> Result<Process> {
        let mut child = Command::new(&self.python)
            .args([PEER, role])
            .args([identity.chain_path(), identity.key_path()])
            .arg(serde_json::to_string(options)?)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("python")?;
        let input = child.stdin.take().context("no input")?;
        let output = BufReader::new(child.stdout.take().context("no output")?);
        Ok(Process {
            child,
            input: Some(input),
            output,
        })
    }
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {error}");
    Ok(())
}

impl Implementation for Aioquic {
    fn name(&self) -> &'static str {
        "aioquic"
    }

    fn version(&self) -> String {
        let pinned = include_str!("../../python/requirements.txt");
        let line = pinned
            .lines()
            .find_map(|line| line.strip_prefix("aioquic=="));
        let version = line.and_then(|rest| rest.split_whitespace().next());
        version.unwrap_or("unknown").to_owned()
    }

    fn lacks(&self, feature: Feature, role: Role) -> Option<&'static str> {
        match (feature, role) {
            (Feature::StatelessReset, Role::Server) => Some("a server sends no stateless resets"),
            (Feature::StatelessReset, Role::Client) => {
                Some("a client does not look for stateless resets")
            }
            _ => None,
        }
    }

    fn recovers_from_negotiation(&self) -> bool {
        true
    }

    fn serve(&self, identity: &Identity, options: &ServerOptions) -> Result<Box<dyn Server>> {
        let mut process = self.start("server", identity, options)?;
        let address: String = process.answer()?;
        let address = address.parse()?;
        Ok(Box::new(PythonServer { process, address }))
    }

    fn client(&self, identity: &Identity, options: &ClientOptions) -> Result<Box<dyn Client>> {
        Ok(Box::new(self.start("client", identity, options)?))
    }
}

/// A process that answers each line with one.
#[derive(Debug)]
struct Process {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Answer {
    Ok(Value),
    Error(String),
}

impl Process {
    fn ask<T: for<'de> Deserialize<'de>>(&mut self, request: &impl Serialize) -> Result<T> {
        let input = self.input.as_mut().context("no input")?;
        writeln!(input, "{}", serde_json::to_string(request)?)?;
        self.answer()
    }

    fn answer<T: for<'de> Deserialize<'de>>(&mut self) -> Result<T> {
        let mut line = String::new();
        if self.output.read_line(&mut line)? == 0 {
            bail!("python ended");
        }
        match serde_json::from_str(&line)? {
            Answer::Ok(value) => Ok(serde_json::from_value(value)?),
            Answer::Error(error) => Err(anyhow!(error)),
        }
    }

    fn observed(&mut self) -> Result<Facts> {
        self.ask(&serde_json::json!({ "facts": true }))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It ends with its input; what it says of it is of no interest.
        self.input = None;
        let _ = self.child.wait();
    }
}

impl Client for Process {
    fn step(&mut self, step: &Step) -> Result<()> {
        self.ask(step)
    }

    fn facts(&mut self) -> Result<Facts> {
        self.observed()
    }
}

#[derive(Debug)]
struct PythonServer {
    process: Process,
    address: SocketAddr,
}

impl Server for PythonServer {
    fn address(&self) -> SocketAddr {
        self.address
    }

    fn order(&mut self, order: &Order) -> Result<()> {
        self.process.ask(order)
    }

    fn facts(&mut self) -> Result<Facts> {
        self.process.observed()
    }
}
