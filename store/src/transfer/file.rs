//! The file of a moved store: a line that names the format, records (length of the key, length of the
//! value, key, value), a mark, the number of records, and a checksum over all of them. Numbers are
//! big-endian.

use std::hash::Hasher;
use std::io::{self, Read, Write};

use bytes::Bytes;
use siphasher::sip::SipHasher13;

use crate::txn::{KEY_BYTES_MAX, VALUE_BYTES_MAX};

use super::TransferError;

const FORMAT: &[u8] = b"roadstead store 1\n";

/// In the place of a key's length: no further record.
const END: u32 = u32::MAX;

/// A key and its value.
pub(super) type Pair = (Bytes, Bytes);

/// A record as it lies in the file, and as it is summed up.
pub(super) fn record(key: &[u8], value: &[u8]) -> Vec<u8> {
    let length = |bytes: &[u8]| {
        let length = u32::try_from(bytes.len());
        length.expect("bounded by the seam").to_be_bytes()
    };
    [&length(key)[..], &length(value), key, value].concat()
}

/// Writes a file.
pub(super) struct Writer<'a, W> {
    output: &'a mut W,
    hash: SipHasher13,
    count: u64,
}

impl<'a, W: Write> Writer<'a, W> {
    pub(super) fn begin(output: &'a mut W) -> io::Result<Self> {
        output.write_all(FORMAT)?;
        Ok(Self {
            output,
            hash: SipHasher13::new(),
            count: 0,
        })
    }

    pub(super) fn write(&mut self, (key, value): &Pair) -> io::Result<()> {
        let bytes = record(key, value);
        self.hash.write(&bytes);
        self.count += 1;
        self.output.write_all(&bytes)
    }

    /// Without this the file is not complete, and nobody reads it.
    pub(super) fn end(self) -> io::Result<()> {
        self.output.write_all(&END.to_be_bytes())?;
        self.output.write_all(&self.count.to_be_bytes())?;
        self.output.write_all(&self.hash.finish().to_be_bytes())?;
        self.output.flush()
    }
}

/// Reads a file, without trust.
pub(super) struct Reader<'a, R> {
    input: &'a mut R,
    hash: SipHasher13,
    count: u64,
}

impl<'a, R: Read> Reader<'a, R> {
    pub(super) fn begin(input: &'a mut R) -> Result<Self, TransferError> {
        let mut format = [0; FORMAT.len()];
        read(input, &mut format)?;
        if format != FORMAT {
            return Err(TransferError::Damaged("it begins otherwise"));
        }
        Ok(Self {
            input,
            hash: SipHasher13::new(),
            count: 0,
        })
    }

    /// The next record; `None` at the end of a file that is whole.
    pub(super) fn next(&mut self) -> Result<Option<Pair>, TransferError> {
        let key_length = u32::from_be_bytes(self.array()?);
        if key_length == END {
            self.check_end()?;
            return Ok(None);
        }
        let value_length = u32::from_be_bytes(self.array()?);
        let key = self.bytes(key_length, KEY_BYTES_MAX)?;
        let value = self.bytes(value_length, VALUE_BYTES_MAX)?;
        self.hash.write(&record(&key, &value));
        self.count += 1;
        Ok(Some((key, value)))
    }

    fn check_end(&mut self) -> Result<(), TransferError> {
        let count = u64::from_be_bytes(self.array()?);
        let checksum = u64::from_be_bytes(self.array()?);
        if count != self.count || checksum != self.hash.finish() {
            return Err(TransferError::Damaged("the checksum differs"));
        }
        Ok(())
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], TransferError> {
        let mut bytes = [0; N];
        read(self.input, &mut bytes)?;
        Ok(bytes)
    }

    fn bytes(&mut self, length: u32, max: usize) -> Result<Bytes, TransferError> {
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if length > max {
            return Err(TransferError::Damaged("a record is too long"));
        }
        let mut bytes = vec![0; length];
        read(self.input, &mut bytes)?;
        Ok(bytes.into())
    }
}

fn read(input: &mut impl Read, bytes: &mut [u8]) -> Result<(), TransferError> {
    input.read_exact(bytes).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => TransferError::Damaged("it ends early"),
        _ => error.into(),
    })
}
