//! One run on many machines: agents make parts of it, and one process puts the parts together.
//!
//! ```text
//! leader                                        agent (one per machine, one run at a time)
//!   nonces, keys from the shared token  ◀──▶      the same: a wrong token opens no frame
//!   Job: command line, which part, keys  ──▶      reads it, makes its plan
//!                                        ◀──      Ready
//!   Clock, some times                   ◀──▶      Clock: how far is it ahead, give or take?
//!   Start at one instant                 ──▶      waits for it
//!                                        ◀──      Begun, and makes its part of the run
//!   shows all of them and each           ◀──      Sign, once a second: sessions, counts, latencies, load
//!                                        ◀──      Alive, every few seconds, if it has nothing to tell
//!   merges what all measured             ◀──      Done, or Failed with the reason
//! ```
//!
//! A line that breaks ends the run at both ends: the leader names the agent, the agent stops its part.

mod lead;
mod link;
mod serve;
mod watch;

use serde::{Deserialize, Serialize};

use crate::clock::Micros;
use crate::control::{Stage, Status};
use crate::latency::Latency;
use crate::process::Usage;
use crate::run::Raw;

pub(crate) use lead::{Papers, lead};
pub(crate) use serve::serve;

/// Which part of a run a process makes: the `index`th of `parts`, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Part {
    pub(crate) index: u32,
    pub(crate) parts: u32,
}

/// What the leader says.
#[derive(Debug, Serialize, Deserialize)]
enum Order {
    Job(Box<Job>),
    /// What time is it?
    Clock,
    /// Begin at this time of the agent's own clock, in microseconds since 1970.
    Start {
        at_unix_us: u64,
    },
}

/// A part of a run.
#[derive(Debug, Serialize, Deserialize)]
struct Job {
    /// The leader's command line; what it says of files and agents does not count here.
    arguments: Vec<String>,
    /// The scenario file, if there is one.
    scenario: Option<String>,
    part: Part,
    /// PEM: certificates to trust and the key to sign tokens with.
    roots: Vec<u8>,
    token_key: Vec<u8>,
}

/// What an agent says.
#[derive(Debug, Serialize, Deserialize)]
enum Answer {
    /// It can begin, and will hold so many sessions with so many threads.
    Ready {
        sessions: u32,
        threads: u16,
    },
    /// Microseconds since 1970.
    Clock {
        unix_us: u64,
    },
    /// It has begun, so many microseconds after the common instant.
    Begun {
        late_us: u64,
    },
    Alive,
    Sign(Box<Sign>),
    Done(Box<Raw>),
    Failed(String),
}

/// How its part of the run goes.
#[derive(Debug, Serialize, Deserialize)]
struct Sign {
    /// By its own clock of the run.
    now: Micros,
    stage: Stage,
    /// Counts are totals.
    status: Status,
    own: Option<Usage>,
    /// Since the sign before.
    ack: Latency,
    deliver: Latency,
}

impl Part {
    /// This part of a number of things that come in lots: whole lots, as even as they go.
    pub(crate) fn of(self, all: u32, lot: u32) -> u32 {
        self.start(all, lot, self.index + 1) - self.start(all, lot, self.index)
    }

    /// How many of them the parts before this one have.
    pub(crate) fn before(self, all: u32, lot: u32) -> u32 {
        self.start(all, lot, self.index)
    }

    /// The last part takes what makes no whole lot.
    fn start(self, all: u32, lot: u32, index: u32) -> u32 {
        if index >= self.parts {
            return all;
        }
        let lots = u64::from(all / lot.max(1)) * u64::from(index) / u64::from(self.parts);
        u32::try_from(lots).expect("at most all") * lot
    }

    /// This part of a rate.
    pub(crate) fn share(self) -> f64 {
        1.0 / f64::from(self.parts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_whole_lots_and_make_up_the_whole() {
        for (all, lot, parts) in [(1_000, 4, 3), (7, 4, 2), (12, 1, 5), (2_000_003, 8, 4)] {
            let part = |index| Part { index, parts };
            let sizes: Vec<u32> = (0..parts).map(|index| part(index).of(all, lot)).collect();
            assert_eq!(sizes.iter().sum::<u32>(), all, "{sizes:?}");
            let mut before = 0;
            for (index, size) in (0..parts).zip(&sizes) {
                assert_eq!(part(index).before(all, lot), before);
                assert!(index + 1 == parts || size % lot == 0, "{sizes:?}");
                before += size;
            }
        }
        assert_eq!(Part { index: 0, parts: 1 }.of(77, 4), 77);
    }
}
