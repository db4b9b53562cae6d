//! The log: lines to standard error, written by a thread of their own.
//!
//! Whoever reads standard error may stop: a terminal that was paused, a collector that hangs. A write then
//! blocks, and a shard that logs would stand still with all its sessions. So whoever has a line puts it into
//! a queue of fixed size and never waits. When the queue is full the line is dropped and counted, and the
//! next one that is written says how many are missing.

use std::io::{self, IsTerminal, Write};
use std::panic::PanicHookInfo;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender, TrySendError};
use std::time::{Duration, Instant};

use anyhow::Context;

/// Lines that wait for the writer: some seconds of a talkative level, and at most 32 MiB.
const LINES_MAX: usize = 8 * 1024;

/// Bytes of a line; the rest of a longer one is cut off.
const LINE_BYTES_MAX: usize = 4 * 1024;

/// How long the end of the process, in order or by a panic, waits for the log to be written.
const PATIENCE: Duration = Duration::from_secs(1);

/// How often a thread looks that waits for room in the queue. Only a process that ends does.
const LOOK_EVERY: Duration = Duration::from_millis(5);

enum Entry {
    Line(Box<[u8]>),
    /// Everything before it is to be written; then whoever waits is told.
    Flush(SyncSender<()>),
}

/// The way into the log.
#[derive(Clone)]
pub(crate) struct Log {
    queue: SyncSender<Entry>,
    dropped: Arc<AtomicU64>,
}

/// Starts the log of this process: what is traced up to a level, and panics, goes to standard error.
pub(crate) fn start(filter: &str) -> anyhow::Result<Log> {
    let level: tracing::metadata::LevelFilter = filter
        .parse()
        .with_context(|| format!("log = {filter:?}"))?;
    let log = Log::to(io::stderr()).context("a thread for the log")?;
    let lines = log.clone();
    // Colours are for a screen, unless the user wants none there either (no-color.org).
    let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    tracing_subscriber::fmt()
        .with_ansi(io::stderr().is_terminal() && !no_colour)
        .with_max_level(level)
        .with_writer(move || lines.clone())
        .init();
    let panics = log.clone();
    std::panic::set_hook(Box::new(move |panic| {
        panics.report(panic);
        // As a release build does by itself: a server that goes on without one of its shards leaves the
        // sessions of that shard hanging, and looks well.
        std::process::abort();
    }));
    Ok(log)
}

impl Log {
    /// A log that a thread writes to `output`. A line that can not be written is lost: a full disk under the
    /// log ends nothing.
    fn to(output: impl Write + Send + 'static) -> io::Result<Self> {
        let (queue, lines) = mpsc::sync_channel(LINES_MAX);
        let dropped = Arc::new(AtomicU64::new(0));
        let counted = dropped.clone();
        std::thread::Builder::new()
            .name("log".into())
            .spawn(move || write_all(output, &lines, &counted))?;
        Ok(Self { queue, dropped })
    }

    /// Lines that found no room.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Waits a moment until everything said so far is written, if somebody reads it. For the end of the process.
    pub(crate) fn flush(&self) {
        let until = Instant::now() + PATIENCE;
        let (done, written) = mpsc::sync_channel(1);
        if self.insist(Entry::Flush(done), until) {
            let left = until.saturating_duration_since(Instant::now());
            let _ = written.recv_timeout(left);
        }
    }

    fn say(&self, line: &[u8]) {
        let line = line[..line.len().min(LINE_BYTES_MAX)].into();
        if let Err(TrySendError::Full(_)) = self.queue.try_send(Entry::Line(line)) {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits until a moment for room. False if there was none.
    fn insist(&self, mut entry: Entry, until: Instant) -> bool {
        loop {
            match self.queue.try_send(entry) {
                Ok(()) => return true,
                Err(TrySendError::Full(kept)) if Instant::now() < until => entry = kept,
                Err(_) => return false,
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// A thread panics, and the process will end: the last thing that it says should be read, and must not
    /// keep it from ending.
    fn report(&self, panic: &PanicHookInfo<'_>) {
        let thread = std::thread::current();
        let name = thread.name().unwrap_or("?").to_owned();
        let trace = std::backtrace::Backtrace::capture();
        let line = format!("thread '{name}' {panic}\n{trace}\n").into_bytes();
        self.insist(Entry::Line(line.into()), Instant::now() + PATIENCE);
        self.flush();
    }
}

/// Each line is one write.
impl Write for Log {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.say(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The writer: ends when nobody can say anything more.
fn write_all(mut output: impl Write, lines: &Receiver<Entry>, dropped: &AtomicU64) {
    let mut told = 0;
    while let Ok(entry) = lines.recv() {
        let missing = dropped.load(Ordering::Relaxed) - told;
        if missing > 0 {
            told += missing;
            let _ = writeln!(
                output,
                "WARN roadstead: {missing} lines of the log were dropped"
            );
        }
        match entry {
            Entry::Line(line) => drop(output.write_all(&line)),
            Entry::Flush(done) => {
                let _ = output.flush();
                // Whoever asked may have lost patience.
                let _ = done.try_send(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// An output that a test lets through.
    #[derive(Clone, Default)]
    struct Gate {
        shut: Arc<Mutex<()>>,
        written: Arc<Mutex<Vec<u8>>>,
    }

    impl Gate {
        fn text(&self) -> String {
            let bytes = self.written.lock().expect("no panic").clone();
            String::from_utf8(bytes).expect("text")
        }
    }

    impl Write for Gate {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _open = self.shut.lock().expect("no panic");
            self.written.lock().expect("no panic").extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_are_written_in_order_and_a_flush_waits_for_them() {
        let gate = Gate::default();
        let log = Log::to(gate.clone()).expect("a thread");
        log.say(b"one\n");
        log.say(b"two\n");
        log.flush();
        assert_eq!(gate.text(), "one\ntwo\n");
        assert_eq!(log.dropped(), 0);
    }

    #[test]
    fn nobody_waits_for_an_output_that_blocks_and_what_is_missing_is_told() {
        let gate = Gate::default();
        let log = Log::to(gate.clone()).expect("a thread");
        let shut = gate.shut.lock().expect("no panic");
        // Beyond the queue's places one line is in the writer's hands.
        for _ in 0..LINES_MAX + 10 {
            log.say(b"line\n");
        }
        let dropped = log.dropped();
        assert!((9..=10).contains(&dropped), "{dropped}");
        drop(shut);
        log.flush();
        log.say(b"last\n");
        log.flush();
        let text = gate.text();
        let told = format!("{dropped} lines of the log were dropped\n");
        assert_eq!(text.matches(&told).count(), 1, "{}", text.len());
        assert_eq!(
            text.matches("line\n").count() as u64 + dropped,
            LINES_MAX as u64 + 10
        );
        assert!(text.ends_with("last\n"));
    }

    #[test]
    fn a_flush_gives_up_where_nobody_reads() {
        let gate = Gate::default();
        let log = Log::to(gate.clone()).expect("a thread");
        let _shut = gate.shut.lock().expect("no panic");
        log.say(b"line\n");
        log.flush();
        assert_eq!(gate.written.lock().expect("no panic").len(), 0);
    }

    #[test]
    fn a_long_line_is_cut() {
        let gate = Gate::default();
        let log = Log::to(gate.clone()).expect("a thread");
        log.say(&vec![b'x'; LINE_BYTES_MAX + 1]);
        log.flush();
        assert_eq!(gate.text().len(), LINE_BYTES_MAX);
    }
}
