//! The kernel, its io_uring and the limits of the process.

use super::Need;
use crate::capacity;
use crate::descriptors::Takers;
use crate::doctor::finding::{Finding, Want};
use crate::doctor::grouped;
use crate::doctor::host::Host;

/// Addresses that a server listens on, at most: what a wildcard is expanded to on a host with some networks.
const ADDRESSES: usize = 8;

/// The first long-term kernel with everything that the loops use.
const KERNEL_MIN: (u32, u32) = (6, 1);

pub(super) fn version(host: &Host) -> Finding {
    let want = Want::new(
        "kernel",
        format!("{}.{} or newer", KERNEL_MIN.0, KERNEL_MIN.1),
        "multishot receive and deferred task work of io_uring",
    );
    let Some(release) = host.text("proc/sys/kernel/osrelease") else {
        return want.note("cannot be read", "");
    };
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    let mut next = || numbers.next().and_then(|part| part.parse::<u32>().ok());
    match (next(), next()) {
        (Some(major), Some(minor)) if (major, minor) >= KERNEL_MIN => want.ok(release),
        (Some(_), Some(_)) => want.failure(release, "install a kernel of 6.1 or newer"),
        _ => want.note(release, "compare it yourself"),
    }
}

pub(super) fn io_uring(host: &Host) -> Finding {
    let want = Want::new(
        "io_uring",
        "usable, with every operation of the loops",
        "every shard waits, receives and sends through one ring; there is no other way in",
    );
    let fix = "sysctl -w kernel.io_uring_disabled=0; in a container, allow io_uring_setup, \
               io_uring_enter and io_uring_register in its seccomp profile";
    match &host.ring {
        Ok(lacking) if lacking.is_empty() => want.ok("usable"),
        Ok(lacking) => want.failure(
            format!("lacks {}", lacking.join(", ")),
            "install a kernel of 6.1 or newer",
        ),
        Err(error) => want.failure(error.as_str(), fix),
    }
}

pub(super) fn descriptors(host: &Host, need: &Need) -> Finding {
    let least = Takers::embedded(need.shards, ADDRESSES).wanted();
    let want = Want::new(
        "nofile",
        format!("{} descriptors or more", grouped(least)),
        "sessions share sockets, so they need none; the store's files, rings and admin connections do. The \
         server takes what the hard limit gives",
    );
    let fix = "LimitNOFILE=65536 in the unit (tuning/systemd), or `ulimit -n 65536`";
    let hard = limits(host, "Max open files").map(|(_, hard)| hard);
    want.at_least(hard, least, fix)
}

pub(super) fn locked_memory(host: &Host, need: &Need) -> Finding {
    let least = need.shards * capacity::LOCKED_BYTES_PER_SHARD;
    let want = Want::new(
        "memlock",
        format!("{} bytes or more", grouped(least)),
        "without CAP_IPC_LOCK a ring's memory counts against it, and that of a process that was just \
         replaced a while longer",
    );
    let fix = "LimitMEMLOCK=infinity in the unit (tuning/systemd), or `ulimit -l unlimited`";
    let soft = limits(host, "Max locked memory").map(|(soft, _)| soft);
    want.at_least(soft, least, fix)
}

/// The soft and the hard limit of a line of /proc/self/limits.
fn limits(host: &Host, name: &str) -> Option<(u64, u64)> {
    let limits = host.text("proc/self/limits")?;
    let line = limits.lines().find_map(|line| line.strip_prefix(name))?;
    let mut numbers = line.split_whitespace().map(|number| match number {
        "unlimited" => Some(u64::MAX),
        number => number.parse().ok(),
    });
    Some((numbers.next()??, numbers.next()??))
}
