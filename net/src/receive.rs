//! The receive path: one multishot RECVMSG per socket into a ring of provided buffers, so that an idle
//! session owns no buffer.
//!
//! A buffer takes a whole GRO train: 64 KiB and the headers that the kernel puts before it. A smaller one
//! would lose the train's tail. Untouched pages cost nothing, and what a train has touched is given back to the
//! system: the buffers take turns, so a train now and then would make all of them resident in full.

use std::{
    io, mem,
    net::SocketAddr,
    os::fd::RawFd,
    ptr,
    sync::atomic::{AtomicU16, Ordering},
};

use io_uring::{
    opcode,
    types::{BufRingEntry, Fixed, RecvMsgOut},
};

use crate::{address, error::Error, ring::Ring};

/// Buffers per thread, a power of two. When they run out a receive ends and is armed again; with half as
/// many a load generator of 16 sockets did so in every third turn.
const BUFFERS: u16 = 512;

/// Bytes of a page, the least that can be given back to the system.
const PAGE_BYTES: usize = 4 * 1024;

/// A train, and the kernel's header with name and control message. Whole pages, so that a packet touches one.
const BUFFER_BYTES: usize = 64 * 1024 + PAGE_BYTES;

/// Bytes of a buffer that stay resident when it is given back: a packet, and small trains.
const KEPT_BYTES: usize = PAGE_BYTES;

/// Room for the GRO segment size.
const CONTROL_BYTES: usize = 64;

/// The only buffer group of a ring.
const GROUP: u16 = 0;

/// Memory from the kernel, zeroed, page-aligned, touched when used.
struct Pages {
    start: *mut u8,
    length: usize,
}

impl Pages {
    fn new(length: usize) -> Result<Self, Error> {
        // SAFETY: an anonymous private mapping at an address of the kernel's choice touches nothing else.
        let start = unsafe {
            libc::mmap(
                ptr::null_mut(),
                length,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        match start == libc::MAP_FAILED {
            true => Err(Error::System {
                call: "mmap",
                source: io::Error::last_os_error(),
            }),
            false => Ok(Self {
                start: start.cast(),
                length,
            }),
        }
    }

    /// Makes pages as if they had never been touched. Nobody else may use them meanwhile.
    fn forget(&mut self, from: usize, to: usize) {
        assert!(from <= to && to <= self.length, "pages of this mapping");
        // SAFETY: the range lies inside this one's own mapping. Should the call fail, where pages are larger,
        // the memory stays resident, and nothing else is different.
        unsafe { libc::madvise(self.start.add(from).cast(), to - from, libc::MADV_DONTNEED) };
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: the mapping is this one's own, and the ring that used it was quiesced before.
        unsafe { libc::munmap(self.start.cast(), self.length) };
    }
}

/// Received bytes with what the kernel said about them.
pub(crate) struct Received<'a> {
    pub(crate) peer: SocketAddr,
    /// Size of the segments of a GRO train; 0 if there is only one.
    pub(crate) segment: usize,
    pub(crate) data: &'a mut [u8],
}

/// The provided buffers of one ring.
pub(crate) struct Receiver {
    entries: Pages,
    buffers: Pages,
    tail: u16,
    /// Only its lengths count; the kernel reads it when the receive is armed.
    header: Box<libc::msghdr>,
}

impl Receiver {
    /// Registers the sockets and the buffers with the ring. The receiver must outlive the ring's use of
    /// them: call `Ring::quiesce` before it is dropped.
    pub(crate) fn new(ring: &Ring, sockets: &[RawFd]) -> Result<Self, Error> {
        let system = |call| move |source| Error::System { call, source };
        let entries = Pages::new(usize::from(BUFFERS) * mem::size_of::<BufRingEntry>())?;
        let buffers = Pages::new(usize::from(BUFFERS) * BUFFER_BYTES)?;
        ring.submitter()
            .register_files(sockets)
            .map_err(system("io_uring_register(files)"))?;
        // SAFETY: the entries are mapped, page-aligned, of the length that the count says, and stay until
        // the ring is quiesced.
        let registered = unsafe {
            ring.submitter()
                .register_buf_ring_with_flags(entries.start as u64, BUFFERS, GROUP, 0)
        };
        registered.map_err(system("io_uring_register(buffer ring)"))?;
        // SAFETY: all bytes zero is a valid msghdr.
        let mut header: Box<libc::msghdr> = Box::new(unsafe { mem::zeroed() });
        header.msg_namelen = address::Storage::LENGTH;
        header.msg_controllen = CONTROL_BYTES;
        let mut receiver = Self {
            entries,
            buffers,
            tail: 0,
            header,
        };
        for buffer in 0..BUFFERS {
            receiver.provide(buffer, 0);
        }
        receiver.publish();
        Ok(receiver)
    }

