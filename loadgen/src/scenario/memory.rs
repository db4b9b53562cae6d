//! What a run needs in memory, told before it begins: a host that runs out of it kills a process, and with
//! it an hour of ramp.

use std::path::Path;

use anyhow::{Result, bail};
use roadstead_net::host;

use crate::cli::{Load, QuicEngine};

const MIB: u64 = 1 << 20;

/// Every run needs so much: histograms of all threads, rings, sockets. An edge needs no more before the
/// first session.
const BASE_BYTES: u64 = 70 * MIB;

/// A session in this end: 844 B of a run of 2,000,000 (SPECIFICATION.md), its base included.
const LEAN_BYTES: u64 = 850;

/// A session of an edge on the same engine: 1,000 B of the same run.
const LEAN_BYTES_EDGE: u64 = 1_000;

/// A session on quinn-proto: 17.8 KB at the server (SPECIFICATION.md), and as much here.
const QUINN_BYTES: u64 = 18_000;

/// An estimate in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Need {
    sessions: u32,
    generator: u64,
    /// Of an edge that this end starts.
    edge: u64,
}

impl Need {
    pub(super) fn of(sessions: u32, load: &Load, with_edge: bool) -> Self {
        let quinn = match load.quic_engine {
            QuicEngine::Quinn => sessions,
            QuicEngine::Lean => load.quinn_clients.min(sessions),
        };
        let (quinn, all) = (u64::from(quinn), u64::from(sessions));
        // The edge has one engine for all, whatever its clients have.
        let edge = match load.quic_engine {
            QuicEngine::Quinn => all * QUINN_BYTES,
            QuicEngine::Lean => all * LEAN_BYTES_EDGE,
        };
        Self {
            sessions,
            generator: BASE_BYTES + quinn * QUINN_BYTES + (all - quinn) * LEAN_BYTES,
            edge: if with_edge { BASE_BYTES + edge } else { 0 },
        }
    }

    /// An error if this host has not so much memory at all; a remark if it has not so much to spare.
    pub(super) fn check(self) -> Result<Option<String>> {
        let root = Path::new("/");
        self.against(host::memory(root), host::memory_free(root))
    }

    fn against(
        self,
        all: Option<host::Limit>,
        free: Option<host::Limit>,
    ) -> Result<Option<String>> {
        let lacks = |limit: &host::Limit| self.bytes() > limit.bytes;
        if let Some(all) = all.filter(lacks) {
            bail!(
                "{self}, and this host has {} MiB ({}): fewer --sessions, --quic-engine lean, or \
                 --agents on other machines",
                all.bytes / MIB,
                all.source
            );
        }
        Ok(free.filter(lacks).map(|free| {
            format!(
                "loadgen: {self}, and only {} MiB are free ({}): the kernel may end the run",
                free.bytes / MIB,
                free.source
            )
        }))
    }

    fn bytes(self) -> u64 {
        self.generator + self.edge
    }
}

impl std::fmt::Display for Need {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mib = |bytes: u64| bytes.div_ceil(MIB);
        let (sessions, all) = (self.sessions, mib(self.bytes()));
        write!(f, "{sessions} sessions need about {all} MiB here")?;
        match self.edge {
            0 => Ok(()),
            edge => write!(f, " (loadgen {}, edge {})", mib(self.generator), mib(edge)),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::Cli;

    fn need(options: &[&str], with_edge: bool) -> Need {
        let cli = Cli::parse_from(["loadgen", "hold"].iter().chain(options));
        Need::of(2_000_000, cli.command.load(), with_edge)
    }

    fn mib(of: u64) -> Option<host::Limit> {
        Some(host::Limit {
            bytes: of * MIB,
            source: "/a/file".into(),
        })
    }

    #[test]
    fn engines_differ() {
        let lean = need(&[], false).bytes() / MIB;
        assert!((1_600..1_800).contains(&lean), "{lean}");
        let both = need(&["--quic-engine", "lean"], true).bytes() / MIB;
        assert!((3_500..3_800).contains(&both), "{both}");
        let options = ["--quic-engine", "lean", "--quinn-clients", "100000"];
        let mixed = need(&options, false).bytes() / MIB;
        assert!((3_200..3_500).contains(&mixed), "{mixed}");
        let quinn = need(&["--quic-engine", "quinn"], false).bytes() / MIB;
        assert!(quinn > 30_000, "{quinn}");
    }

    #[test]
    fn what_a_host_has_not_is_refused_and_what_it_has_not_free_is_told() {
        let lean = need(&["--quic-engine", "lean"], true);
        assert_eq!(lean.against(mib(8_000), mib(4_000)).expect("fits"), None);
        let doubt = lean.against(mib(8_000), mib(3_000)).expect("may fit");
        let doubt = doubt.expect("told");
        assert!(doubt.contains("3000 MiB are free"), "{doubt}");
        let error = lean
            .against(mib(2_000), mib(1_000))
            .expect_err("never fits");
        let text = error.to_string();
        for wanted in [
            "2000000 sessions",
            "this host has 2000 MiB (/a/file)",
            "edge 19",
        ] {
            assert!(text.contains(wanted), "{wanted} in {text}");
        }
        // A host that tells nothing is asked for nothing.
        assert_eq!(lean.against(None, None).expect("unknown"), None);
    }
}
