//! Framing: a varint length, then one protobuf message.
//!
//! The deframer tells *incomplete* from *invalid*: more bytes can mend the first, nothing mends the
//! second. It holds memory only for bytes that have arrived, never for a length that was announced
//! (T8), and a frame that lies whole in the received chunk is handed on without a copy.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use prost::Message;
use thiserror::Error;

use crate::ErrorCode;
use crate::limits::LENGTH_PREFIX_BYTES_MAX;

/// Why a frame can not be read. No further byte will mend it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum FrameError {
    /// The announced length is above the limit.
    #[error("a frame of {length} bytes is larger than the limit of {max}")]
    TooLarge {
        /// What the prefix announces.
        length: usize,
        /// What the receiver allows.
        max: usize,
    },
    /// The length prefix does not end within the bytes that a legal length can need.
    #[error("the length prefix is longer than {LENGTH_PREFIX_BYTES_MAX} bytes")]
    PrefixTooLong,
    /// The length prefix uses more bytes than its value needs.
    #[error("the length prefix is not in its shortest form")]
    PrefixOverlong,
    /// A frame must hold a message with a body.
    #[error("the frame is empty")]
    Empty,
    /// The bytes are no message of the schema.
    #[error("the frame is no valid message: {0}")]
    Malformed(String),
}

impl FrameError {
    /// The code that answers it.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::TooLarge { .. } => ErrorCode::FrameTooLarge,
            _ => ErrorCode::FrameMalformed,
        }
    }
}

/// Splits a byte stream into frames.
///
/// ```
/// use bytes::Bytes;
/// use roadstead_proto::Deframer;
///
/// let mut deframer = Deframer::new(1024);
/// let mut chunk = Bytes::from_static(b"\x02hi\x03yo");
/// assert_eq!(deframer.next_frame(&mut chunk), Ok(Some(Bytes::from_static(b"hi"))));
/// assert_eq!(deframer.next_frame(&mut chunk), Ok(None)); // incomplete: the rest is kept
/// let mut chunk = Bytes::from_static(b"u");
/// assert_eq!(deframer.next_frame(&mut chunk), Ok(Some(Bytes::from_static(b"you"))));
/// ```
#[derive(Debug)]
pub struct Deframer {
    /// The beginning of a frame whose end has not arrived, its prefix included. Empty while idle.
    partial: BytesMut,
    frame_bytes_max: usize,
}

impl Deframer {
    /// A deframer that refuses frames above `frame_bytes_max` bytes.
    #[must_use]
    pub fn new(frame_bytes_max: usize) -> Self {
        Self {
            partial: BytesMut::new(),
            frame_bytes_max,
        }
    }

    /// Refuses frames above another limit from now on, the one under way included.
    pub fn limit_to(&mut self, frame_bytes_max: usize) {
        self.frame_bytes_max = frame_bytes_max;
    }

    /// Bytes held for a frame that is not complete.
    #[must_use]
    pub fn buffered(&self) -> usize {
        self.partial.len()
    }

    /// Takes the next frame out of `chunk`; `None` once all of the chunk is consumed.
    ///
    /// Call again with the same chunk until it returns `None`.
    ///
    /// # Errors
    /// [`FrameError`] if no further byte can make a legal frame of what is there. The stream is then
    /// of no more use.
    pub fn next_frame(&mut self, chunk: &mut Bytes) -> Result<Option<Bytes>, FrameError> {
        if self.partial.is_empty() {
            return self.next_whole(chunk);
        }
        // Complete the length first, then the frame: never copy beyond the frame's own end.
        let (prefix, length) = loop {
            match parse_length(&self.partial, self.frame_bytes_max)? {
                Some(parsed) => break parsed,
                None if chunk.is_empty() => return Ok(None),
                None => self.partial.put_u8(chunk.get_u8()),
            }
        };
        let missing = (prefix + length - self.partial.len()).min(chunk.len());
        self.partial.extend_from_slice(&chunk.split_to(missing));
        if self.partial.len() < prefix + length {
            return Ok(None);
        }
        let mut frame = std::mem::take(&mut self.partial).freeze();
        frame.advance(prefix);
        Ok(Some(frame))
    }

    fn next_whole(&mut self, chunk: &mut Bytes) -> Result<Option<Bytes>, FrameError> {
        match parse_length(chunk, self.frame_bytes_max)? {
            Some((prefix, length)) if chunk.len() >= prefix + length => {
                chunk.advance(prefix);
                Ok(Some(chunk.split_to(length)))
            }
            _ => {
                self.partial.extend_from_slice(&chunk.split_to(chunk.len()));
                Ok(None)
            }
        }
    }
}

/// Reads the length prefix: its own size and its value, or `None` while it is incomplete.
fn parse_length(bytes: &[u8], max: usize) -> Result<Option<(usize, usize)>, FrameError> {
    let mut length = 0;
    for (index, byte) in bytes.iter().take(LENGTH_PREFIX_BYTES_MAX).enumerate() {
        length |= usize::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            if index > 0 && *byte == 0 {
                return Err(FrameError::PrefixOverlong);
            }
            return match length {
                0 => Err(FrameError::Empty),
                _ if length > max => Err(FrameError::TooLarge { length, max }),
                _ => Ok(Some((index + 1, length))),
            };
        }
    }
    if bytes.len() < LENGTH_PREFIX_BYTES_MAX {
        Ok(None)
    } else {
        Err(FrameError::PrefixTooLong)
    }
}

