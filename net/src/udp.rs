//! UDP sockets: one per shard and address in a reuseport group, or a client's own.

use std::{
    collections::BTreeSet,
    io, mem,
    net::SocketAddr,
    os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
};

use crate::{address, error::Error};

/// How often a port for `:0` is chosen anew when somebody takes it between the probe and the bind.
const PORT_ATTEMPTS: usize = 16;

/// Group indices are 16 bits of a 16-bit prefix, and threads are far fewer.
const SHARDS_MAX: u16 = 1_024;

/// A bound, non-blocking UDP socket.
#[derive(Debug)]
pub(crate) struct Socket {
    fd: OwnedFd,
    local: SocketAddr,
    receive_buffer: usize,
}

impl Socket {
    pub(crate) fn local(&self) -> SocketAddr {
        self.local
    }

    /// A socket like this one at another port of the same address: what a NAT makes of it that forgot
    /// its mapping.
    pub(crate) fn rebound(&self) -> Result<Self, Error> {
        let mut local = self.local;
        local.set_port(0);
        bind_client(local, self.receive_buffer)
    }

    /// Another handle of it, as the standard library has it.
    #[cfg(test)]
    pub(crate) fn to_std(&self) -> std::net::UdpSocket {
        self.fd.try_clone().unwrap().into()
    }
}

impl AsRawFd for Socket {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

/// A server's sockets: `sockets[shard][address]`.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) addresses: Vec<SocketAddr>,
    pub(crate) sockets: Vec<Vec<Socket>>,
}

/// Binds a socket for every shard and address, in shard order, because the order of binding is the
/// index that the steering program returns. Nothing reads yet, so traffic opens when the loops run.
/// The sockets must then stay open together: closing one renumbers the rest.
pub(crate) fn bind_group(
    wanted: &[SocketAddr],
    shards: u16,
    receive_buffer: usize,
) -> Result<Group, Error> {
    if wanted.is_empty() || shards == 0 || shards > SHARDS_MAX {
        let text = format!("a server needs an address and 1 to {SHARDS_MAX} shards");
        return Err(Error::Config(text));
    }
    let mut group = Group {
        addresses: Vec::new(),
        sockets: (0..shards).map(|_| Vec::new()).collect(),
    };
    for wanted in wanted {
        let addresses = expand(*wanted)?;
        bind_with_port(&mut group, &addresses, receive_buffer)?;
    }
    Ok(group)
}

/// Binds `addresses`, which share a port. If that is 0, the kernel chooses it, and chooses again if it
/// turns out to be taken on another of them.
fn bind_with_port(
    group: &mut Group,
    addresses: &[SocketAddr],
    receive_buffer: usize,
) -> Result<(), Error> {
    let chosen_by_kernel = addresses.iter().any(|address| address.port() == 0);
    let mut attempts = if chosen_by_kernel { PORT_ATTEMPTS } else { 1 };
    loop {
        attempts -= 1;
        let bound = probe(addresses).and_then(|probed| bind_all(group, &probed, receive_buffer));
        match bound {
            Err(Error::PortInUse { .. }) if attempts > 0 => {}
            other => return other,
        }
    }
}

/// Finds out whether anybody else has the port (T17): with SO_REUSEPORT alone, a second process would
/// silently take a share of the traffic. Returns the addresses with their port.
fn probe(addresses: &[SocketAddr]) -> Result<Vec<SocketAddr>, Error> {
    let mut port = None;
    let mut probed = Vec::with_capacity(addresses.len());
    // All stay open until all are probed, so that no address of ours is mistaken for another's.
    let mut open = Vec::with_capacity(addresses.len());
    for address in addresses {
        let mut address = *address;
        if address.port() == 0 {
            address.set_port(port.unwrap_or(0));
        }
        let socket = new_socket(address)?;
        bind(&socket, address)?;
        let local = local_address(&socket, address)?;
        port = Some(local.port());
        probed.push(local);
        open.push(socket);
    }
    Ok(probed)
}