    /// Arms the receive of a socket, by its place in the list given to `new`.
    pub(crate) fn arm(&self, ring: &mut Ring, socket: u16, user_data: u64) -> Result<(), Error> {
        let entry =
            opcode::RecvMsgMulti::new(Fixed(u32::from(socket)), &raw const *self.header, GROUP)
                .build()
                .user_data(user_data);
        // SAFETY: the header lives in a box of this receiver, and only its lengths are used.
        unsafe { ring.push(&entry) }
    }

    /// What the kernel put into a buffer, or `None` if it was cut short or makes no sense.
    pub(crate) fn read(&mut self, buffer: u16, length: i32) -> Option<Received<'_>> {
        let length = usize::try_from(length).ok()?.min(BUFFER_BYTES);
        // SAFETY: the kernel gave the buffer to us and writes to it no more; it lies inside the pages,
        // and its first `length` bytes were written.
        let bytes = unsafe { std::slice::from_raw_parts_mut(self.buffer(buffer), length) };
        let message = RecvMsgOut::parse(bytes, &self.header).ok()?;
        if message.is_payload_truncated() || message.is_name_data_truncated() {
            return None;
        }
        let payload = message.payload_data().len();
        let peer = address::Storage::decode_bytes(message.name_data())?;
        let segment = gro_segment(message.control_data());
        Some(Received {
            peer,
            segment,
            // The payload comes last, after fields of fixed length.
            data: &mut bytes[length - payload..],
        })
    }

    /// Gives a buffer of which so many bytes were used back to the kernel, once `publish` is called.
    pub(crate) fn provide(&mut self, buffer: u16, used: usize) {
        if used > KEPT_BYTES {
            let begin = usize::from(buffer) * BUFFER_BYTES;
            let end = begin + used.next_multiple_of(PAGE_BYTES).min(BUFFER_BYTES);
            self.buffers.forget(begin + KEPT_BYTES, end);
        }
        let slot = usize::from(self.tail % BUFFERS);
        let address = self.buffer(buffer) as u64;
        // SAFETY: the slot lies inside the mapped entries, and the kernel does not read it before the
        // tail passes it.
        let entry = unsafe { &mut *self.entries.start.cast::<BufRingEntry>().add(slot) };
        entry.set_addr(address);
        entry.set_len(u32::try_from(BUFFER_BYTES).expect("a small constant"));
        entry.set_bid(buffer);
        self.tail = self.tail.wrapping_add(1);
    }

    /// Makes the buffers given back visible to the kernel.
    pub(crate) fn publish(&self) {
        // SAFETY: the tail lies in the first entry, which is mapped and aligned for it; the kernel and
        // this thread share it as an atomic.
        let tail = unsafe {
            AtomicU16::from_ptr(BufRingEntry::tail(self.entries.start.cast()).cast_mut())
        };
        tail.store(self.tail, Ordering::Release);
    }

