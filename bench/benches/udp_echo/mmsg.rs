//! recvmmsg and sendmmsg: the best that plain system calls do, and the client of all contenders.
//!
//! The only `unsafe` code of the benches: the standard library has no batches of datagrams.

use std::io;
use std::mem;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::ptr;
use std::sync::mpsc::Sender;

use crate::{Meter, bind};

/// Datagrams per call.
pub(crate) const BATCH: usize = 64;

const BUFFER_BYTES: usize = 2_048;
const NAME_BYTES: libc::socklen_t = 16;
const _: () = assert!(mem::size_of::<libc::sockaddr_in>() == 16);

/// Whom a socket talks to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Peer {
    /// One peer: datagrams carry no address.
    Connected,
    /// Whoever sent a datagram gets the one in the same place of the batch.
    Sender,
}

/// Buffers and headers for a batch of datagrams.
pub(crate) struct Batch {
    peer: Peer,
    buffers: Vec<[u8; BUFFER_BYTES]>,
    names: Vec<libc::sockaddr_in>,
    slices: Vec<libc::iovec>,
    headers: Vec<libc::mmsghdr>,
    lengths: Vec<usize>,
}

impl Batch {
    pub(crate) fn new(peer: Peer) -> Self {
        // SAFETY: all bytes zero is a valid sockaddr_in, iovec and mmsghdr: numbers and null pointers.
        let (name, slice, header) = unsafe { (mem::zeroed(), mem::zeroed(), mem::zeroed()) };
        Self {
            peer,
            buffers: vec![[7; BUFFER_BYTES]; BATCH],
            names: vec![name; BATCH],
            slices: vec![slice; BATCH],
            headers: vec![header; BATCH],
            lengths: Vec::with_capacity(BATCH),
        }
    }

    /// Waits for a datagram and takes all there are, up to a batch.
    pub(crate) fn receive(&mut self, socket: &UdpSocket) -> io::Result<usize> {
        self.receive_with(socket, libc::MSG_WAITFORONE)
    }

    /// Takes the datagrams that are there, up to a batch.
    pub(crate) fn receive_available(&mut self, socket: &UdpSocket) -> io::Result<usize> {
        match self.receive_with(socket, libc::MSG_DONTWAIT) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
            result => result,
        }
    }

    /// Lengths of the datagrams received last.
    pub(crate) fn lengths(&self) -> &[usize] {
        &self.lengths
    }

    fn receive_with(&mut self, socket: &UdpSocket, flags: libc::c_int) -> io::Result<usize> {
        for at in 0..BATCH {
            self.point(at, BUFFER_BYTES);
        }
        self.lengths.clear();
        // SAFETY: every header points to a name, a slice and through it to a buffer of this batch, whose
        // vectors never grow; all live through the call, and nothing else uses them meanwhile.
        let count = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                self.headers.as_mut_ptr(),
                u32::try_from(BATCH).expect("small"),
                flags,
                ptr::null_mut(),
            )
        };
        let count = usize::try_from(count).map_err(|_| io::Error::last_os_error())?;
        let lengths = self.headers[..count]
            .iter()
            .map(|header| usize::try_from(header.msg_len).expect("small"));
        self.lengths.extend(lengths);
        Ok(count)
    }

    /// Sends datagrams of these lengths, each from the buffer and to the name in its place.
    pub(crate) fn send(&mut self, socket: &UdpSocket, lengths: &[usize]) -> io::Result<()> {
        for (at, length) in lengths.iter().enumerate() {
            self.point(at, *length);
        }
        let mut sent = 0;
        while sent < lengths.len() {
            let left = &mut self.headers[sent..lengths.len()];
            // SAFETY: as in `receive_with`; the lengths were checked against the buffers by `point`.
            let count = unsafe {
                libc::sendmmsg(
                    socket.as_raw_fd(),
                    left.as_mut_ptr(),
                    u32::try_from(left.len()).expect("small"),
                    0,
                )
            };
            sent += usize::try_from(count).map_err(|_| io::Error::last_os_error())?;
        }
        Ok(())
    }

    /// Sends back what was received last.
    fn echo(&mut self, socket: &UdpSocket) -> io::Result<()> {
        let lengths = mem::take(&mut self.lengths);
        let result = self.send(socket, &lengths);
        self.lengths = lengths;
        result
    }

    /// Lets a header point to the first bytes of its buffer.
    fn point(&mut self, at: usize, length: usize) {
        let buffer = &mut self.buffers[at][..length];
        self.slices[at] = libc::iovec {
            iov_base: buffer.as_mut_ptr().cast(),
            iov_len: buffer.len(),
        };
        let header = &mut self.headers[at].msg_hdr;
        header.msg_iov = &raw mut self.slices[at];
        header.msg_iovlen = 1;
        if self.peer == Peer::Sender {
            header.msg_name = (&raw mut self.names[at]).cast();
            header.msg_namelen = NAME_BYTES;
        }
    }
}

/// Echoes for ever.
pub(crate) fn serve(mut meter: Meter, address: Sender<SocketAddr>) {
    let (socket, local) = bind();
    address.send(local).expect("main waits");
    let mut batch = Batch::new(Peer::Sender);
    loop {
        batch.receive(&socket).expect("loopback");
        // A reading is asked for when nothing else is under way.
        let mut is_echoed = true;
        for length in batch.lengths() {
            is_echoed &= meter.took(*length);
        }
        if is_echoed {
            batch.echo(&socket).expect("loopback");
        }
    }
}
