//! `loadgen agent`: makes parts of runs for whoever has the token, one at a time.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, Sender as Stop, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};

use super::link::{self, End, Sender, TOKEN_BYTES_MIN};
use super::{Answer, Job, Order};
use crate::cli::Agent;
use crate::run::Raw;
use crate::{out, scenario};

/// Between two signs of life.
const ALIVE_EVERY: Duration = Duration::from_secs(4);

/// Serves for ever.
pub(crate) fn serve(agent: &Agent) -> Result<()> {
    let token = read_token(&agent.token_file)?;
    let listener = TcpListener::bind(agent.listen)
        .with_context(|| format!("listening on {}", agent.listen))?;
    out::line(format_args!(
        "loadgen agent ready listen={}",
        listener.local_addr()?
    ));
    for stream in listener.incoming() {
        let stream = stream?;
        let peer = stream.peer_addr();
        if let Err(error) = serve_one(stream, &token) {
            let peer = peer.map_or("somebody".into(), |peer| peer.to_string());
            out::note(format_args!("loadgen agent: {peer}: {error:#}"));
        }
    }
    Ok(())
}

/// The secret that leader and agents share.
pub(super) fn read_token(path: &Path) -> Result<Vec<u8>> {
    let text = fs::read(path).with_context(|| format!("reading {}", path.display()))?;
    let token = text.trim_ascii().to_vec();
    ensure!(
        token.len() >= TOKEN_BYTES_MIN,
        "the token in {} has fewer than {TOKEN_BYTES_MIN} bytes",
        path.display()
    );
    Ok(token)
}

fn serve_one(stream: TcpStream, token: &[u8]) -> Result<()> {
    let (sender, mut receiver) = link::open(stream, token, End::Agent)?;
    let sender = Arc::new(Mutex::new(sender));
    let Order::Job(job) = receiver.receive()? else {
        bail!("no job");
    };
    let say = |answer: Answer| {
        let mut sender = sender.lock().expect("nobody panics holding it");
        sender.send(&answer)
    };
    let prepared = match scenario::prepare(&job.arguments, job.scenario.as_deref(), keys(&job)) {
        Ok(prepared) => prepared,
        Err(error) => return say(Answer::Failed(format!("{error:#}"))),
    };
    say(Answer::Ready {
        unix_ms: unix_ms()?,
    })?;
    // The leader starts all at once, when the last is ready.
    receiver.wait_for_ever()?;
    let Order::Start { at_unix_ms } = receiver.receive()? else {
        bail!("no start");
    };
    thread::sleep(Duration::from_millis(at_unix_ms.saturating_sub(unix_ms()?)));
    let alive = keep_saying_alive(sender.clone());
    let result = scenario::make(&prepared);
    drop(alive);
    say(match result {
        Ok(raw) => Answer::Done(Box::new(raw)),
        Err(error) => Answer::Failed(format!("{error:#}")),
    })
}

fn keys(job: &Job) -> scenario::Given {
    scenario::Given {
        part: Some(job.part),
        roots: Some(job.roots.clone()),
        token_key: Some(job.token_key.clone()),
    }
}

/// Tells the leader that this end still works, until the answer is dropped.
fn keep_saying_alive(sender: Arc<Mutex<Sender>>) -> Stop<Raw> {
    let (stop, stopped) = channel();
    thread::spawn(move || {
        while stopped
            .recv_timeout(ALIVE_EVERY)
            .is_err_and(|e| e == RecvTimeoutError::Timeout)
        {
            let mut sender = sender.lock().expect("nobody panics holding it");
            if sender.send(&Answer::Alive).is_err() {
                return;
            }
        }
    });
    stop
}

/// Milliseconds since 1970.
pub(super) fn unix_ms() -> Result<u64> {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .context("the clock is before 1970")?;
    Ok(u64::try_from(since.as_millis())?)
}
