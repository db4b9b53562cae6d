//! The send path: packets are built in slots, queued on the ring, and go out in one batch per turn.
//!
//! A single packet is a SEND with an address, the cheapest form; a train of one session is a SENDMSG with
//! a segment size (T12). Both are told not to wait, so the kernel is done with an entry, and with the slot
//! it points to, when it has consumed it: at the return of a submit. A success makes no completion; a
//! socket buffer that is full makes one, and the packet is lost and counted, as on any network.

use std::{mem, net::SocketAddr, ptr};

use io_uring::{opcode, squeue, types::Fixed};

use crate::{
    address::{self, Storage},
    counters::Counters,
    error::Error,
    quic::Outbound,
    ring::Ring,
};

/// Packets or trains per batch.
const SLOTS: usize = 512;

/// Room of a slot between batches. A train's room goes back to the allocator.
const SLOT_BYTES: usize = 2 * 1024;

/// A control message with the segment size: header and two bytes, aligned.
#[repr(C)]
struct SegmentControl {
    header: libc::cmsghdr,
    size: u16,
    padding: [u16; 3],
}

struct Slot {
    packet: Vec<u8>,
    name: Storage,
    vector: libc::iovec,
    control: SegmentControl,
    header: libc::msghdr,
}

impl Slot {
    fn new() -> Self {
        Self {
            packet: Vec::with_capacity(SLOT_BYTES),
            name: Storage::default(),
            // SAFETY: all bytes zero is a valid iovec.
            vector: unsafe { mem::zeroed() },
            // SAFETY: as above, for plain integers.
            control: unsafe { mem::zeroed() },
            // SAFETY: as above, for integers and null pointers.
            header: unsafe { mem::zeroed() },
        }
    }

    fn single(&mut self, socket: u16, peer: SocketAddr) -> squeue::Entry {
        let (name, length) = address::encode(peer);
        self.name = name;
        let bytes = u32::try_from(self.packet.len()).expect("a UDP payload");
        opcode::Send::new(Fixed(u32::from(socket)), self.packet.as_ptr(), bytes)
            .dest_addr(self.name.as_ptr())
            .dest_addr_len(length)
            .flags(libc::MSG_DONTWAIT)
            .build()
    }

    fn train(&mut self, socket: u16, peer: SocketAddr, segment: u16) -> squeue::Entry {
        let (name, length) = address::encode(peer);
        self.name = name;
        self.vector.iov_base = self.packet.as_mut_ptr().cast();
        self.vector.iov_len = self.packet.len();
        self.control.header.cmsg_level = libc::SOL_UDP;
        self.control.header.cmsg_type = libc::UDP_SEGMENT;
        self.control.header.cmsg_len = mem::size_of::<libc::cmsghdr>() + mem::size_of::<u16>();
        self.control.size = segment;
        self.header.msg_name = self.name.as_mut_ptr().cast();
        self.header.msg_namelen = length;
        self.header.msg_iov = &raw mut self.vector;
        self.header.msg_iovlen = 1;
        self.header.msg_control = (&raw mut self.control).cast();
        self.header.msg_controllen = mem::size_of::<SegmentControl>();
        let flags = u32::try_from(libc::MSG_DONTWAIT).expect("a small flag");
        opcode::SendMsg::new(Fixed(u32::from(socket)), ptr::from_ref(&self.header))
            .flags(flags)
            .build()
    }
}

/// The slots of one thread.
pub(crate) struct Slots {
    slots: Box<[Slot]>,
    used: usize,
}

impl Slots {
    pub(crate) fn new() -> Self {
        Self {
            slots: (0..SLOTS).map(|_| Slot::new()).collect(),
            used: 0,
        }
    }

    /// The kernel has consumed every entry: all slots are free.
    pub(crate) fn reclaim(&mut self) {
        for slot in &mut self.slots[..self.used] {
            slot.packet.clear();
            slot.packet.shrink_to(SLOT_BYTES);
        }
        self.used = 0;
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.used == 0
    }
}

impl std::fmt::Debug for Slots {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Slots")
            .field("used", &self.used)
            .finish_non_exhaustive()
    }
}

/// Slots and ring together, as the engine sees them.
pub(crate) struct Sender<'a> {
    pub(crate) ring: &'a mut Ring,
    pub(crate) slots: &'a mut Slots,
    pub(crate) counters: &'a Counters,
    pub(crate) user_data: u64,
    /// The first thing that went wrong, for the loop to look at after the engine returns.
    pub(crate) failed: &'a mut Option<Error>,
}

impl Sender<'_> {
    fn submit(&mut self) {
        if let Err(error) = self.ring.submit() {
            self.failed.get_or_insert(error);
        }
        self.counters.send_batches.add(1);
        self.slots.reclaim();
    }

    fn count(&self, bytes: usize, segment: Option<u16>) {
        let packets = segment.map_or(1, |segment| bytes.div_ceil(usize::from(segment).max(1)));
        self.counters.packets_sent.add(packets as u64);
        self.counters.bytes_sent.add(bytes as u64);
        if packets > 1 {
            self.counters.gso_trains_sent.add(1);
        }
    }
}

impl Outbound for Sender<'_> {
    fn buffer(&mut self) -> &mut Vec<u8> {
        if self.slots.used == self.slots.slots.len() {
            self.submit();
        }
        let packet = &mut self.slots.slots[self.slots.used].packet;
        packet.clear();
        packet
    }

    fn send(&mut self, socket: u16, peer: SocketAddr, segment: Option<u16>) {
        let slot = &mut self.slots.slots[self.slots.used];
        let bytes = slot.packet.len();
        let segment = segment.filter(|segment| usize::from(*segment) < bytes);
        let entry = match segment {
            Some(segment) => slot.train(socket, peer, segment),
            None => slot.single(socket, peer),
        };
        let entry = entry
            .flags(squeue::Flags::SKIP_SUCCESS)
            .user_data(self.user_data);
        // SAFETY: everything that the entry points to lies in the slot, which is boxed and is not touched
        // again before `reclaim`, which follows a submit. MSG_DONTWAIT makes the kernel finish with it
        // there, whatever the outcome.
        if let Err(error) = unsafe { self.ring.push(&entry) } {
            self.failed.get_or_insert(error);
        }
        self.slots.used += 1;
        self.count(bytes, segment);
    }
}