fn bind_all(
    group: &mut Group,
    addresses: &[SocketAddr],
    receive_buffer: usize,
) -> Result<(), Error> {
    let mut bound = Vec::with_capacity(addresses.len());
    for address in addresses {
        let mut members = Vec::with_capacity(group.sockets.len());
        for _ in 0..group.sockets.len() {
            let fd = new_socket(*address)?;
            set_int(
                &fd,
                *address,
                libc::SOL_SOCKET,
                libc::SO_REUSEPORT,
                1,
                "SO_REUSEPORT",
            )?;
            members.push(open(fd, *address, receive_buffer)?);
        }
        bound.push(members);
    }
    for (address, members) in addresses.iter().zip(bound) {
        group.addresses.push(*address);
        for (shard, socket) in group.sockets.iter_mut().zip(members) {
            shard.push(socket);
        }
    }
    Ok(())
}

/// Binds a client's socket.
pub(crate) fn bind_client(local: SocketAddr, receive_buffer: usize) -> Result<Socket, Error> {
    open(new_socket(local)?, local, receive_buffer)
}

fn open(fd: OwnedFd, address: SocketAddr, receive_buffer: usize) -> Result<Socket, Error> {
    set_path_mtu_probe(&fd, address)?;
    set_receive_buffer(&fd, address, receive_buffer)?;
    // The kernel may be older or the option absent: then every datagram comes alone.
    let _ = set_int(&fd, address, libc::SOL_UDP, libc::UDP_GRO, 1, "UDP_GRO");
    bind(&fd, address)?;
    let local = local_address(&fd, address)?;
    Ok(Socket {
        fd,
        local,
        receive_buffer,
    })
}

fn new_socket(address: SocketAddr) -> Result<OwnedFd, Error> {
    let family = if address.is_ipv4() {
        libc::AF_INET
    } else {
        libc::AF_INET6
    };
    // SAFETY: the call takes no pointers; needed because std cannot set options before it binds.
    let fd = unsafe {
        libc::socket(
            family,
            libc::SOCK_DGRAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK,
            0,
        )
    };
    if fd < 0 {
        return Err(last("socket", address));
    }
    // SAFETY: the descriptor was just made and nobody else has it.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    if address.is_ipv6() {
        // IPv4 has sockets of its own, so a port on both families is two groups.
        set_int(
            &fd,
            address,
            libc::IPPROTO_IPV6,
            libc::IPV6_V6ONLY,
            1,
            "IPV6_V6ONLY",
        )?;
    }
    Ok(fd)
}

fn bind(fd: &OwnedFd, address: SocketAddr) -> Result<(), Error> {
    let (storage, length) = address::encode(address);
    // SAFETY: the address lives through the call and `length` is what of it is filled in.
    let result = unsafe { libc::bind(fd.as_raw_fd(), storage.as_ptr(), length) };
    match result {
        0 => Ok(()),
        _ if io::Error::last_os_error().raw_os_error() == Some(libc::EADDRINUSE) => {
            Err(Error::PortInUse { address })
        }
        _ => Err(last("bind", address)),
    }
}

fn local_address(fd: &OwnedFd, wanted: SocketAddr) -> Result<SocketAddr, Error> {
    let mut storage = address::Storage::default();
    let mut length = address::Storage::LENGTH;
    // SAFETY: the storage has `length` bytes for the kernel to write to.
    let result =
        unsafe { libc::getsockname(fd.as_raw_fd(), storage.as_mut_ptr(), &raw mut length) };
    match result {
        0 => storage.decode().ok_or_else(|| last("getsockname", wanted)),
        _ => Err(last("getsockname", wanted)),
    }
}

/// Sets Don't Fragment and ignores what the kernel believes about the path: QUIC finds its own limit, and
/// a forged ICMP message must not shrink it (T12, RFC 9000 section 14).
fn set_path_mtu_probe(fd: &OwnedFd, address: SocketAddr) -> Result<(), Error> {
    let (level, option, value) = match address.is_ipv4() {
        true => (
            libc::IPPROTO_IP,
            libc::IP_MTU_DISCOVER,
            libc::IP_PMTUDISC_PROBE,
        ),
        false => (
            libc::IPPROTO_IPV6,
            libc::IPV6_MTU_DISCOVER,
            libc::IPV6_PMTUDISC_PROBE,
        ),
    };
    set_int(fd, address, level, option, value, "MTU_DISCOVER")
}

