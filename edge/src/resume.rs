//! Resume tokens: what a Welcome issues so that the next Hello need not be verified by signature.
//!
//! Checking a MAC takes 0.2 us, a signature 52 us, a third of a handshake (T14). A token binds user,
//! device and expiry; its key is a file, so a restart does not turn into a storm of logins.

use aws_lc_rs::hmac;
use bytes::{BufMut, Bytes, BytesMut};
use roadstead_proto::{DeviceId, ErrorCode, UserId};

/// Bytes of a token: user, device, expiry in Unix seconds, and half an HMAC-SHA-256.
const LEN: usize = 8 + 4 + 8 + MAC_LEN;
const MAC_LEN: usize = 16;

/// Keys that are good at once: the one that issues, and some whose tokens have not expired.
const KEYS_MAX: usize = 4;

/// Keys of resume tokens: the first issues, all are accepted.
pub(crate) struct ResumeKeys(Vec<[u8; 32]>);

impl ResumeKeys {
    /// Reads a key file: 32 bytes per key, the issuing one first.
    pub(crate) fn from_bytes(bytes: &[u8]) -> anyhow::Result<Self> {
        let (keys, rest) = bytes.as_chunks();
        anyhow::ensure!(
            (1..=KEYS_MAX).contains(&keys.len()) && rest.is_empty(),
            "resume keys are 1 to {KEYS_MAX} times 32 bytes, not {} bytes",
            bytes.len()
        );
        Ok(Self(keys.to_vec()))
    }
}

/// Issues and checks resume tokens.
pub(crate) struct ResumeTokens {
    keys: Vec<hmac::Key>,
    valid_for_s: u64,
}

impl std::fmt::Debug for ResumeTokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ResumeTokens").finish_non_exhaustive()
    }
}

impl ResumeTokens {
    pub(crate) fn new(keys: &ResumeKeys, valid_for_s: u64) -> Self {
        let key = |bytes: &[u8; 32]| hmac::Key::new(hmac::HMAC_SHA256, bytes);
        Self {
            keys: keys.0.iter().map(key).collect(),
            valid_for_s,
        }
    }

    pub(crate) fn issue(&self, user: UserId, device: DeviceId, unix_s: u64) -> Bytes {
        let mut token = BytesMut::with_capacity(LEN);
        token.put_u64(user.get());
        token.put_u32(device.get());
        token.put_u64(unix_s + self.valid_for_s);
        let mac = hmac::sign(&self.keys[0], &token);
        token.put_slice(&mac.as_ref()[..MAC_LEN]);
        token.freeze()
    }

    pub(crate) fn verify(
        &self,
        token: &[u8],
        device: DeviceId,
        unix_s: u64,
    ) -> Result<UserId, ErrorCode> {
        let (claims, mac) = token
            .split_at_checked(LEN - MAC_LEN)
            .ok_or(ErrorCode::TokenInvalid)?;
        if !self.keys.iter().any(|key| is_signed(key, claims, mac)) {
            return Err(ErrorCode::TokenInvalid);
        }
        let user = u64::from_be_bytes(claims[..8].try_into().expect("8 bytes"));
        let of_device = u32::from_be_bytes(claims[8..12].try_into().expect("4 bytes"));
        let expires = u64::from_be_bytes(claims[12..].try_into().expect("8 bytes"));
        if of_device != device.get() {
            return Err(ErrorCode::TokenInvalid);
        }
        if expires <= unix_s {
            return Err(ErrorCode::TokenExpired);
        }
        UserId::new(user).map_err(|_| ErrorCode::TokenInvalid)
    }
}

fn is_signed(key: &hmac::Key, claims: &[u8], mac: &[u8]) -> bool {
    let expected = hmac::sign(key, claims);
    let expected = &expected.as_ref()[..MAC_LEN];
    aws_lc_rs::constant_time::verify_slices_are_equal(expected, mac).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(keys: &[[u8; 32]]) -> ResumeTokens {
        let keys = ResumeKeys::from_bytes(&keys.concat()).expect("keys");
        ResumeTokens::new(&keys, 100)
    }

    #[test]
    fn t14_an_old_key_is_accepted_as_long_as_it_is_in_the_file() {
        let user = UserId::new(7).expect("not 0");
        let device = DeviceId::new(9).expect("not 0");
        let (old, new) = ([1; 32], [2; 32]);
        let token = tokens(&[old]).issue(user, device, 1_000);
        let both = tokens(&[new, old]);
        assert_eq!(both.verify(&token, device, 1_000), Ok(user));
        let fresh = both.issue(user, device, 1_000);
        let only_new = tokens(&[new]);
        assert_eq!(only_new.verify(&fresh, device, 1_000), Ok(user));
        let refused = Err(ErrorCode::TokenInvalid);
        assert_eq!(only_new.verify(&token, device, 1_000), refused);
    }

    #[test]
    fn a_key_file_of_the_wrong_size_is_refused() {
        for length in [0, 31, 33, 32 * (KEYS_MAX + 1)] {
            assert!(
                ResumeKeys::from_bytes(&vec![0; length]).is_err(),
                "{length}"
            );
        }
    }

    #[test]
    fn t14_a_token_is_bound_to_user_device_and_time() {
        let tokens = tokens(&[[1; 32]]);
        let (user, device) = (
            UserId::new(7).expect("not 0"),
            DeviceId::new(9).expect("not 0"),
        );
        let token = tokens.issue(user, device, 1_000);
        assert_eq!(tokens.verify(&token, device, 1_099), Ok(user));
        assert_eq!(
            tokens.verify(&token, device, 1_100),
            Err(ErrorCode::TokenExpired)
        );
        let other = DeviceId::new(8).expect("not 0");
        assert_eq!(
            tokens.verify(&token, other, 1_000),
            Err(ErrorCode::TokenInvalid)
        );
        let stranger = self::tokens(&[[2; 32]]);
        assert_eq!(
            stranger.verify(&token, device, 1_000),
            Err(ErrorCode::TokenInvalid)
        );
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let tokens = tokens(&[[1; 32]]);
        let (user, device) = (
            UserId::new(7).expect("not 0"),
            DeviceId::new(9).expect("not 0"),
        );
        let token = tokens.issue(user, device, 1_000);
        for index in 0..token.len() {
            let mut forged = token.to_vec();
            forged[index] ^= 1;
            assert_eq!(
                tokens.verify(&forged, device, 1_000),
                Err(ErrorCode::TokenInvalid)
            );
            assert_eq!(
                tokens.verify(&token[..index], device, 1_000),
                Err(ErrorCode::TokenInvalid)
            );
        }
    }
}
