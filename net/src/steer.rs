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

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;
    use crate::udp;

    /// Bytes that look random and are the same in every run.
    fn noise(seed: u32) -> u32 {
        let x = seed.wrapping_mul(0x9e37_79b9) ^ 0x5bd1_e995;
        (x ^ (x >> 15)).wrapping_mul(0x85eb_ca6b)
    }

    fn packet(n: u32) -> Vec<u8> {
        let prefix = noise(n).to_be_bytes();
        let mut packet = match n % 2 {
            0 => vec![0x40 | prefix[3] & 0x3f],
            _ => vec![0xc0 | prefix[3] & 0x3f, 0, 0, 0, 1, 2 + prefix[2] % 19],
        };
        packet.extend_from_slice(&prefix[..2]);
        packet.extend(std::iter::repeat_n(0xaa, usize::from(prefix[3])));
        packet
    }

    fn drain(socket: &UdpSocket, mut each: impl FnMut(&[u8])) -> usize {
        let mut buffer = [0; 2048];
        let mut count = 0;
        while let Ok(length) = socket.recv(&mut buffer) {
            each(&buffer[..length]);
            count += 1;
        }
        count
    }

    fn group(shards: u16) -> (SocketAddr, Vec<UdpSocket>) {
        let group = udp::bind_group(&["127.0.0.1:0".parse().unwrap()], shards, 1 << 22).unwrap();
        attach(&group.sockets[0][0], shards).unwrap();
        let sockets = group
            .sockets
            .iter()
            .map(|shard| shard[0].to_std())
            .collect();
        (group.addresses[0], sockets)
    }

    #[test]
    fn the_kernel_and_the_loop_agree_on_every_packet() {
        for shards in [2, 3, 4] {
            let (address, sockets) = group(shards);
            let client = UdpSocket::bind("127.0.0.1:0").unwrap();
            let mut counts = vec![0; usize::from(shards)];
            // Loopback delivers within the send, so what was sent can be read at once.
            for batch in 0..60 {
                for n in 0..100 {
                    client.send_to(&packet(batch * 100 + n), address).unwrap();
                }
                for (shard, socket) in (0..).zip(&sockets) {
                    counts[usize::from(shard)] += drain(socket, |packet| {
                        assert_eq!(
                            shard_of(packet, shards),
                            Some(shard),
                            "misrouted: {packet:?}"
                        );
                    });
                }
            }
            assert_eq!(counts.iter().sum::<usize>(), 6000);
            assert!(counts.iter().all(|count| *count > 1000), "{counts:?}");
        }
    }

    #[test]
    fn a_datagram_too_short_to_steer_still_arrives() {
        let (address, sockets) = group(4);
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        let short: Vec<Vec<u8>> = (0..8)
            .flat_map(|length| [vec![0x40; length.min(2)], vec![0xc0; length]])
            .chain([
                vec![0xc0, 0, 0, 0, 1, 1, 9, 9, 9],
                vec![0xc0, 0, 0, 0, 1, 0, 9, 9, 9],
            ])
            .collect();
        for packet in &short {
            assert_eq!(shard_of(packet, 4), None, "{packet:?}");
            client.send_to(packet, address).unwrap();
        }
        let arrived: usize = sockets.iter().map(|socket| drain(socket, |_| ())).sum();
        assert_eq!(arrived, short.len());
    }

    #[test]
    fn the_ranges_of_the_shards_cover_all_prefixes_once() {
        for shards in [1, 2, 3, 5, 64, 1000, 1024] {
            let mut next = 0;
            for shard in 0..shards {
                let (first, count) = prefixes_of(shard, shards);
                assert_eq!(first, next);
                for prefix in [first, first + count - 1] {
                    let prefix = u16::try_from(prefix).unwrap();
                    assert_eq!(shard_of_prefix(prefix, shards), shard);
                }
                next = first + count;
            }
            assert_eq!(next, 1 << 16);
        }
    }
}