    fn buffer(&self, buffer: u16) -> *mut u8 {
        assert!(
            buffer < BUFFERS,
            "the kernel names only buffers that it was given"
        );
        // SAFETY: the offset lies inside the mapping.
        unsafe { self.buffers.start.add(usize::from(buffer) * BUFFER_BYTES) }
    }
}

impl std::fmt::Debug for Receiver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Receiver")
            .field("tail", &self.tail)
            .finish_non_exhaustive()
    }
}

/// The segment size from the control messages, 0 if there is none.
fn gro_segment(mut control: &[u8]) -> usize {
    const HEADER: usize = mem::size_of::<libc::cmsghdr>();
    while control.len() >= HEADER {
        // SAFETY: there are enough bytes, and every bit pattern is a valid cmsghdr.
        let header: libc::cmsghdr = unsafe { ptr::read_unaligned(control.as_ptr().cast()) };
        let length = header.cmsg_len;
        if length < HEADER || length > control.len() {
            break;
        }
        if header.cmsg_level == libc::SOL_UDP && header.cmsg_type == libc::UDP_GRO {
            let value = control[HEADER..length]
                .first_chunk()
                .map_or(0, |b| i32::from_ne_bytes(*b));
            return usize::try_from(value).unwrap_or(0);
        }
        let aligned = length.next_multiple_of(mem::size_of::<usize>());
        control = control.get(aligned..).unwrap_or_default();
    }
    0
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use super::*;

    fn message(level: i32, kind: i32, value: &[u8]) -> Vec<u8> {
        let length = mem::size_of::<libc::cmsghdr>() + value.len();
        let mut bytes = length.to_ne_bytes().to_vec();
        bytes.extend(level.to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(value);
        bytes.resize(length.next_multiple_of(8), 0);
        bytes
    }

    #[test]
    fn a_train_leaves_its_own_pages_and_no_others() {
        let ring = Ring::new().expect("a ring");
        // Nothing is armed, so nothing is received.
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("a socket");
        let mut receiver = Receiver::new(&ring, &[socket.as_raw_fd()]).expect("buffers");
        let of = |receiver: &Receiver, buffer: u16| {
            // SAFETY: the bytes lie inside the mapping, and the kernel receives nothing into them.
            unsafe { std::slice::from_raw_parts_mut(receiver.buffer(buffer), BUFFER_BYTES) }
        };
        (0..BUFFERS).for_each(|buffer| of(&receiver, buffer).fill(1));
        for buffer in (0..BUFFERS).step_by(2) {
            receiver.provide(buffer, BUFFER_BYTES);
        }
        for buffer in 0..BUFFERS {
            let gone = of(&receiver, buffer)
                .iter()
                .filter(|byte| **byte == 0)
                .count();
            let is_kept = of(&receiver, buffer)[..KEPT_BYTES]
                .iter()
                .all(|byte| *byte == 1);
            assert!(is_kept, "buffer {buffer}");
            let expected = match buffer % 2 {
                0 => BUFFER_BYTES - KEPT_BYTES,
                _ => 0,
            };
            assert_eq!(gone, expected, "buffer {buffer}");
        }
        of(&receiver, 1).fill(1);
        receiver.provide(1, KEPT_BYTES);
        assert!(of(&receiver, 1).iter().all(|byte| *byte == 1));
    }

    #[test]
    fn the_segment_size_is_found_among_other_messages() {
        let gro = message(libc::SOL_UDP, libc::UDP_GRO, &1200_i32.to_ne_bytes());
        let other = message(libc::SOL_SOCKET, 1, &[9; 3]);
        assert_eq!(gro_segment(&gro), 1200);
        assert_eq!(gro_segment(&[other.clone(), gro.clone()].concat()), 1200);
        assert_eq!(gro_segment(&other), 0);
        assert_eq!(gro_segment(&gro[..10]), 0);
        assert_eq!(gro_segment(&[0xff; 64]), 0);
    }
}
