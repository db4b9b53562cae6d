//! The server as a child process.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{
    Pid, Resource, Rlimit, Signal, WaitId, WaitIdOptions, kill_process, prlimit, waitid,
};

use crate::scenario::Bench;

/// The longest that anything may take before it counts as hanging.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// How often something that has no way to tell is looked at.
pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Where floods come from: an address has places of its own for handshakes (T11), which must not be those of the load.
pub(crate) const FLOOD_FROM: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));

/// How the server is started.
#[derive(Debug, Clone, Default)]
pub(crate) struct Setup {
    /// Its configuration file.
    pub(crate) config: String,
    /// Environment variables.
    pub(crate) environment: Vec<(&'static str, PathBuf)>,
    /// A group whose limits hold for it (cgroup v1 or v2): its `cgroup.procs`.
    pub(crate) group: Option<PathBuf>,
}

/// A running server. Killed when dropped.
#[derive(Debug)]
pub(crate) struct Edge {
    child: Child,
    binary: PathBuf,
    arguments: Vec<String>,
    setup: Setup,
    pub(crate) listen: SocketAddr,
    pub(crate) admin: SocketAddr,
    pub(crate) data: PathBuf,
    log: PathBuf,
}

impl Edge {
    /// A server on a data folder, with files of its own in `scratch`.
    pub(crate) fn start(bench: &Bench, scratch: &Path, data: &Path, setup: Setup) -> Result<Self> {
        let config = scratch.join("roadstead.toml");
        std::fs::write(&config, &setup.config)?;
        let log = scratch.join("edge.log");
        let mut arguments = vec!["--config".to_owned(), config.display().to_string()];
        arguments.extend(["--data".to_owned(), data.display().to_string()]);
        arguments.extend(["--quic-engine".to_owned(), bench.quic_engine.clone()]);
        let any = "127.0.0.1:0".parse()?;
        let binary = bench.binary("roadstead");
        let (child, listen, admin) = spawn(&binary, &arguments, &setup, &log, any, any)?;
        Ok(Self {
            child,
            binary,
            arguments,
            setup,
            listen,
            admin,
            data: data.to_owned(),
            log,
        })
    }

    /// Takes the process away without a word, as a crash does.
    pub(crate) fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Starts it again on the same data and the same ports.
    pub(crate) fn restart(&mut self) -> Result<()> {
        let (listen, admin) = (self.listen, self.admin);
        let (binary, arguments) = (&self.binary, &self.arguments);
        (self.child, ..) = spawn(binary, arguments, &self.setup, &self.log, listen, admin)?;
        Ok(())
    }

    /// Whether it still runs; how it ended, if not.
    pub(crate) fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// It never ended by itself, and now it ends orderly.
    pub(crate) fn finish(mut self) -> Result<()> {
        self.lives()?;
        self.signal(Signal::TERM)?;
        let status = self.child.wait()?;
        ensure!(
            status.success(),
            "the server drained and ended with {status}\n{}",
            self.last_words()
        );
        Ok(())
    }

    /// It still runs.
    pub(crate) fn lives(&self) -> Result<()> {
        let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        if let Some(status) = waitid(WaitId::Pid(self.pid()), look)? {
            let how = match status.terminating_signal() {
                Some(signal) => format!("signal {signal}"),
                None => format!("code {}", status.exit_status().unwrap_or(0)),
            };
            bail!("the server ended by itself: {how}: {}", self.last_words());
        }
        Ok(())
    }

    /// Looks until it is so, as long as the server runs.
    fn until(&self, what: &str, mut done: impl FnMut() -> Result<bool>) -> Result<()> {
        until(what, || {
            self.lives()?;
            done()
        })
    }

    fn last_words(&self) -> String {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().rev().take(5).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }

    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill_process(self.pid(), signal)?)
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// The lowest descriptor that it has free: limited to that, it gets no further one.
    pub(crate) fn free_descriptor(&self) -> Result<u64> {
        let folder = format!("/proc/{}/fd", self.child.id());
        let names = std::fs::read_dir(folder)?
            .flatten()
            .map(|entry| entry.file_name());
        let open: BTreeSet<u64> = names
            .filter_map(|name| name.to_str()?.parse().ok())
            .collect();
        let free = (0..).find(|number| !open.contains(number));
        Ok(free.expect("nothing has every descriptor"))
    }

    /// Sets how many descriptors it may have; answers how many it might before.
    pub(crate) fn limit_descriptors(&self, current: Option<u64>) -> Result<Option<u64>> {
        let before = rustix::process::getrlimit(Resource::Nofile);
        let maximum = before.maximum;
        let limit = Rlimit { current, maximum };
        Ok(prlimit(Some(self.pid()), Resource::Nofile, limit)?.current)
    }

