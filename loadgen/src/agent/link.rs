//! The line between leader and agent: JSON in sealed frames over TCP.
//!
//! Both ends make up a nonce and derive two keys, one for each direction, from the token that they share
//! and the two nonces (HKDF-SHA256, RFC 5869). Each frame is sealed with AES-256-GCM under a counter. An
//! end without the token can neither read nor write a frame, and nothing that was said on one line is
//! worth anything on another.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Salt};
use aws_lc_rs::rand;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A token is a secret, not a word: 16 random bytes in hexadecimal, for example.
pub(super) const TOKEN_BYTES_MIN: usize = 16;

/// A result holds some histograms and an hour of points.
const FRAME_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Nobody answers: longer than the slowest pause between two signs of life.
pub(super) const SILENCE_MAX: Duration = Duration::from_secs(20);

const NONCE_BYTES: usize = 32;

/// Which end this is: it tells the two keys apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Leader,
    Agent,
}

/// The half that writes.
pub(super) struct Sender {
    stream: TcpStream,
    key: Counted,
}

/// The half that reads.
pub(super) struct Receiver {
    stream: TcpStream,
    key: Counted,
    /// The longest that nothing may come.
    silence: Duration,
}

/// A key that is used once per count.
struct Counted {
    key: LessSafeKey,
    count: u64,
}

/// Makes a line of a connection. The other end may say nothing for as long as `silence`.
pub(super) fn open(
    mut stream: TcpStream,
    token: &[u8],
    end: End,
    silence: Duration,
) -> Result<(Sender, Receiver)> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(silence))?;
    stream.set_write_timeout(Some(silence))?;
    let mut own = [0; NONCE_BYTES];
    rand::fill(&mut own).map_err(|_| anyhow!("no randomness"))?;
    stream.write_all(&own)?;
    let mut theirs = [0; NONCE_BYTES];
    stream
        .read_exact(&mut theirs)
        .context("the other end said nothing")?;
    let nonces = match end {
        End::Leader => [own, theirs].concat(),
        End::Agent => [theirs, own].concat(),
    };
    let by_leader = Counted::new(token, &nonces, b"roadstead loadgen leader")?;
    let by_agent = Counted::new(token, &nonces, b"roadstead loadgen agent")?;
    let (sending, receiving) = match end {
        End::Leader => (by_leader, by_agent),
        End::Agent => (by_agent, by_leader),
    };
    let sender = Sender {
        stream: stream.try_clone()?,
        key: sending,
    };
    let receiver = Receiver {
        stream,
        key: receiving,
        silence,
    };
    Ok((sender, receiver))
}

impl Counted {
    fn new(token: &[u8], nonces: &[u8], purpose: &[u8]) -> Result<Self> {
        struct Length;
        impl KeyType for Length {
            fn len(&self) -> usize {
                32
            }
        }
        let mut raw = [0; 32];
        Salt::new(HKDF_SHA256, nonces)
            .extract(token)
            .expand(&[purpose], Length)
            .and_then(|key| key.fill(&mut raw))
            .map_err(|_| anyhow!("no key from the token"))?;
        let key = UnboundKey::new(&AES_256_GCM, &raw).map_err(|_| anyhow!("no key"))?;
        Ok(Self {
            key: LessSafeKey::new(key),
            count: 0,
        })
    }

    fn next(&mut self) -> Nonce {
        let mut nonce = [0; NONCE_LEN];
        nonce[NONCE_LEN - 8..].copy_from_slice(&self.count.to_be_bytes());
        self.count += 1;
        Nonce::assume_unique_for_key(nonce)
    }
}

impl Sender {
    pub(super) fn send(&mut self, message: &impl Serialize) -> Result<()> {
        let mut frame = serde_json::to_vec(message)?;
        let nonce = self.key.next();
        self.key
            .key
            .seal_in_place_append_tag(nonce, Aad::empty(), &mut frame)
            .map_err(|_| anyhow!("a frame can not be sealed"))?;
        let length = u32::try_from(frame.len()).context("a frame is too long")?;
        self.stream.write_all(&length.to_be_bytes())?;
        self.stream.write_all(&frame)?;
        Ok(())
    }

