//! The threads of a run and the ways to them.

use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result, anyhow};
use roadstead_net::tls::ClientTls;
use roadstead_net::{Client, ClientConfig, Engine, Lean, Mailbox, Quinn, Seed};

use crate::cli::QuicEngine;
use crate::clock::Clock;
use crate::control::{Command, Status, View, Window};
use crate::plan::{Plan, Post};
use crate::worker::{Outcome, Worker};

/// All threads of a run.
pub(crate) struct Crew {
    stations: Vec<Station>,
}

/// One thread.
struct Station {
    window: Arc<Window>,
    mailbox: Arc<Mutex<Mailbox<Command>>>,
    thread: JoinHandle<Result<Outcome, roadstead_net::Error>>,
}

impl Crew {
    /// Opens every thread's sockets, then starts the threads.
    pub(crate) fn hire(plan: &Arc<Plan>, clock: Clock) -> Result<Self> {
        let alpn: &[&[u8]] = &[roadstead_proto::ALPN];
        let tls = Arc::new(ClientTls::trusting_pem(&plan.roots, alpn, plan.resumption)?);
        let hire = |(number, post): (u16, &Post)| {
            let mut config = ClientConfig::new(1, post.sockets, tls.clone());
            config.transport = plan.transport.clone();
            if plan.target.is_ipv6() {
                config.local = vec!["[::]:0".parse().context("an address")?];
            }
            // The one place where the engine is chosen: from here on it is a type.
            match post.engine {
                QuicEngine::Quinn => Station::open::<Quinn>(plan, number, post, config, clock),
                QuicEngine::Lean => Station::open::<Lean>(plan, number, post, config, clock),
            }
        };
        let stations = (0..).zip(&plan.posts).map(hire).collect::<Result<_>>()?;
        Ok(Self { stations })
    }

    /// Tells every thread what to do.
    pub(crate) fn tell(&self, command: Command) {
        for station in &self.stations {
            station.tell(command);
        }
    }

    /// How each thread is doing.
    pub(crate) fn statuses(&self) -> Vec<Status> {
        let windows = self.stations.iter().map(|station| &station.window);
        windows.map(|window| window.view().status.clone()).collect()
    }

    /// Shows each thread's window.
    pub(crate) fn visit(&self, mut each: impl FnMut(&mut View)) {
        for station in &self.stations {
            each(&mut station.window.view());
        }
    }

    /// An error if a thread ended that was not told to.
    pub(crate) fn check(&mut self) -> Result<()> {
        let ended = |station: &Station| station.thread.is_finished();
        let Some(at) = self.stations.iter().position(ended) else {
            return Ok(());
        };
        let outcome = self.stations.remove(at).join()?;
        match outcome {
            Ok(_) => Err(anyhow!("a thread ended early")),
            Err(error) => Err(anyhow!(error).context("a thread ended")),
        }
    }

    /// Ends all threads and collects what they leave behind.
    pub(crate) fn dismiss(&mut self) -> Result<Vec<Outcome>> {
        self.tell(Command::Stop);
        let stations = self.stations.drain(..).map(Station::join);
        let joined = stations.collect::<Result<Vec<_>>>()?;
        Ok(joined.into_iter().collect::<Result<_, _>>()?)
    }
}

impl Station {
    fn open<E: Engine + 'static>(
        plan: &Arc<Plan>,
        number: u16,
        post: &Post,
        config: ClientConfig,
        clock: Clock,
    ) -> Result<Self> {
        let mut client = Client::<Command, E>::open_with_engine(config.clone())?;
        let seed = client.take_seeds().remove(0);
        let window = Window::new();
        let worker = Worker::new(plan.clone(), post, number, clock, window.clone());
        let mailbox = Arc::new(Mutex::new(seed.mailbox()));
        let way_in = mailbox.clone();
        let thread = thread::Builder::new()
            .name(format!("loadgen-{number}"))
            .spawn(move || man(seed, worker, &config, &way_in))?;
        Ok(Self {
            window,
            mailbox,
            thread,
        })
    }

    fn tell(&self, command: Command) {
        let mailbox = self.mailbox.lock().expect("nobody panics holding it");
        // A mailbox holds thousands of commands and there are a few; a worker that ended reads none.
        let _ = mailbox.send(command);
    }

    fn join(self) -> Result<Result<Outcome, roadstead_net::Error>> {
        self.thread.join().map_err(|_| anyhow!("a thread panicked"))
    }
}

/// Runs a worker to its end: on one set of sockets, or on another after each cut.
fn man<E: Engine>(
    mut seed: Seed<Command, E>,
    mut worker: Worker,
    config: &ClientConfig,
    way_in: &Mutex<Mailbox<Command>>,
) -> Result<Outcome, roadstead_net::Error> {
    loop {
        worker = seed.run(worker)?;
        if !worker.is_severing() {
            return Ok(worker.into_outcome());
        }
        let mut client = Client::<Command, E>::open_with_engine(config.clone())?;
        seed = client.take_seeds().remove(0);
        *way_in.lock().expect("nobody panics holding it") = seed.mailbox();
        worker.sever();
    }
}
