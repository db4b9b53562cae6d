//! After a failure: nothing is served, and the database is reopened in the background (R10).

use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded, never, select};

use super::committer::{Committer, Job};
use super::config::EmbeddedConfig;
use super::engine::Engine;
use super::health::Board;
use super::reserve::{self, Place};

/// The first pause between two tries. Doubles to [`BACKOFF_MAX`].
const BACKOFF: Duration = Duration::from_millis(50);

/// The longest pause: a disk that has room again is noticed soon.
const BACKOFF_MAX: Duration = Duration::from_secs(2);

impl Committer {
    /// Answers everything `Unavailable` until the database is open again or the store is stopped.
    pub(super) fn serve_nothing(&mut self) {
        self.refuse_waiting();
        self.refuse_admins();
        let (stop, stopped) = bounded::<()>(0);
        let (opened, engines) = bounded(1);
        let (config, board) = (self.config.clone(), self.shared.board.clone());
        let place = self.reserve.place().clone();
        let reopening = std::thread::Builder::new()
            .name("store reopen".into())
            .spawn(move || reopen(&config, &board, &place, &stopped, &opened));
        let jobs = self.jobs.clone();
        while self.engine.is_none() && !self.stopping {
            select! {
                recv(engines) -> engine => match engine {
                    Ok(engine) => self.resume(engine),
                    // The thread could not be started, or it panicked: try again a little later.
                    Err(_) => {
                        if let Ok(job) = jobs.recv_timeout(BACKOFF_MAX) {
                            self.refuse(job);
                        }
                        break;
                    }
                },
                recv(jobs) -> job => self.refuse(job.unwrap_or(Job::Stop)),
            }
        }
        drop(stop);
        if let Ok(thread) = reopening
            && thread.join().is_err()
        {
            tracing::error!("the thread that reopens the store panicked");
        }
    }

    fn resume(&mut self, engine: Engine) {
        tracing::info!("the store is open again");
        self.shared.board.publish(engine.committed().clone());
        self.engine = Some(engine);
        self.reserve.look_again();
    }
}

fn reopen(
    config: &EmbeddedConfig,
    board: &Board,
    place: &Place,
    stopped: &Receiver<()>,
    opened: &Sender<Engine>,
) {
    let mut pause = BACKOFF;
    let silence = never::<()>();
    loop {
        match Engine::open(config) {
            Ok(engine) => {
                // If the committer has stopped meanwhile, the engine is closed again here.
                let _ = opened.send(engine);
                return;
            }
            Err(error) => {
                tracing::warn!(%error, "the store cannot be reopened yet");
                board.fail(&error);
                if reserve::is_full(&error) && place.give_back() {
                    // With what was kept for that it opens at once.
                    continue;
                }
            }
        }
        select! {
            recv(stopped) -> _ => return,
            recv(silence) -> _ => {}
            default(pause) => {}
        }
        pause = (pause * 2).min(BACKOFF_MAX);
    }
}