    /// Ends the line for both halves of both ends.
    pub(super) fn hang_up(&self) {
        // It may have ended already.
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

impl Receiver {
    /// The next message. An error if the other end has another token, is gone, or says nothing for too
    /// long.
    pub(super) fn receive<T: DeserializeOwned>(&mut self) -> Result<T> {
        let mut length = [0; 4];
        self.read(&mut length)?;
        let length = u32::from_be_bytes(length) as usize;
        ensure!(length <= FRAME_BYTES_MAX, "a frame of {length} bytes");
        let mut frame = vec![0; length];
        self.read(&mut frame)?;
        let nonce = self.key.next();
        let Ok(text) = self.key.key.open_in_place(nonce, Aad::empty(), &mut frame) else {
            bail!("the other end has another token");
        };
        Ok(serde_json::from_slice(text)?)
    }

    fn read(&mut self, bytes: &mut [u8]) -> Result<()> {
        self.stream
            .read_exact(bytes)
            .map_err(|error| match error.kind() {
                ErrorKind::WouldBlock | ErrorKind::TimedOut => {
                    anyhow!("said nothing for {:?}", self.silence)
                }
                ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset => {
                    anyhow!("gone: its process ended, or the network between")
                }
                _ => error.into(),
            })
    }

    /// Lets the other end be silent for so long from now on.
    pub(super) fn wait_for(&mut self, silence: Duration) -> Result<()> {
        self.silence = silence;
        Ok(self.stream.set_read_timeout(Some(silence))?)
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    const TOKEN: &[u8] = b"0123456789abcdef0123456789abcdef";

    fn pair(other: &'static [u8]) -> ((Sender, Receiver), (Sender, Receiver)) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("bound");
        let agent = thread::spawn(move || {
            let (stream, _) = listener.accept().expect("a leader");
            open(stream, other, End::Agent, SILENCE_MAX).expect("a line")
        });
        let stream = TcpStream::connect(address).expect("an agent");
        let leader = open(stream, TOKEN, End::Leader, SILENCE_MAX).expect("a line");
        (leader, agent.join().expect("no panic"))
    }

    #[test]
    fn what_is_said_is_heard_in_order() {
        let ((mut leader, mut from_agent), (mut agent, mut from_leader)) = pair(TOKEN);
        for n in 0..3 {
            leader.send(&n).expect("sent");
            assert_eq!(from_leader.receive::<i32>().expect("heard"), n);
        }
        agent.send(&"text").expect("sent");
        assert_eq!(from_agent.receive::<String>().expect("heard"), "text");
    }

    #[test]
    fn another_token_opens_nothing() {
        let ((mut leader, _), (_, mut from_leader)) = pair(b"another token of the same kind!!");
        leader.send(&1).expect("sent");
        let error = from_leader.receive::<i32>().expect_err("not opened");
        assert!(error.to_string().contains("token"), "{error}");
    }

    #[test]
    fn nothing_readable_is_on_the_wire() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("bound");
        let spy = thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a leader");
            stream.write_all(&[7; NONCE_BYTES]).expect("a nonce");
            let mut seen = Vec::new();
            stream.read_to_end(&mut seen).expect("all of it");
            seen
        });
        let stream = TcpStream::connect(address).expect("a spy");
        let (mut leader, receiver) = open(stream, TOKEN, End::Leader, SILENCE_MAX).expect("a line");
        leader.send(&"a secret of 16 letters").expect("sent");
        drop((leader, receiver));
        let seen = spy.join().expect("no panic");
        assert!(seen.len() > NONCE_BYTES + 20);
        assert!(!seen.windows(6).any(|window| window == b"secret"));
    }
}