    /// Resident memory in bytes.
    pub(crate) fn resident(&self) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|rest| rest.trim().strip_suffix(" kB"));
        let kib: u64 = kib.context("a process has a resident size")?.parse()?;
        Ok(kib * 1024)
    }

    /// Bytes that the store has in memory and not yet in its tables, as it says itself.
    pub(crate) fn young(&self) -> Result<u64> {
        let (_, page) = self.get("/debug/memory")?;
        let line = page.lines().find(|line| line.starts_with("store, not yet"));
        let number =
            line.and_then(|line| line.split_whitespace().find_map(|word| word.parse().ok()));
        number.context("the account of memory names the store")
    }

    /// Status and body of an admin page.
    pub(crate) fn get(&self, path: &str) -> Result<(u16, String)> {
        let mut stream = TcpStream::connect_timeout(&self.admin, Duration::from_secs(2))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n",
            self.admin
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok());
        let (_, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
        Ok((status.context("a status line")?, body.to_owned()))
    }

    /// The sum of a metric over shards and labels.
    pub(crate) fn metric(&self, name: &str) -> Result<u64> {
        let (_, page) = self.get("/metrics")?;
        let samples = page.lines().filter(|line| {
            let series = line.split(' ').next().unwrap_or_default();
            series.split('{').next() == Some(name)
        });
        Ok(samples
            .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
            .sum())
    }

    /// Waits until a metric has at least this value.
    pub(crate) fn metric_reaches(&self, name: &str, value: u64) -> Result<()> {
        self.until(&format!("{name} reaching {value}"), || {
            Ok(self.metric(name).is_ok_and(|now| now >= value))
        })
    }

    /// Waits until so many sessions were closed with this code.
    pub(crate) fn closed_with(&self, code: &str, count: u64) -> Result<()> {
        self.until(
            &format!("{count} sessions being closed with {code}"),
            || {
                let (_, page) = self.get("/metrics")?;
                let of = |line: &&str| line.starts_with("roadstead_refused") && line.contains(code);
                let values = page
                    .lines()
                    .filter(of)
                    .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok());
                Ok(values.sum::<u64>() >= count)
            },
        )
    }

    /// Breaks something, and waits until the store has failed of it. Readiness may be red for a moment
    /// only: an engine whose syncs fail opens again, and fails at the next commit.
    pub(crate) fn store_fails(&self, break_it: impl FnOnce() -> std::io::Result<()>) -> Result<()> {
        let name = "roadstead_store_failures_total";
        let before = self.metric(name)?;
        break_it()?;
        self.metric_reaches(name, before + 1)
    }

    /// Waits until readiness answers so.
    pub(crate) fn becomes_ready(&self, status: u16) -> Result<()> {
        self.until(&format!("/readyz answering {status}"), || {
            Ok(self.get("/readyz").is_ok_and(|(now, _)| now == status))
        })
    }

    /// A development token.
    pub(crate) fn token(&self, user: u64) -> Result<String> {
        let output = Command::new(&self.binary)
            .args(["token", "--user", &user.to_string(), "--data"])
            .arg(&self.data)
            .output()?;
        ensure!(
            output.status.success(),
            "roadstead token: {}",
            output.status
        );
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    }

    /// Tries to start a second process on the same data, which must refuse; what it says.
    pub(crate) fn refuses_to_start(&self) -> Result<String> {
        let any = "127.0.0.1:0".parse()?;
        match spawn(
            &self.binary,
            &self.arguments,
            &self.setup,
            &self.log,
            any,
            any,
        ) {
            Ok((mut child, ..)) => {
                child.kill()?;
                child.wait()?;
                bail!("it started");
            }
            Err(error) => Ok(error.to_string()),
        }
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        // A stopped process dies of SIGKILL too.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Looks until it is so.
pub(crate) fn until(what: &str, mut done: impl FnMut() -> Result<bool>) -> Result<()> {
    let began = Instant::now();
    while !done()? {
        ensure!(
            began.elapsed() < PATIENCE,
            "{what} did not happen within {PATIENCE:?}"
        );
        std::thread::sleep(LOOK_EVERY);
    }
    Ok(())
}

fn spawn(
    binary: &Path,
    arguments: &[String],
    setup: &Setup,
    log: &Path,
    listen: SocketAddr,
    admin: SocketAddr,
) -> Result<(Child, SocketAddr, SocketAddr)> {
    let log_file = File::options().create(true).append(true).open(log)?;
    let mut command = match &setup.group {
        // The shell joins the group and becomes the server.
        Some(procs) => {
            let mut shell = Command::new("sh");
            shell
                .args(["-c", "echo $$ > \"$0\" && exec \"$@\""])
                .arg(procs)
                .arg(binary);
            shell
        }
        None => Command::new(binary),
    };
    let mut child = command
        .arg("serve")
        .args(arguments)
        .args([
            "--listen",
            &listen.to_string(),
            "--admin",
            &admin.to_string(),
        ])
        .envs(setup.environment.iter().map(|(name, value)| (name, value)))
        .stdout(Stdio::piped())
        .stderr(log_file)
        .spawn()
        .with_context(|| binary.display().to_string())?;
    let mut line = String::new();
    let stdout = child.stdout.take().expect("piped");
    BufReader::new(stdout).read_line(&mut line)?;
    if !line.starts_with("roadstead ready") {
        let status = child.wait()?;
        let said = std::fs::read_to_string(log).unwrap_or_default();
        let last = said.lines().last().unwrap_or_default();
        bail!("the server is not ready: {status}: {last}");
    }
    let field = |name: &str| -> Result<SocketAddr> {
        let value = line
            .split_whitespace()
            .find_map(|word| word.strip_prefix(name));
        Ok(value
            .context("the ready line names its addresses")?
            .parse()?)
    };
    Ok((child, field("listen=")?, field("admin=")?))
}
