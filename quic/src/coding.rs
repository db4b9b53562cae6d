//! Reading and writing bytes: cursors and the variable-length integer (RFC 9000 16).

/// The largest value of a variable-length integer (RFC 9000 16).
pub const VARINT_MAX: u64 = (1 << 62) - 1;

/// Bytes that `value` takes in its shortest encoding. Values above [`VARINT_MAX`] are written as that
/// one: what a peer can bring a number to must not end the process (T19), and numbers that mean
/// something have their own check before.
#[must_use]
pub const fn varint_len(value: u64) -> usize {
    match value {
        0..=0x3f => 1,
        0x40..=0x3fff => 2,
        0x4000..=0x3fff_ffff => 4,
        _ => 8,
    }
}

/// A cursor over bytes that a peer sent. `None` means that the bytes ended early.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// A cursor at the start of `bytes`.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// True at the end.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Bytes left.
    #[must_use]
    pub const fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// The rest of the bytes; the cursor is then at the end.
    pub fn take_rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }

    /// The next byte, without moving.
    #[must_use]
    pub fn peek(&self) -> Option<u8> {
        self.rest.first().copied()
    }

    /// The next `n` bytes.
    pub fn bytes(&mut self, n: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.rest.split_at_checked(n)?;
        self.rest = tail;
        Some(head)
    }

    /// The next `N` bytes as an array.
    pub fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, tail) = self.rest.split_first_chunk::<N>()?;
        self.rest = tail;
        Some(*head)
    }

    /// One byte.
    pub fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|[b]| b)
    }

    /// A 32-bit number in network order.
    pub fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    /// A variable-length integer (RFC 9000 16, A.1). Longer encodings than needed are valid.
    pub fn varint(&mut self) -> Option<u64> {
        let first = self.peek()?;
        let len = 1usize << (first >> 6);
        let bytes = self.bytes(len)?;
        let start = u64::from(first & 0x3f);
        Some(
            bytes[1..]
                .iter()
                .fold(start, |value, byte| (value << 8) | u64::from(*byte)),
        )
    }

    /// Bytes preceded by their length as a variable-length integer.
    pub fn prefixed(&mut self) -> Option<&'a [u8]> {
        let len = self.varint()?;
        self.bytes(usize::try_from(len).ok()?)
    }

    /// Skips PADDING: zero bytes (RFC 9000 19.1). Returns how many.
    pub fn skip_zeroes(&mut self) -> usize {
        let zeroes = self
            .rest
            .iter()
            .position(|b| *b != 0)
            .unwrap_or(self.rest.len());
        self.rest = &self.rest[zeroes..];
        zeroes
    }
}

/// A cursor that writes into a caller's buffer. The engine asks [`Writer::room`] before it writes;
/// running over the end is a broken invariant and panics.
#[derive(Debug)]
pub struct Writer<'a> {
    buf: &'a mut [u8],
    at: usize,
}

impl<'a> Writer<'a> {
    /// A cursor at the start of `buf`.
    pub fn new(buf: &'a mut [u8]) -> Self {
        Self { buf, at: 0 }
    }

    /// Bytes written.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.at
    }

    /// True while nothing has been written.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.at == 0
    }

    /// Bytes that still fit.
    #[must_use]
    pub const fn room(&self) -> usize {
        self.buf.len() - self.at
    }

    /// What has been written.
    #[must_use]
    pub fn written(&self) -> &[u8] {
        &self.buf[..self.at]
    }

    /// Writes `bytes`.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.buf[self.at..self.at + bytes.len()].copy_from_slice(bytes);
        self.at += bytes.len();
    }

    /// Lends `n` bytes to be filled by the caller.
    pub fn lend(&mut self, n: usize) -> &mut [u8] {
        let at = self.at;
        self.at += n;
        &mut self.buf[at..at + n]
    }

    /// Writes one byte.
    pub fn u8(&mut self, value: u8) {
        self.bytes(&[value]);
    }

    /// Writes a 32-bit number in network order.
    pub fn u32(&mut self, value: u32) {
        self.bytes(&value.to_be_bytes());
    }

    /// Writes a variable-length integer in its shortest encoding (RFC 9000 16), at most [`VARINT_MAX`].
    pub fn varint(&mut self, value: u64) {
        let value = value.min(VARINT_MAX);
        let bytes = value.to_be_bytes();
        let len = varint_len(value);
        let tag = (len.trailing_zeros() & 3) as u8;
        let out = self.lend(len);
        out.copy_from_slice(&bytes[8 - len..]);
        out[0] |= tag << 6;
    }

    /// Writes a number below 2^14 as a two-byte varint, whatever its size: lengths that are filled
    /// in later need a fixed width.
    pub fn varint2_at(&mut self, at: usize, value: usize) {
        let value = u16::try_from(value).ok().filter(|v| *v < 0x4000);
        let value = value.expect("a packet is shorter than 2^14 bytes");
        self.buf[at..at + 2].copy_from_slice(&(value | 0x4000).to_be_bytes());
    }

    /// Writes `n` zero bytes.
    pub fn zeroes(&mut self, n: usize) {
        self.lend(n).fill(0);
    }
}

/// Appends a variable-length integer to a vector.
pub(crate) fn put_varint(out: &mut Vec<u8>, value: u64) {
    let mut buf = [0; 8];
    let mut w = Writer::new(&mut buf);
    w.varint(value);
    out.extend_from_slice(w.written());
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The samples of RFC 9000 A.1.
    #[test]
    fn varint_vectors_of_rfc9000_a1() {
        let cases: [(&[u8], u64); 5] = [
            (
                &[0xc2, 0x19, 0x7c, 0x5e, 0xff, 0x14, 0xe8, 0x8c],
                151_288_809_941_952_652,
            ),
            (&[0x9d, 0x7f, 0x3e, 0x7d], 494_878_333),
            (&[0x7b, 0xbd], 15_293),
            (&[0x25], 37),
            (&[0x40, 0x25], 37),
        ];
        for (bytes, value) in cases {
            let mut r = Reader::new(bytes);
            assert_eq!(r.varint(), Some(value));
            assert!(r.is_empty());
        }
    }

    #[test]
    fn varint_round_trip_at_every_boundary() {
        for value in [
            0,
            63,
            64,
            16_383,
            16_384,
            (1 << 30) - 1,
            1 << 30,
            VARINT_MAX,
        ] {
            let mut buf = [0; 8];
            let mut w = Writer::new(&mut buf);
            w.varint(value);
            assert_eq!(w.len(), varint_len(value));
            assert_eq!(Reader::new(w.written()).varint(), Some(value));
        }
    }

    #[test]
    fn tf1_t19_an_integer_beyond_the_range_is_written_as_the_largest() {
        for value in [VARINT_MAX, VARINT_MAX + 1, 1 << 63, u64::MAX] {
            let mut buf = [0; 8];
            let mut w = Writer::new(&mut buf);
            w.varint(value);
            assert_eq!((w.len(), varint_len(value)), (8, 8));
            assert_eq!(Reader::new(w.written()).varint(), Some(VARINT_MAX));
        }
    }

    #[test]
    fn truncated_input_is_none_not_a_panic() {
        assert_eq!(Reader::new(&[]).varint(), None);
        assert_eq!(Reader::new(&[0xc0, 0, 0]).varint(), None);
        assert_eq!(Reader::new(&[0x05, 1, 2]).prefixed(), None);
        // A length of 2^62 - 1 in front of one byte.
        let huge = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1];
        assert_eq!(Reader::new(&huge).prefixed(), None);
    }
}
