//! Small pieces of the wire: Initials, Retry tags, transport parameters.

use aws_lc_rs::aead;

/// RFC 9001 section 5.8.
const RETRY_KEY: [u8; 16] = [
    0xbe, 0x0c, 0x69, 0x0b, 0x9f, 0x66, 0x57, 0x5a, 0x1d, 0x76, 0x6b, 0x54, 0xe3, 0x68, 0xc8, 0x4e,
];
const RETRY_NONCE: [u8; 12] = [
    0x46, 0x15, 0x99, 0xd3, 0x5d, 0x63, 0x2b, 0xf2, 0x23, 0x98, 0x25, 0xbb,
];
pub(super) const RETRY_TAG_BYTES: usize = 16;

/// RFC 9001 section 5.8: a tag over the original id and the Retry packet.
pub(super) fn retry_tag(orig_dst_cid: &[u8], packet: &[u8]) -> [u8; RETRY_TAG_BYTES] {
    let length = u8::try_from(orig_dst_cid.len()).expect("an id has at most 20 bytes");
    let pseudo = [&[length], orig_dst_cid, packet].concat();
    let key = aead::UnboundKey::new(&aead::AES_128_GCM, &RETRY_KEY).expect("16 bytes");
    let tag = aead::LessSafeKey::new(key)
        .seal_in_place_separate_tag(
            aead::Nonce::assume_unique_for_key(RETRY_NONCE),
            aead::Aad::from(pseudo),
            &mut [],
        )
        .expect("sealing nothing cannot fail");
    *tag.as_ref().first_chunk().expect("16 bytes")
}

/// RFC 9000 section 17.2.2: long header, type 0, version 1, with or without the fixed bit.
pub(crate) fn is_initial(packet: &[u8]) -> bool {
    packet.first().is_some_and(|first| first & 0xb0 == 0x80)
        && packet.get(1..5) == Some(&[0, 0, 0, 1])
}

/// A sequence of transport parameters without one of them. What cannot be parsed stays as it is, for
/// the engine to refuse.
pub(super) fn without_parameter(bytes: &[u8], unwanted: u64) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while !rest.is_empty() {
        let Some((id, used)) = varint(rest) else {
            break;
        };
        let Some((length, more)) = varint(&rest[used..]) else {
            break;
        };
        let end = usize::try_from(length)
            .ok()
            .and_then(|n| (used + more).checked_add(n));
        let Some((parameter, after)) = end.and_then(|end| rest.split_at_checked(end)) else {
            break;
        };
        if id != unwanted {
            out.extend_from_slice(parameter);
        }
        rest = after;
    }
    out.extend_from_slice(rest);
    out
}

/// RFC 9000 section 16.
fn varint(bytes: &[u8]) -> Option<(u64, usize)> {
    let first = *bytes.first()?;
    let length = 1 << (first >> 6);
    let tail = bytes.get(1..length)?;
    let value = tail
        .iter()
        .fold(u64::from(first & 0x3f), |n, byte| n << 8 | u64::from(*byte));
    Some((value, length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_initials_of_version_1_are_initials() {
        let initial = [0xc3, 0, 0, 0, 1, 8];
        assert!(is_initial(&initial));
        assert!(is_initial(&[0x83, 0, 0, 0, 1, 8]), "without the fixed bit");
        assert!(!is_initial(&[0xe3, 0, 0, 0, 1, 8]), "a Handshake packet");
        assert!(!is_initial(&[0xc3, 0, 0, 0, 2, 8]), "another version");
        assert!(!is_initial(&[0x43, 0, 0, 0, 1, 8]), "a short header");
        assert!(!is_initial(&[0xc3, 0, 0]) && !is_initial(&[]));
    }

    /// RFC 9001 appendix A.4.
    #[test]
    fn the_retry_tag_is_that_of_the_rfc() {
        let packet = [
            0xff, 0x00, 0x00, 0x00, 0x01, 0x00, 0x08, 0xf0, 0x67, 0xa5, 0x50, 0x2a, 0x42, 0x62,
            0xb5, 0x74, 0x6f, 0x6b, 0x65, 0x6e,
        ];
        let tag = [
            0x04, 0xa2, 0x65, 0xba, 0x2e, 0xff, 0x4d, 0x82, 0x90, 0x58, 0xfb, 0x3f, 0x0f, 0x24,
            0x96, 0xba,
        ];
        let id = [0x83, 0x94, 0xc8, 0xf0, 0x3e, 0x51, 0x57, 0x08];
        assert_eq!(retry_tag(&id, &packet), tag);
    }

    #[test]
    fn one_parameter_is_taken_out_and_malformed_ones_stay() {
        assert_eq!(
            without_parameter(&[1, 1, 9, 0x0e, 1, 5, 3, 0], 0x0e),
            [1, 1, 9, 3, 0]
        );
        assert_eq!(without_parameter(&[0x0e, 1, 5], 0x0e), []);
        assert_eq!(
            without_parameter(&[1, 1, 9, 0x0e, 9, 5], 0x0e),
            [1, 1, 9, 0x0e, 9, 5]
        );
        assert_eq!(without_parameter(&[0x40], 0x0e), [0x40]);
    }
}