/// Asks for a receive buffer beyond the system's limit, which needs CAP_NET_ADMIN, or else up to it.
fn set_receive_buffer(fd: &OwnedFd, address: SocketAddr, bytes: usize) -> Result<(), Error> {
    let bytes = libc::c_int::try_from(bytes).unwrap_or(libc::c_int::MAX);
    let level = libc::SOL_SOCKET;
    match set_int(
        fd,
        address,
        level,
        libc::SO_RCVBUFFORCE,
        bytes,
        "SO_RCVBUFFORCE",
    ) {
        Ok(()) => Ok(()),
        Err(_) => set_int(fd, address, level, libc::SO_RCVBUF, bytes, "SO_RCVBUF"),
    }
}

fn set_int(
    fd: &OwnedFd,
    address: SocketAddr,
    level: libc::c_int,
    option: libc::c_int,
    value: libc::c_int,
    name: &'static str,
) -> Result<(), Error> {
    let length = libc::socklen_t::try_from(mem::size_of_val(&value)).expect("4 bytes");
    // SAFETY: the value lives through the call, with its size given.
    let result = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            level,
            option,
            (&raw const value).cast(),
            length,
        )
    };
    match result {
        0 => Ok(()),
        _ => Err(last(name, address)),
    }
}

fn last(call: &'static str, address: SocketAddr) -> Error {
    Error::Socket {
        call,
        address,
        source: io::Error::last_os_error(),
    }
}

/// The addresses behind a wildcard: all that the machine has now. A reply must leave from the address
/// that the client sent to, and a SEND carries no source address (T12).
fn expand(address: SocketAddr) -> Result<Vec<SocketAddr>, Error> {
    if !address.ip().is_unspecified() {
        return Ok(vec![address]);
    }
    let mut found: BTreeSet<SocketAddr> = address::of_interfaces()?
        .into_iter()
        .filter(|own| own.is_ipv4() == address.is_ipv4())
        .collect();
    if address.is_ipv6() {
        // Duplicate address detection may not have ended for these; a bind to them would fail.
        found.retain(|own| can_bind(*own));
    }
    if found.is_empty() {
        return Err(Error::Config(format!(
            "no interface has an address for {address}"
        )));
    }
    Ok(found
        .into_iter()
        .map(|mut own| {
            own.set_port(address.port());
            own
        })
        .collect())
}

fn can_bind(address: SocketAddr) -> bool {
    new_socket(address)
        .and_then(|fd| bind(&fd, address))
        .is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loopback(last: u8) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, last], 0))
    }

    #[test]
    fn a_second_server_finds_the_port_in_use() {
        let first = bind_group(&[loopback(1)], 2, 1 << 16).unwrap();
        let again = bind_group(&first.addresses, 2, 1 << 16)
            .map(drop)
            .unwrap_err();
        assert!(matches!(again, Error::PortInUse { address } if address == first.addresses[0]));
    }

    #[test]
    fn all_shards_share_a_chosen_port() {
        let group = bind_group(&[loopback(1), loopback(2)], 3, 1 << 16).unwrap();
        assert!(group.addresses.iter().all(|address| address.port() != 0));
        for shard in &group.sockets {
            let locals: Vec<_> = shard.iter().map(Socket::local).collect();
            assert_eq!(locals, group.addresses);
        }
    }

    #[test]
    fn a_wildcard_becomes_the_addresses_of_the_machine() {
        let group = bind_group(&["0.0.0.0:0".parse().unwrap()], 2, 1 << 16).unwrap();
        let port = group.addresses[0].port();
        assert!(
            group
                .addresses
                .iter()
                .all(|a| !a.ip().is_unspecified() && a.port() == port)
        );
        assert!(group.addresses.iter().any(|a| a.ip().is_loopback()));
    }

    #[test]
    fn no_shard_and_no_address_are_refused() {
        for (addresses, shards) in [
            (vec![], 1),
            (vec![loopback(1)], 0),
            (vec![loopback(1)], 5000),
        ] {
            assert!(matches!(
                bind_group(&addresses, shards, 1),
                Err(Error::Config(_))
            ));
        }
    }
}
