//! What the threads of a run and its conductor tell each other.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use serde::{Deserialize, Serialize};

use crate::clock::Micros;
use crate::latency::Latency;
use crate::ledger::Tally;

/// An order to a worker.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Command {
    /// Sessions are up: send heartbeats from now on.
    Hold,
    /// Send the messages of a step in this time, at its rates times `scale`.
    Exchange {
        step: usize,
        from: Micros,
        until: Micros,
        scale: f64,
    },
    /// Drop all connections without a close and come back within `spread`. The control group sends
    /// messages meanwhile.
    Cut { spread: Micros, control_rate: f64 },
    /// Change the port of every socket within this time.
    Rebind { over: Micros },
    /// The server is about to end: expect its GoAway, and come back when it said.
    Restart,
    /// Send no more; bring everyone back and wait for what is missing.
    Drain,
    /// Close all sessions and end.
    Stop,
}

/// What a worker is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) enum Stage {
    #[default]
    Ramp,
    Hold,
    Exchange,
    Storm,
    Rebind,
    Restart,
    Drain,
    Stopped,
}

impl Stage {
    /// As in reports.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ramp => "ramp",
            Self::Hold => "hold",
            Self::Exchange => "exchange",
            Self::Storm => "storm",
            Self::Rebind => "rebind",
            Self::Restart => "restart",
            Self::Drain => "drain",
            Self::Stopped => "end",
        }
    }
}

/// How a worker is doing.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Status {
    /// Sessions that are open now.
    pub(crate) active: u32,
    /// Sessions that have been open at some time.
    pub(crate) established: u32,
    /// Sessions that were refused for good.
    pub(crate) gave_up: u32,
    /// Sessions that are away because the scenario wants it.
    pub(crate) away: u32,
    /// Connections lost that nobody wanted to lose.
    pub(crate) disconnected: u64,
    /// Sessions opened again after a connection was lost, by whose fault ever.
    pub(crate) reconnected: u64,
    /// Connections that the scenario cut.
    pub(crate) cut: u64,
    /// Sessions that left and joined again because the scenario wanted it.
    pub(crate) churned: u64,
    /// Sockets that changed their port.
    pub(crate) rebinds: u64,
    pub(crate) handshakes_full: u64,
    pub(crate) handshakes_resumed: u64,
    pub(crate) logins_with_token: u64,
    pub(crate) logins_with_resume_token: u64,
    /// When the last session of the ramp opened.
    pub(crate) last_established_at: Micros,
    pub(crate) heartbeats: u64,
    pub(crate) postponed: u64,
    /// Numbers refused for good because their chat took nothing for a while (P112).
    pub(crate) chat_refusals: u64,
    pub(crate) goaways: u64,
    /// Sends that this end began late.
    pub(crate) late_sends: u64,
    /// By how much at most.
    pub(crate) latest_send: Micros,
    /// Sends left out because hardly anyone was there to make them.
    pub(crate) unsendable: u64,
    /// CPU time of the thread, and the time it waited for a CPU.
    pub(crate) cpu: Micros,
    pub(crate) waited: Micros,
    pub(crate) tally: Tally,
    /// Why connections ended, but for those that this end closed on purpose.
    pub(crate) closes: BTreeMap<String, u64>,
    /// The interval that the server's Welcome asks for.
    pub(crate) heartbeat: Micros,
    pub(crate) stage: Stage,
    /// Everything that the stage wants is done.
    pub(crate) settled: bool,
}

/// What the conductor sees of a worker while it runs.
#[derive(Debug)]
pub(crate) struct Window(Mutex<View>);

#[derive(Debug)]
pub(crate) struct View {
    pub(crate) status: Status,
    /// Latencies since the conductor last took them.
    pub(crate) ack: Latency,
    pub(crate) deliver: Latency,
}

impl Window {
    pub(crate) fn new() -> Arc<Self> {
        let view = View {
            status: Status::default(),
            ack: Latency::new(),
            deliver: Latency::new(),
        };
        Arc::new(Self(Mutex::new(view)))
    }

    pub(crate) fn view(&self) -> MutexGuard<'_, View> {
        self.0.lock().expect("nobody panics while holding it")
    }
}

impl Status {
    /// Adds another worker's status.
    pub(crate) fn add(&mut self, other: &Self) {
        self.active += other.active;
        self.established += other.established;
        self.gave_up += other.gave_up;
        self.away += other.away;
        self.disconnected += other.disconnected;
        self.reconnected += other.reconnected;
        self.cut += other.cut;
        self.churned += other.churned;
        self.rebinds += other.rebinds;
        self.handshakes_full += other.handshakes_full;
        self.handshakes_resumed += other.handshakes_resumed;
        self.logins_with_token += other.logins_with_token;
        self.logins_with_resume_token += other.logins_with_resume_token;
        self.last_established_at = self.last_established_at.max(other.last_established_at);
        self.heartbeats += other.heartbeats;
        self.postponed += other.postponed;
        self.chat_refusals += other.chat_refusals;
        self.goaways += other.goaways;
        self.late_sends += other.late_sends;
        self.latest_send = self.latest_send.max(other.latest_send);
        self.unsendable += other.unsendable;
        self.cpu += other.cpu;
        self.waited += other.waited;
        self.tally.add(&other.tally);
        for (reason, count) in &other.closes {
            *self.closes.entry(reason.clone()).or_default() += count;
        }
        self.heartbeat = self.heartbeat.max(other.heartbeat);
    }

    pub(crate) fn sum<'a>(all: impl IntoIterator<Item = &'a Self>) -> Self {
        let mut sum = Self::default();
        all.into_iter().for_each(|one| sum.add(one));
        sum
    }
}
