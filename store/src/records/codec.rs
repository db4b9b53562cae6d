//! Values: compact, versioned by their first byte, and read back without trust.
//!
//! A version of this program reads what the one before it wrote, and writes a new version of a record only where it
//! says what the old one can not: a server that is updated can be taken back as long as nothing new was used.

use std::ops::RangeInclusive;

use bytes::{BufMut, Bytes, BytesMut};
use roadstead_proto::Position;

/// Reads the parts of a value; `None` where it is shorter than it should be.
#[derive(Debug)]
pub(crate) struct Parts<'a>(&'a [u8]);

impl<'a> Parts<'a> {
    /// The parts behind the first byte, which must be `version`.
    pub(crate) fn of(value: &'a [u8], version: u8) -> Option<Self> {
        match value.split_first() {
            Some((first, rest)) if *first == version => Some(Self(rest)),
            _ => None,
        }
    }

    /// The parts behind the first byte, which must be one of these versions, and which it is.
    pub(crate) fn of_versions(value: &'a [u8], versions: RangeInclusive<u8>) -> Option<(u8, Self)> {
        let (first, rest) = value.split_first()?;
        versions.contains(first).then_some((*first, Self(rest)))
    }

    pub(crate) fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (part, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*part)
    }

    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.take().map(u8::from_be_bytes)
    }

    pub(crate) fn u16(&mut self) -> Option<u16> {
        self.take().map(u16::from_be_bytes)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_be_bytes)
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_be_bytes)
    }

    pub(crate) fn position(&mut self) -> Option<Position> {
        Position::from_slice(&self.take::<16>()?)
    }

    /// What was read, if nothing is left.
    pub(crate) fn end<R>(self, record: R) -> Option<R> {
        self.0.is_empty().then_some(record)
    }
}

/// Starts a value of this version with room for `capacity` bytes more.
pub(crate) fn value(version: u8, capacity: usize) -> BytesMut {
    let mut value = BytesMut::with_capacity(capacity + 1);
    value.put_u8(version);
    value
}

/// A value that holds one position.
pub(crate) fn put_position(value: &mut BytesMut, position: Position) {
    value.put_slice(position.as_bytes());
}

/// The value so far, finished.
pub(crate) fn finish(value: BytesMut) -> Bytes {
    value.freeze()
}
