//! The threads of a run: how many, on which engine, with how many sockets.

use anyhow::{Result, ensure};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::cli::{Load, QuicEngine};
use crate::plan::Post;
use crate::topology::Topology;

/// Sockets unless told otherwise (T5).
const SOCKETS_DEFAULT: u16 = 64;

/// Sockets of the clients on quinn, and of a control group.
const GROUP_SOCKETS: u16 = 8;

/// Descriptors beside the sockets: rings, standard streams, files that are read for a moment.
const DESCRIPTORS_SPARE: u64 = 100;

/// The threads: those of the chosen engine, then one of quinn clients and one of a control group if any
/// are asked for.
pub(super) fn posts(topology: &Topology, load: &Load, control: u32) -> Result<Vec<Post>> {
    ensure!(
        load.quinn_clients.saturating_add(control) <= topology.sessions(),
        "--quinn-clients and --control must not be above --sessions"
    );
    let threads = load.threads.unwrap_or_else(threads_default).max(1);
    let sockets = load.sockets.unwrap_or(SOCKETS_DEFAULT).max(threads);
    // Each in a thread of its own: the clients on quinn, and the control group.
    let groups = [
        (load.quinn_clients, QuicEngine::Quinn, false),
        (control, load.quic_engine, true),
    ];
    let groups = groups.into_iter().filter(|(sessions, ..)| *sessions > 0);
    let sizes: Vec<u32> = groups.clone().map(|(sessions, ..)| sessions).collect();
    let rosters = topology.rosters(threads.into(), &sizes);
    let own = (0..threads).map(|thread| {
        let sockets = share(sockets, threads, thread);
        (load.quic_engine, sockets, false)
    });
    let groups = groups.map(|(_, engine, control)| (engine, GROUP_SOCKETS, control));
    let posts: Vec<Post> = own
        .chain(groups)
        .zip(rosters)
        .map(|((engine, sockets, control), roster)| Post {
            engine,
            sockets,
            control,
            roster,
        })
        // A thread without sessions has nothing to do.
        .filter(|post| post.roster.sessions() > 0)
        .collect();
    let wanted: u64 = posts.iter().map(|post| u64::from(post.sockets)).sum();
    let limit = raise_descriptor_limit();
    ensure!(
        wanted + DESCRIPTORS_SPARE <= limit,
        "{wanted} sockets need a limit of {} descriptors and it is {limit}: --sockets fewer, sessions share them",
        wanted + DESCRIPTORS_SPARE
    );
    Ok(posts)
}

/// Deals `sockets` out as evenly as they go.
fn share(sockets: u16, threads: u16, thread: u16) -> u16 {
    sockets / threads + u16::from(thread < sockets % threads)
}

/// On a machine of its own the generator could have all cores; beside the server it has half.
fn threads_default() -> u16 {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    u16::try_from(cores / 2).unwrap_or(u16::MAX)
}

/// Takes as many descriptors as the hard limit gives without any privilege.
fn raise_descriptor_limit() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    let current = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(_) => limit.current,
    };
    current.unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command};

    fn plan(arguments: &[&str]) -> Result<Vec<Post>> {
        let cli = Cli::parse_from(["loadgen", "hold"].iter().chain(arguments));
        let Command::Hold(remote) = cli.command else {
            unreachable!("it was hold");
        };
        let topology = Topology {
            users_from: 1,
            users: 1_000,
            devices: 1,
            circle: 4,
            seed: 1,
        };
        posts(&topology, &remote.load, 0)
    }

    #[test]
    fn sockets_are_dealt_out_and_quinn_clients_have_their_own() {
        let options = ["--threads", "3", "--sockets", "8", "--quinn-clients", "100"];
        let lean = [&options[..], &["--quic-engine", "lean"]].concat();
        let posts = plan(&lean).expect("good");
        let sockets: Vec<_> = posts.iter().map(|post| post.sockets).collect();
        assert_eq!(sockets, [3, 3, 2, GROUP_SOCKETS]);
        assert_eq!(posts[2].engine, QuicEngine::Lean);
        assert_eq!(posts[3].engine, QuicEngine::Quinn);
        assert_eq!(posts[3].roster.sessions(), 100);
        let all: u32 = posts.iter().map(|post| post.roster.sessions()).sum();
        assert_eq!(all, 1_000);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        assert!(plan(&["--quinn-clients", "1001"]).is_err());
        assert!(plan(&["--sockets", "65000"]).is_err(), "descriptors");
    }

    #[test]
    fn a_thread_without_sessions_is_left_out() {
        let posts = plan(&["--quinn-clients", "1000"]).expect("good");
        assert_eq!(posts.len(), 1);
    }
}
