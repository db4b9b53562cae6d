//! Cores, clocks and memory.

use super::Need;
use crate::capacity;
use crate::config::QuicEngine;
use crate::doctor::finding::{Finding, Want};
use crate::doctor::grouped;
use crate::doctor::host::Host;
use crate::memory::DEFAULT_PERCENT;

pub(super) fn cores(host: &Host, need: &Need) -> Finding {
    let want = Want::new(
        "cores",
        format!("{} cores or more", need.shards),
        "a shard is a thread pinned to a core; one that is throttled or shares its core delays all its sessions",
    );
    let quota = host
        .cpu_quotas
        .iter()
        .min_by(|(_, one), (_, other)| one.total_cmp(other));
    let fix = format!("--shards {}, or more cores", host.cores);
    match quota {
        #[allow(clippy::cast_precision_loss, reason = "a few hundred shards")]
        Some((source, quota)) if *quota < need.shards as f64 => want.warning(
            format!("a quota of {quota:.1} cores by {source}"),
            "raise CPUQuota= of the unit or the container's limit",
        ),
        _ if host.cores < need.shards => want.warning(host.cores.to_string(), fix),
        _ => want.ok(host.cores.to_string()),
    }
}

pub(super) fn clock_source(host: &Host) -> Finding {
    let want = Want::new(
        "clock source",
        "one that is read without a system call",
        "every turn of a loop reads the clock",
    );
    let folder = "sys/devices/system/clocksource/clocksource0";
    let current = host.text(&format!("{folder}/current_clocksource"));
    let available = host
        .text(&format!("{folder}/available_clocksource"))
        .unwrap_or_default();
    // Those with a vDSO path; the rest is memory-mapped or port I/O.
    let fast = [
        "tsc",
        "kvm-clock",
        "arch_sys_counter",
        "hyperv_clocksource_tsc_page",
    ];
    match current {
        None => want.note("cannot be read", ""),
        Some(name) if fast.contains(&name) => want.ok(name),
        Some(name) => {
            let better = available.split_whitespace().find(|it| fast.contains(it));
            let fix = match better {
                Some(better) => format!("echo {better} > /{folder}/current_clocksource"),
                None => "boot with tsc=reliable if the hardware's counter is trustworthy".into(),
            };
            want.warning(name, fix)
        }
    }
}

pub(super) fn clock_sync(host: &Host) -> Finding {
    let want = Want::new(
        "time sync",
        "the clock kept in step",
        "message ids, token expiry and the removal of old entries go by the time of day",
    );
    match host.clock_synchronized {
        Some(true) => want.ok("synchronised"),
        Some(false) => want.warning(
            "not synchronised",
            "apt-get install chrony, or systemctl enable --now systemd-timesyncd",
        ),
        None => want.note("cannot be told", ""),
    }
}

pub(super) fn governor(host: &Host) -> Finding {
    let want = Want::new(
        "governor",
        "performance",
        "a core that clocks down between packets answers the next one late",
    );
    let mut found: Vec<&str> = host
        .matching("sys/devices/system/cpu/cpu", "/cpufreq/scaling_governor")
        .map(|(_, governor)| governor)
        .collect();
    found.sort_unstable();
    found.dedup();
    match found.as_slice() {
        [] => want.note("none: the hypervisor or firmware decides", ""),
        ["performance"] => want.ok("performance"),
        others => want.warning(
            others.join(", "),
            "echo performance | tee /sys/devices/system/cpu/cpu*/cpufreq/scaling_governor",
        ),
    }
}

pub(super) fn huge_pages(host: &Host) -> Finding {
    let want = Want::new(
        "huge pages",
        "madvise",
        "with 'always' a page of 2 MiB counts in full when a few bytes of it are used, which blurs memory \
         per session; with 'never' nothing can ask for them",
    );
    let path = "sys/kernel/mm/transparent_hugepage/enabled";
    let chosen = host
        .text(path)
        .and_then(|text| text.split(['[', ']']).nth(1));
    match chosen {
        None => want.note("cannot be read", ""),
        Some("madvise") => want.ok("madvise"),
        Some(other) => want.note(other, format!("echo madvise > /{path}")),
    }
}

pub(super) fn memory(host: &Host, need: &Need) -> Finding {
    let (engine, each) = match need.engine {
        QuicEngine::Quinn => ("quinn", capacity::SESSION_BYTES_QUINN),
        QuicEngine::Lean => ("lean", capacity::SESSION_BYTES_LEAN),
    };
    let base = need.shards * capacity::SHARD_BYTES + capacity::STORE_BYTES;
    let bytes = base + need.sessions * each.bytes();
    let want = Want::new(
        "memory",
        format!(
            "{} MiB: {} sessions of {} bytes ({engine}) and {} MiB for shards and store",
            grouped(bytes >> 20),
            grouped(need.sessions),
            grouped(each.bytes()),
            grouped(base >> 20)
        ),
        "above the ceiling (80 % of what the host gives, memory_max_mib) sessions are refused",
    );
    let Some(limit) = &host.memory else {
        return want.note("cannot be read", "");
    };
    let ceiling = limit.bytes / 100 * DEFAULT_PERCENT;
    let found = format!(
        "{} MiB by {}, ceiling {} MiB",
        grouped(limit.bytes >> 20),
        limit.source,
        grouped(ceiling >> 20)
    );
    let fits = ceiling.saturating_sub(base) / each.bytes();
    let mut fix = format!(
        "{} MiB of memory, or at most {} sessions on this host",
        grouped((bytes >> 20) * 100 / DEFAULT_PERCENT),
        grouped(fits)
    );
    if need.engine == QuicEngine::Quinn {
        fix.push_str(", or --quic-engine lean");
    }
    if bytes > ceiling {
        want.failure(found, fix)
    } else if bytes > ceiling / 10 * 9 {
        want.warning(found, fix)
    } else {
        want.ok(found)
    }
}

pub(super) fn swap(host: &Host) -> Finding {
    let want = Want::new(
        "swap",
        "none",
        "a silent session is the first thing to be swapped out, and its heartbeat then waits for the disk",
    );
    // The first line is the heading (proc_swaps(5)).
    let areas = host
        .text("proc/swaps")
        .map(|text| text.lines().skip(1).count());
    match areas {
        None => want.note("cannot be read", ""),
        Some(0) => want.ok("none"),
        Some(areas) => want.warning(
            format!("{areas} areas"),
            "swapoff -a, or MemorySwapMax=0 in the unit (tuning/systemd)",
        ),
    }
}
