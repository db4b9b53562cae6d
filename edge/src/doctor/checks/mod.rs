//! The checks, each a pure function of a snapshot and what the server is to do.

mod buffers;
mod certificate;
mod device;
mod kernel;
mod machine;

use super::finding::Finding;
use super::host::Host;
use crate::config::QuicEngine;

/// What the host is to carry.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Need {
    pub(crate) sessions: u64,
    pub(crate) shards: u64,
    pub(crate) engine: QuicEngine,
}

/// All checks, in the order of the way of a packet: kernel, buffers, device, machine.
pub(crate) fn all(host: &Host, need: &Need) -> Vec<Finding> {
    let mut findings = vec![
        kernel::version(host),
        kernel::io_uring(host),
        kernel::descriptors(host, need),
        kernel::locked_memory(host, need),
        buffers::receive(host),
        buffers::send(host),
        buffers::udp_memory(host, need),
        buffers::backlog(host),
        buffers::dropped(host),
        buffers::conntrack(host, need),
        buffers::flow_steering(host),
    ];
    for name in &host.devices {
        findings.push(device::interrupts(host, name));
        findings.push(device::receive_steering(host, name));
        findings.push(device::send_steering(host, name));
        findings.push(device::offloads(host, name));
    }
    findings.extend([
        machine::cores(host, need),
        machine::clock_source(host),
        machine::clock_sync(host),
        machine::governor(host),
        machine::huge_pages(host),
        machine::memory(host, need),
        machine::swap(host),
        certificate::chain(host),
        certificate::dates(host),
    ]);
    findings
}