/// Appends a message with its length prefix.
///
/// # Panics
/// If `out` can not grow: a `BytesMut` or `Vec` always can.
pub fn encode_frame(message: &impl Message, out: &mut impl BufMut) {
    message
        .encode_length_delimited(out)
        .expect("the buffer grows");
}

/// Decodes the message of a frame.
///
/// # Errors
/// [`FrameError::Malformed`] if the bytes are no such message.
pub fn decode_frame<M: Message + Default>(frame: Bytes) -> Result<M, FrameError> {
    M::decode(frame).map_err(|error| FrameError::Malformed(error.to_string()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frames_of(deframer: &mut Deframer, bytes: &[u8], step: usize) -> Vec<Bytes> {
        let mut frames = Vec::new();
        for piece in bytes.chunks(step) {
            let mut chunk = Bytes::copy_from_slice(piece);
            while let Some(frame) = deframer.next_frame(&mut chunk).expect("valid") {
                frames.push(frame);
            }
            assert!(chunk.is_empty());
        }
        frames
    }

    /// What was too large before a login is not after it, also in the middle of its prefix.
    #[test]
    fn tf7_t8_the_limit_can_be_changed() {
        let mut deframer = Deframer::new(5);
        let mut chunk = Bytes::from_static(b"\x06");
        let too_large = FrameError::TooLarge { length: 6, max: 5 };
        assert_eq!(deframer.next_frame(&mut chunk.clone()), Err(too_large));
        deframer.limit_to(6);
        assert_eq!(deframer.next_frame(&mut chunk), Ok(None));
        deframer.limit_to(5);
        let mut rest = Bytes::from_static(b"abcdef");
        let refused = deframer.next_frame(&mut rest.clone());
        assert!(refused.is_err(), "the one under way too");
        deframer.limit_to(6);
        assert_eq!(
            deframer.next_frame(&mut rest),
            Ok(Some(Bytes::from_static(b"abcdef")))
        );
    }

    #[test]
    fn a_whole_frame_is_not_copied() {
        let mut chunk = Bytes::from(b"\x03abc\x01d".to_vec());
        let start = chunk.as_ptr();
        let frame = Deframer::new(64)
            .next_frame(&mut chunk)
            .expect("valid")
            .expect("whole");
        assert_eq!(frame.as_ptr(), start.wrapping_add(1));
        assert_eq!(&chunk[..], b"\x01d");
    }

    #[test]
    fn incomplete_is_not_invalid() {
        for prefix in [&b"\x80"[..], b"\x05ab", b""] {
            let mut fresh = Deframer::new(1024);
            assert_eq!(fresh.next_frame(&mut Bytes::from_static(prefix)), Ok(None));
            assert_eq!(fresh.buffered(), prefix.len());
        }
    }

    #[test]
    fn an_announced_length_reserves_nothing() {
        let mut deframer = Deframer::new(64 * 1024);
        assert_eq!(
            deframer.next_frame(&mut Bytes::from_static(b"\x80\x80\x04a")),
            Ok(None)
        );
        assert!(
            deframer.partial.capacity() < 128,
            "T8: memory for arrived bytes only"
        );
    }

    #[test]
    fn illegal_prefixes_are_refused_whatever_the_split() {
        let cases: [(&[u8], FrameError); 5] = [
            (b"\x00", FrameError::Empty),
            (b"\x81\x00", FrameError::PrefixOverlong),
            (b"\xff\xff\xff", FrameError::PrefixTooLong),
            (
                b"\x65",
                FrameError::TooLarge {
                    length: 101,
                    max: 100,
                },
            ),
            (
                b"\xff\xff\x7f",
                FrameError::TooLarge {
                    length: 0x1f_ffff,
                    max: 100,
                },
            ),
        ];
        for (bytes, error) in cases {
            for step in 1..=bytes.len() {
                let mut deframer = Deframer::new(100);
                let result = bytes.chunks(step).find_map(|piece| {
                    deframer
                        .next_frame(&mut Bytes::copy_from_slice(piece))
                        .err()
                });
                assert_eq!(
                    result.as_ref(),
                    Some(&error),
                    "{bytes:?} in steps of {step}"
                );
            }
        }
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same_frames(
            payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..400), 1..12),
            step in 1usize..700,
        ) {
            let mut stream = Vec::new();
            for payload in &payloads {
                prost::encoding::encode_varint(payload.len() as u64, &mut stream);
                stream.extend_from_slice(payload);
            }
            let mut deframer = Deframer::new(1024);
            prop_assert_eq!(frames_of(&mut deframer, &stream, step), payloads);
            prop_assert_eq!(deframer.buffered(), 0);
        }

        #[test]
        fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200), step in 1usize..50) {
            let mut deframer = Deframer::new(100);
            'stream: for piece in bytes.chunks(step) {
                let mut chunk = Bytes::copy_from_slice(piece);
                loop {
                    match deframer.next_frame(&mut chunk) {
                        Ok(Some(frame)) => drop(decode_frame::<crate::v1::ClientFrame>(frame)),
                        Ok(None) => break,
                        Err(_) => break 'stream,
                    }
                }
            }
        }
    }
}
