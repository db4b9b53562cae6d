//! What tells a retry from another message under the same number (R12).
//!
//! A hash stays in the store with the answer of its number for as long as the number does, and is compared with
//! what later versions compute. So its rule is fixed, for fields of `Send` that do not exist yet too:
//!
//! 1. the 16 bytes of the chat;
//! 2. the payload;
//! 3. of the fields 5 to 9, which travel with a message, in order and unless empty: the number (u32, big-endian), the
//!    length (u32, big-endian), the bytes.
//!
//! An empty field hashes as none, so what is sent today hashes today as it will. `number`, `deadline_ms` and `after`
//! are of the attempt and not of the message. A device that makes two of its own messages collide harms only itself,
//! so the key is no secret, and a payload needs no length.

use std::hash::Hasher;

use roadstead_proto::ChatId;
use siphasher::sip::SipHasher13;

/// SipHash-1-3 by the rule of this [module](self); fields by their number, in order.
#[must_use]
pub fn request_hash<'a>(
    chat: ChatId,
    payload: &[u8],
    fields: impl IntoIterator<Item = (u32, &'a [u8])>,
) -> u64 {
    let mut hasher = SipHasher13::new_with_key(b"roadstead-resend");
    hasher.write(chat.as_bytes());
    hasher.write(payload);
    for (number, bytes) in fields {
        if !bytes.is_empty() {
            let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
            hasher.write(&number.to_be_bytes());
            hasher.write(&length.to_be_bytes());
            hasher.write(bytes);
        }
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use roadstead_proto::UserId;

    use super::*;

    fn chat() -> ChatId {
        let user = |id| UserId::new(id).expect("not 0");
        ChatId::pair(user(1), user(2))
    }

    /// As 0.1.0 wrote them into its answers.
    #[test]
    fn r12_what_was_sent_to_an_older_version_hashes_as_it_did() {
        assert_eq!(request_hash(chat(), b"", []), 0x6824_01d3_4064_f8fc);
        assert_eq!(request_hash(chat(), b"hello", []), 0xfda3_ee97_958d_0638);
        assert_eq!(
            request_hash(chat(), &[7; 65_536], []),
            0xe588_6b36_357c_088b
        );
    }

    #[test]
    fn r12_a_field_that_is_empty_is_none_and_others_count() {
        let of = |fields: &[(u32, &[u8])]| request_hash(chat(), b"hello", fields.iter().copied());
        assert_eq!(of(&[(5, b""), (9, b"")]), of(&[]));
        let different = [
            of(&[]),
            of(&[(5, b"a")]),
            of(&[(6, b"a")]),
            of(&[(5, b"aa")]),
            of(&[(5, b"a"), (6, b"a")]),
            of(&[(5, b"a\0\0\0\x06\0\0\0\x01a")]),
        ];
        for (index, hash) in different.iter().enumerate() {
            assert!(!different[..index].contains(hash), "{index}");
        }
        assert_eq!(of(&[(5, b"a")]), 0xc861_150c_f8ea_3d20);
    }
}
