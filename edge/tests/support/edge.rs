//! The edge as a child process.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::soon;

/// A running edge. Killed when dropped.
pub(crate) struct Edge {
    child: Child,
    pub(crate) listen: SocketAddr,
    pub(crate) admin: SocketAddr,
    pub(crate) data: PathBuf,
    /// What a shell does before it becomes the edge; nothing, if there is none.
    shell: String,
    options: Vec<String>,
    /// What it has written to standard error.
    log: Log,
    /// Standard error, if nobody reads it.
    unread: Option<ChildStderr>,
    /// Keeps the data directory until the test ends.
    _directory: Option<tempfile::TempDir>,
}

impl Edge {
    /// An edge on a fresh data directory with every default.
    pub(crate) fn start() -> Self {
        Self::start_with("", &[])
    }

    /// An edge with a configuration and further command-line options.
    pub(crate) fn start_with(config: &str, options: &[&str]) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let data = directory.path().to_owned();
        Self::start_on(&data, Some(directory), config, options)
    }

    /// An edge that a shell starts on a data directory, after it has done something: `umask`, `ulimit`.
    pub(crate) fn start_after(shell: &str, data: &Path, options: &[&str]) -> Self {
        let mut all = vec!["--data".to_owned(), data.display().to_string()];
        all.extend(options.iter().map(|option| (*option).to_owned()));
        let mut edge = Self::spawn(shell, data, None, all);
        edge.read_log();
        edge
    }

    /// An edge on a data directory that the test provides.
    pub(crate) fn start_on(
        data: &Path,
        directory: Option<tempfile::TempDir>,
        config: &str,
        options: &[&str],
    ) -> Self {
        let mut edge = Self::spawn_on(data, directory, config, options);
        edge.read_log();
        edge
    }

    /// An edge whose standard error is a pipe that nobody reads.
    pub(crate) fn start_unread(config: &str) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let data = directory.path().to_owned();
        Self::spawn_on(&data, Some(directory), config, &[])
    }

    fn read_log(&mut self) {
        if let Some(stderr) = self.unread.take() {
            self.log.collect(stderr);
        }
    }

    fn spawn_on(
        data: &Path,
        directory: Option<tempfile::TempDir>,
        config: &str,
        options: &[&str],
    ) -> Self {
        let file = data.join("roadstead.toml");
        std::fs::write(&file, config).expect("a configuration file");
        let mut all = vec!["--config".to_owned(), file.display().to_string()];
        all.extend(["--data".to_owned(), data.display().to_string()]);
        all.extend(options.iter().map(|option| (*option).to_owned()));
        Self::spawn("", data, directory, all)
    }

    fn spawn(
        shell: &str,
        data: &Path,
        directory: Option<tempfile::TempDir>,
        options: Vec<String>,
    ) -> Self {
        let any = "127.0.0.1:0".parse().expect("an address");
        let log = Log::default();
        let (mut child, listen, admin) = spawn(shell, &options, any, &log);
        Self {
            unread: child.stderr.take(),
            child,
            log,
            listen,
            admin,
            data: data.to_owned(),
            shell: shell.to_owned(),
            options,
            _directory: directory,
        }
    }

    /// Takes the process away without a word, as a crash does.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("the edge can be killed");
        self.child.wait().expect("the edge was started");
    }

    /// Starts it again on the same data and the same port.
    pub(crate) fn restart(&mut self) {
        let (child, listen, admin) = spawn(&self.shell, &self.options, self.listen, &self.log);
        (self.child, self.listen, self.admin) = (child, listen, admin);
        self.unread = self.child.stderr.take();
        self.read_log();
    }

    /// Asks it to drain, and waits for its end.
    pub(crate) fn terminate(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.child.wait().expect("the edge was started")
    }

    /// Everything that it wrote, to either output, until its end. Ends it.
    pub(crate) fn whole_log(&mut self) -> Vec<u8> {
        self.terminate();
        let readers = std::mem::take(&mut *self.log.readers.lock().expect("no panic"));
        for reader in readers {
            reader.join().expect("it reads to the end");
        }
        std::mem::take(&mut *self.log.bytes.lock().expect("no panic"))
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).expect("the edge can be signalled");
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child
            .try_wait()
            .expect("the edge was started")
            .is_none()
    }

    /// The process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    fn pid(&self) -> Pid {
        let id = i32::try_from(self.child.id()).expect("a process id");
        Pid::from_raw(id).expect("a process id is positive")
    }

    /// A development token.
    pub(crate) fn token(&self, user: u64) -> String {
        let output = roadstead()
            .args(["token", "--user", &user.to_string(), "--data"])
            .arg(&self.data)
            .output()
            .expect("roadstead token runs");
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout)
            .expect("a token is text")
            .trim()
            .to_owned()
    }

    /// The sum of a metric over shards and labels that contain `filter`.
    pub(crate) async fn metric(&self, name: &str, filter: &str) -> u64 {
        let (_, page) = self.get("/metrics").await;
        let samples = page.lines().filter(|line| {
            let (series, _) = line.split_once(' ').unwrap_or_default();
            let (family, labels) = series.split_once('{').unwrap_or((series, ""));
            family == name && labels.contains(filter)
        });
        samples
            .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
            .sum()
    }

    /// Waits until a metric has at least this value: counters are published a moment after the fact.
    pub(crate) async fn metric_reaches(&self, name: &str, filter: &str, value: u64) {
        let reached = async {
            while self.metric(name, filter).await < value {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        };
        soon(&format!("{name}{{{filter}}} reaching {value}"), reached).await;
    }

    /// Status and body of an admin page.
    pub(crate) async fn get(&self, path: &str) -> (u16, String) {
        let host = format!("Host: {}\r\n", self.admin);
        self.get_with(path, &host).await
    }

    /// Status and body of an admin page, asked for with other headers.
    pub(crate) async fn get_with(&self, path: &str, headers: &str) -> (u16, String) {
        let mut stream = tokio::net::TcpStream::connect(self.admin)
            .await
            .expect("admin listens");
        let request = format!("GET {path} HTTP/1.1\r\n{headers}Connection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("answered");
        let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok());
        let (_, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
        (status.expect("a status line"), body.to_owned())
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The binary under test.
pub(crate) fn roadstead() -> Command {
    Command::new(env!("CARGO_BIN_EXE_roadstead"))
}

/// What a child writes, collected by threads of their own: it would stop at a full pipe.
#[derive(Default)]
struct Log {
    bytes: Arc<Mutex<Vec<u8>>>,
    readers: Mutex<Vec<JoinHandle<()>>>,
}

impl Log {
    fn collect(&self, mut output: impl Read + Send + 'static) {
        let bytes = self.bytes.clone();
        let reader = std::thread::spawn(move || {
            let mut chunk = [0; 4096];
            while let Ok(length @ 1..) = output.read(&mut chunk) {
                let mut bytes = bytes.lock().expect("no panic");
                bytes.extend_from_slice(&chunk[..length]);
            }
        });
        self.readers.lock().expect("no panic").push(reader);
    }
}

/// The binary under test, started by a shell that has done something before.
pub(crate) fn roadstead_after(shell: &str) -> Command {
    let mut command = Command::new("sh");
    command
        .args(["-c", &format!("{shell} && exec \"$0\" \"$@\"")])
        .arg(env!("CARGO_BIN_EXE_roadstead"));
    command
}

fn spawn(
    shell: &str,
    options: &[String],
    listen: SocketAddr,
    log: &Log,
) -> (Child, SocketAddr, SocketAddr) {
    let mut command = match shell {
        "" => roadstead(),
        shell => roadstead_after(shell),
    };
    let mut child = command
        .arg("serve")
        .args(options)
        .args(["--listen", &listen.to_string(), "--admin", "127.0.0.1:0"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the edge starts");
    let mut line = String::new();
    let mut stdout = BufReader::new(child.stdout.take().expect("piped"));
    stdout
        .read_line(&mut line)
        .expect("the edge says something");
    if !line.starts_with("roadstead ready") {
        let mut log = String::new();
        let mut stderr = child.stderr.take().expect("piped");
        let _ = stderr.read_to_string(&mut log);
        panic!("the edge is not ready: {line:?}\n{log}");
    }
    log.collect(Read::chain(
        std::io::Cursor::new(line.clone().into_bytes()),
        stdout,
    ));
    let field = |name: &str| {
        let value = line
            .split_whitespace()
            .find_map(|word| word.strip_prefix(name));
        value
            .expect("the ready line names it")
            .parse()
            .expect("an address")
    };
    (child, field("listen="), field("admin="))
}
