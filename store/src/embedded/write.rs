//! A write, alone and in the log: tag, length of the key, length of the value, key, value.

use std::collections::BTreeMap;

use bytes::{Buf, BufMut, Bytes};

use super::small_key::SmallKey;

/// What happens to a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Write {
    /// It gets the value.
    Set(Bytes),
    /// It goes.
    Clear,
    /// It goes, and it was written at most once in its life: where that one write is at hand, both
    /// vanish and nothing has to remember either.
    ClearOnce,
}

/// Writes in order of keys.
pub(crate) type Writes = BTreeMap<SmallKey, Write>;

const SET: u8 = 1;
const CLEAR: u8 = 2;
const CLEAR_ONCE: u8 = 3;

impl Write {
    /// The value, if there is one.
    pub(crate) fn value(&self) -> Option<&Bytes> {
        match self {
            Self::Set(value) => Some(value),
            Self::Clear | Self::ClearOnce => None,
        }
    }

    /// Bytes of the value.
    pub(crate) fn len(&self) -> usize {
        self.value().map_or(0, Bytes::len)
    }
}

/// Appends writes to a log record.
pub(crate) fn encode(writes: &Writes, record: &mut Vec<u8>) {
    for (key, write) in writes {
        let key_length = u16::try_from(key.len()).expect("keys are limited");
        let (tag, value) = match write {
            Write::Set(value) => (SET, &value[..]),
            Write::Clear => (CLEAR, &[][..]),
            Write::ClearOnce => (CLEAR_ONCE, &[][..]),
        };
        record.put_u8(tag);
        record.put_u16(key_length);
        if tag == SET {
            record.put_u32(u32::try_from(value.len()).expect("values are limited"));
        }
        record.put_slice(key);
        record.put_slice(value);
    }
}

/// Reads back what [`encode`] wrote; `None` if it is something else. Values are copies: one that shared the
/// record would keep all of it in memory.
pub(crate) fn decode(mut record: &[u8]) -> Option<Vec<(SmallKey, Write)>> {
    let mut writes = Vec::new();
    while record.has_remaining() {
        let tag = record.try_get_u8().ok()?;
        let key_length = usize::from(record.try_get_u16().ok()?);
        let value_length = match tag {
            SET => usize::try_from(record.try_get_u32().ok()?).ok()?,
            CLEAR | CLEAR_ONCE => 0,
            _ => return None,
        };
        if record.remaining() < key_length.checked_add(value_length)? {
            return None;
        }
        let key = SmallKey::from(record.split_off(..key_length)?);
        let value = record.split_off(..value_length)?;
        let write = match tag {
            SET => Write::Set(Bytes::copy_from_slice(value)),
            CLEAR => Write::Clear,
            _ => Write::ClearOnce,
        };
        writes.push((key, write));
    }
    Some(writes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_survive_and_damage_is_noticed() {
        let writes = Writes::from([
            (
                SmallKey::from(&b"a"[..]),
                Write::Set(Bytes::from_static(b"value")),
            ),
            (SmallKey::from(&b"b"[..]), Write::Clear),
            (SmallKey::from(&b"c"[..]), Write::ClearOnce),
            (SmallKey::from(&b"d"[..]), Write::Set(Bytes::new())),
        ]);
        let mut record = Vec::new();
        encode(&writes, &mut record);
        let read = decode(&record).expect("what was written");
        assert_eq!(read, writes.into_iter().collect::<Vec<_>>());
        assert_eq!(decode(&record[..record.len() - 1]), None);
        assert_eq!(decode(&[9, 0, 0]), None);
    }
}
