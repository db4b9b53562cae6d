//! Which shard a packet belongs to: the same answer from the kernel and from the loop.
//!
//! The first two bytes of the destination connection id, as a big-endian number `n`, name the shard
//! `(n * shards) >> 16`. The id starts at byte 1 of a short header, and at byte 6 of a long one, whose
//! byte 5 is its length (RFC 8999 section 5). The kernel runs this as a classic BPF program over the UDP
//! payload; the loop asks again, because a GSO train is steered once, by its first packet (T1).

use std::{io, mem, net::SocketAddr, os::fd::AsRawFd};

use crate::{error::Error, udp::Socket};

const LONG_HEADER: u8 = 0x80;
const LONG_ID_LENGTH: u8 = 5;
const LONG_ID: u8 = 6;
const SHORT_ID: u8 = 1;

/// The shard of a packet, or `None` if it is too short to say.
pub(crate) fn shard_of(packet: &[u8], shards: u16) -> Option<u16> {
    let id = match packet.first()? & LONG_HEADER {
        0 => usize::from(SHORT_ID),
        _ if *packet.get(usize::from(LONG_ID_LENGTH))? < 2 => return None,
        _ => usize::from(LONG_ID),
    };
    let prefix = packet.get(id..id + 2)?;
    Some(shard_of_prefix(
        u16::from_be_bytes([prefix[0], prefix[1]]),
        shards,
    ))
}

/// The shard of an id that starts with `prefix`.
pub(crate) fn shard_of_prefix(prefix: u16, shards: u16) -> u16 {
    let scaled = (u32::from(prefix) * u32::from(shards)) >> 16;
    u16::try_from(scaled).expect("less than the number of shards")
}

/// The prefixes of one shard: the first one and how many there are.
pub(crate) fn prefixes_of(shard: u16, shards: u16) -> (u32, u32) {
    let first = |shard: u32| (shard << 16).div_ceil(u32::from(shards));
    let start = first(u32::from(shard));
    (start, first(u32::from(shard) + 1) - start)
}

/// Attaches the steering program to the group that `socket` is a member of.
pub(crate) fn attach(socket: &Socket, shards: u16) -> Result<(), Error> {
    let mut filter = program(shards);
    let program = libc::sock_fprog {
        len: u16::try_from(filter.len()).expect("a short program"),
        filter: filter.as_mut_ptr(),
    };
    // SAFETY: the program and its instructions live through the call, which copies them.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_REUSEPORT_CBPF,
            (&raw const program).cast(),
            libc::socklen_t::try_from(mem::size_of_val(&program)).expect("a small struct"),
        )
    };
    match result {
        0 => Ok(()),
        _ => Err(failed(socket.local())),
    }
}

fn failed(address: SocketAddr) -> Error {
    let call = "setsockopt(SO_ATTACH_REUSEPORT_CBPF)";
    Error::Socket {
        call,
        address,
        source: io::Error::last_os_error(),
    }
}

/// No group has this index: the kernel then falls back to its hash of the addresses.
const NO_SHARD: u32 = u32::MAX;

const PROGRAM_LENGTH: usize = 15;

/// Where the program gives up, and where both header forms meet.
const GIVE_UP: u8 = 14;
const STEER: u8 = 11;

/// The steering program. A load past the end would end it with index 0, so lengths are checked first.
fn program(shards: u16) -> [libc::sock_filter; PROGRAM_LENGTH] {
    const LOAD_LENGTH: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_LEN;
    const LOAD_BYTE: u32 = libc::BPF_LD | libc::BPF_B | libc::BPF_ABS;
    const LOAD_U16: u32 = libc::BPF_LD | libc::BPF_H | libc::BPF_ABS;
    const JUMP: u32 = libc::BPF_JMP | libc::BPF_JA;
    const IF_AT_LEAST: u32 = libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K;
    const IF_BITS: u32 = libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K;
    const MULTIPLY: u32 = libc::BPF_ALU | libc::BPF_MUL | libc::BPF_K;
    const SHIFT_RIGHT: u32 = libc::BPF_ALU | libc::BPF_RSH | libc::BPF_K;
    const RETURN_A: u32 = libc::BPF_RET | 0x10;
    const RETURN: u32 = libc::BPF_RET | libc::BPF_K;
    // A jump counts from the instruction after it.
    let otherwise = |at: u8, to: u8| to - at - 1;
    [
        op(LOAD_LENGTH, 0, 0, 0),
        op(
            IF_AT_LEAST,
            0,
            otherwise(1, GIVE_UP),
            u32::from(SHORT_ID) + 2,
        ),
        op(LOAD_BYTE, 0, 0, 0),
        op(IF_BITS, otherwise(3, 6), 0, u32::from(LONG_HEADER)),
        op(LOAD_U16, 0, 0, u32::from(SHORT_ID)),
        op(JUMP, 0, 0, u32::from(otherwise(5, STEER))),
        // 6: the long form
        op(LOAD_LENGTH, 0, 0, 0),
        op(
            IF_AT_LEAST,
            0,
            otherwise(7, GIVE_UP),
            u32::from(LONG_ID) + 2,
        ),
        op(LOAD_BYTE, 0, 0, u32::from(LONG_ID_LENGTH)),
        op(IF_AT_LEAST, 0, otherwise(9, GIVE_UP), 2),
        op(LOAD_U16, 0, 0, u32::from(LONG_ID)),
        // 11: steer
        op(MULTIPLY, 0, 0, u32::from(shards)),
        op(SHIFT_RIGHT, 0, 0, 16),
        op(RETURN_A, 0, 0, 0),
        // 14: give up
        op(RETURN, 0, 0, NO_SHARD),
    ]
}

fn op(code: u32, jt: u8, jf: u8, k: u32) -> libc::sock_filter {
    libc::sock_filter {
        code: u16::try_from(code).expect("codes are below 2^8"),
        jt,
        jf,
        k,
    }
}
