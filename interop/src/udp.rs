//! Sockets on the loopback address.

use std::{
    io::{self, ErrorKind},
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    time::Duration,
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Room for a burst of a full window.
const BUFFER_BYTES: usize = 4 << 20;

/// A socket of its own on a port that the kernel chooses.
pub fn bind() -> io::Result<UdpSocket> {
    bind_at(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
}

/// A socket at this address.
pub fn bind_at(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind(address)?;
    socket.set_nonblocking(true)?;
    // The kernel may give less.
    rustix::net::sockopt::set_socket_recv_buffer_size(&socket, BUFFER_BYTES)?;
    Ok(socket)
}

/// Waits until one of the sockets has something, at most for `timeout`.
pub fn wait<'a>(sockets: impl Iterator<Item = &'a UdpSocket>, timeout: Duration) -> io::Result<()> {
    let mut fds: Vec<_> = sockets.map(|s| PollFd::new(s, PollFlags::IN)).collect();
    let timeout = Timespec {
        tv_sec: timeout.as_secs().try_into().unwrap_or(i64::MAX),
        tv_nsec: timeout.subsec_nanos().into(),
    };
    match poll(&mut fds, Some(&timeout)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// The next datagram and its sender, if there is one.
pub fn receive(socket: &UdpSocket, buf: &mut [u8]) -> io::Result<Option<(usize, SocketAddr)>> {
    match socket.recv_from(buf) {
        Ok(received) => Ok(Some(received)),
        // An ICMP error of an earlier packet: its receiver is gone.
        Err(e)
            if matches!(
                e.kind(),
                ErrorKind::WouldBlock | ErrorKind::ConnectionRefused
            ) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Sends, or drops as a network may.
pub fn send(socket: &UdpSocket, data: &[u8], to: SocketAddr) -> io::Result<()> {
    match socket.send_to(data, to) {
        Ok(_) => Ok(()),
        Err(e)
            if matches!(
                e.kind(),
                ErrorKind::WouldBlock | ErrorKind::ConnectionRefused
            ) =>
        {
            Ok(())
        }
        Err(error) => Err(error),
    }
}
