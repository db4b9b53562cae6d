//! Users who mean harm, while honest ones exchange messages: each kind beside the counter that refuses it.
//!
//! [`Attackers`] are threads of their own with sockets and source addresses of their own (127.0.0.x), so that nothing
//! of an honest session is theirs. What they were refused is read from the server's `/metrics`, before and after.

mod counters;
mod fill;
mod floods;
mod halves;
mod marks;
mod table;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use roadstead_hostile::{Access, HalfOpen, Peer};
use roadstead_proto::{DeviceId, UserId};

use crate::clock::Micros;
use crate::plan::Plan;
use counters::Counters;

pub(crate) use table::{Row, Table};

/// Users of one round: the first is the one whose inbox is filled.
pub(crate) const ROUND_USERS: u64 = 10_000;

/// How long an attacker rests when nothing came.
const PAUSE: Duration = Duration::from_micros(500);

/// Of each kind, how much.
#[derive(Debug, Clone, clap::Args, serde::Serialize)]
pub(crate) struct Attacks {
    /// Users who write, as fast as they may, to one whose device never acknowledges.
    #[arg(long, value_name = "N", default_value_t = 12)]
    pub(crate) fillers: u32,
    /// Users who mark chats as read, as fast as they can: one that exists, and many that do not.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) read_markers: u32,
    /// Handshakes that one address begins each second and never finishes.
    #[arg(long, value_name = "PER_SECOND", default_value_t = 500)]
    pub(crate) half_open: u32,
    /// Sessions that send part of a frame and then a byte a second: so many before their login, and so many after it.
    #[arg(long, value_name = "N", default_value_t = 16)]
    pub(crate) half_frames: u32,
    /// Leave out the session that sends PING packets as fast as it can.
    #[arg(long)]
    pub(crate) no_ping_flood: bool,
    /// Leave out the session whose packet numbers walk towards 2^62.
    #[arg(long)]
    pub(crate) no_number_walk: bool,
}

/// The attack on a server.
#[derive(Debug)]
pub(crate) struct Campaign {
    pub(crate) attacks: Attacks,
    pub(crate) access: Access,
    /// Where its counters are.
    pub(crate) admin: SocketAddr,
    /// An honest message that is delivered later than this is late.
    pub(crate) late_after: Micros,
}

/// What an attacker's thread has done.
#[derive(Debug, Default)]
struct Done {
    rows: Vec<Row>,
}

/// Attackers at work.
#[derive(Debug)]
pub(crate) struct Attackers {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Result<Done>>>,
    half_open: Option<HalfOpen>,
    admin: SocketAddr,
    before: Counters,
}

impl Attackers {
    /// Logs in who must be logged in, and begins. The users of this round are numbered from `victim` on.
    pub(crate) fn start(plan: &Plan, campaign: &Campaign, victim: u64) -> Result<Self> {
        let (attacks, admin) = (&campaign.attacks, campaign.admin);
        let mut all = Self {
            stop: Arc::default(),
            threads: Vec::new(),
            half_open: None,
            admin,
            before: Counters::read(admin)?,
        };
        let logins = Logins {
            plan,
            campaign,
            first: victim,
        };
        if attacks.fillers > 0 {
            let fill = fill::Fill::new(&logins, attacks.fillers)?;
            all.begin("fillers", move |stop| fill.run(stop))?;
        }
        if attacks.read_markers > 0 {
            let marks = marks::Marks::new(&logins, attacks.read_markers)?;
            all.begin("read markers", move |stop| marks.run(stop))?;
        }
        if attacks.half_frames > 0 {
            let halves = halves::Halves::new(&logins, attacks.half_frames)?;
            all.begin("half frames", move |stop| halves.run(stop))?;
        }
        let floods = floods::Floods::new(&logins, !attacks.no_ping_flood, !attacks.no_number_walk)?;
        all.begin("floods", move |stop| floods.run(stop))?;
        if attacks.half_open > 0 {
            let target = campaign.access.target();
            let flood = HalfOpen::start(address(5), target, attacks.half_open)?;
            all.half_open = Some(flood);
        }
        Ok(all)
    }

    fn begin(
        &mut self,
        name: &str,
        attack: impl FnOnce(&AtomicBool) -> Result<Done> + Send + 'static,
    ) -> Result<()> {
        let stop = Arc::clone(&self.stop);
        let thread = std::thread::Builder::new()
            .name(name.into())
            .spawn(move || attack(&stop))?;
        self.threads.push(thread);
        Ok(())
    }

    /// Ends all of it, and says what the server refused.
    pub(crate) fn stop(mut self) -> Result<Vec<Row>> {
        self.stop.store(true, Ordering::Relaxed);
        let mut rows = Vec::new();
        for thread in std::mem::take(&mut self.threads) {
            let done = thread.join().map_err(|_| anyhow!("an attacker panicked"))?;
            rows.extend(done?.rows);
        }
        if let Some(flood) = self.half_open.take() {
            rows.extend(half_open_rows(&flood));
        }
        let after = Counters::read(self.admin)?;
        for row in &mut rows {
            row.measure(&self.before, &after);
        }
        Ok(rows)
    }
}

impl Drop for Attackers {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn half_open_rows(flood: &HalfOpen) -> [Row; 3] {
    let row = |counter| Row::new("half-open handshakes", flood.begun(), counter);
    let remark = format!("{} went on with the token of a Retry", flood.proven());
    [
        row("roadstead_net_retries_sent_total").remark(remark),
        row("roadstead_net_handshakes_displaced_total").beside(),
        row("roadstead_net_drop_half_open_total").beside(),
    ]
}

/// Each kind has a source address of its own: what is counted by address (T11) must not be the honest ones'.
fn address(kind: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(127, 0, 0, 10 + kind))
}

/// How attackers log in.
struct Logins<'a> {
    plan: &'a Plan,
    campaign: &'a Campaign,
    first: u64,
}

impl Logins<'_> {
    fn user(&self, place: u64) -> Result<UserId> {
        assert!(place < ROUND_USERS, "rounds share no user");
        UserId::new(self.first + place).context("users are numbered from 1")
    }

    fn device() -> DeviceId {
        DeviceId::new(1).expect("not 0")
    }

    fn token(&self, user: UserId) -> Result<String> {
        self.plan.signer.sign(user)
    }

    /// A session of this user, and the number of its next message.
    fn log_in(&self, kind: u8, user: UserId) -> Result<(Peer, u64)> {
        let mut peer = Peer::connect(&self.campaign.access, address(kind))?;
        let counter = self.plan.counter_base;
        let welcome = peer
            .log_in(self.token(user)?, Self::device(), counter)
            .context("a login of an attacker")?;
        Ok((peer, welcome.highest_number.unwrap_or(0) + 1))
    }
}
