//! The network devices: interrupts, steering among cores, offloads.

use crate::doctor::finding::{Finding, Want};
use crate::doctor::host::Host;

pub(super) fn interrupts(host: &Host, device: &str) -> Finding {
    let want = Want::new(
        "irq",
        "the device's interrupts spread over the cores",
        "all packets of one interrupt are handled by its core, before any shard sees them",
    );
    let prefix = format!("irq/{device}/");
    let cores: Vec<&str> = host.matching(&prefix, "").map(|(_, cores)| cores).collect();
    let queues = queue_count(host, device, "rx-");
    let found = format!(
        "{device}: {} interrupts on cores {}",
        cores.len(),
        list(&cores)
    );
    if cores.is_empty() {
        return want.note(format!("{device}: interrupts unknown"), "");
    }
    let mut different = cores.clone();
    different.sort_unstable();
    different.dedup();
    // One queue has one receive interrupt, wherever it is: then it is RPS that spreads.
    if host.cores > 1 && queues > 1 && different.len() == 1 && !different[0].contains(['-', ',']) {
        return want.warning(found, "tuning/apply --write nic");
    }
    want.ok(found)
}

pub(super) fn receive_steering(host: &Host, device: &str) -> Finding {
    let want = Want::new(
        "rps",
        "a receive queue for each core, or RPS over all cores",
        "with fewer queues than cores, the cores without one do no network work until RPS gives them some",
    );
    let queues = queue_count(host, device, "rx-");
    let prefix = format!("sys/class/net/{device}/queues/rx-");
    let spread = host
        .matching(&prefix, "/rps_cpus")
        .all(|(_, mask)| has_bits(mask));
    let rps = if spread { "on" } else { "off" };
    let found = format!(
        "{device}: {queues} receive queues, {} cores, RPS {rps}",
        host.cores
    );
    if queues >= host.cores || spread && queues > 0 {
        return want.ok(found);
    }
    want.warning(found, "tuning/apply --write nic")
}

pub(super) fn send_steering(host: &Host, device: &str) -> Finding {
    let want = Want::new(
        "xps",
        "each core its own send queue",
        "cores that share a send queue wait for its lock",
    );
    let queues = queue_count(host, device, "tx-");
    let prefix = format!("sys/class/net/{device}/queues/tx-");
    let masks: Vec<&str> = host
        .matching(&prefix, "/xps_cpus")
        .map(|(_, mask)| mask)
        .collect();
    // The kernel shows no mask where there is one queue.
    if queues <= 1 {
        return want.note(format!("{device}: one send queue, nothing to choose"), "");
    }
    let found = format!("{device}: {queues} send queues");
    match masks.iter().all(|mask| has_bits(mask)) {
        true => want.ok(format!("{found}, XPS on")),
        false => want.warning(format!("{found}, XPS off"), "tuning/apply --write nic"),
    }
}

pub(super) fn offloads(host: &Host, device: &str) -> Finding {
    let want = Want::new(
        "offloads",
        "receive checksums, GRO and, where there is one, UDP segmentation on",
        "a train of one session's packets then costs one pass through the kernel; single packets to many \
         phones gain nothing",
    );
    let Some(features) = host.offloads.get(device) else {
        return want.note(
            format!("{device}: ethtool is not installed"),
            "install ethtool",
        );
    };
    let state = |name: &str| {
        let line = features.lines().find_map(|line| {
            let (feature, state) = line.trim().split_once(':')?;
            (feature == name).then(|| state.trim())
        });
        line.unwrap_or("absent")
    };
    let wanted = [
        ("rx-checksumming", "rx"),
        ("generic-receive-offload", "gro"),
        ("tx-udp-segmentation", "tx-udp-segmentation"),
    ];
    let found: Vec<String> = wanted
        .iter()
        .map(|(name, _)| format!("{name} {}", state(name)))
        .collect();
    let found = format!("{device}: {}", found.join(", "));
    // 'off [fixed]': this device has none.
    let fixes: Vec<String> = wanted
        .iter()
        .filter(|(name, _)| state(name) == "off")
        .map(|(_, short)| format!("ethtool -K {device} {short} on"))
        .collect();
    match fixes.is_empty() {
        true => want.ok(found),
        false => want.warning(found, fixes.join("; ")),
    }
}

fn queue_count(host: &Host, device: &str, kind: &str) -> u64 {
    let prefix = format!("sys/class/net/{device}/queues/{kind}");
    let file = if kind == "rx-" {
        "/rps_cpus"
    } else {
        "/xps_cpus"
    };
    host.matching(&prefix, file).count() as u64
}

/// Whether a mask of cores, in hexadecimal words with commas, names any.
fn has_bits(mask: &str) -> bool {
    mask.chars().any(|c| c.is_ascii_hexdigit() && c != '0')
}

fn list(cores: &[&str]) -> String {
    let mut cores = cores.to_vec();
    cores.sort_unstable();
    cores.dedup();
    cores.join(" ")
}
