//! Resume tokens: what a Welcome issues so that the next Hello need not be verified by signature.
//!
//! Checking a MAC takes 0.2 us, a signature 52 us, a third of a handshake (T14). A token binds user,
//! device, expiry, the check of the signed token that all goes back to, and the connect counter of the session that
//! it was issued in; its key is a file, so a restart does not turn into a storm of logins.

use aws_lc_rs::hmac;
use bytes::{BufMut, Bytes, BytesMut};
use roadstead_proto::{DeviceId, ErrorCode, UserId};

/// The first byte of a token as it is issued.
const VERSION: u8 = 2;

/// Bytes of such a token: version, user, device, when it expires, when a signed token was checked, both in Unix
/// seconds, connect counter, and half an HMAC-SHA-256.
const LEN: usize = 1 + 8 + 4 + 8 + 8 + 8 + MAC_LEN;

/// Bytes of a token of the first version, which a server of 0.2 issued: user, device, expiry and MAC.
const LEN_OF_VERSION_1: usize = 8 + 4 + 8 + MAC_LEN;

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

/// What a token says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Claims {
    pub(crate) user: UserId,
    /// When the signed token was checked that this one goes back to, in Unix seconds.
    pub(crate) checked_s: u64,
    /// The connect counter of the session that it was issued in. A token of the first version does not say.
    pub(crate) counter: Option<u64>,
}

/// Issues and checks resume tokens.
pub(crate) struct ResumeTokens {
    keys: Vec<hmac::Key>,
    valid_for_s: u64,
    /// Since the check of the signed token.
    login_valid_for_s: u64,
}

impl std::fmt::Debug for ResumeTokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ResumeTokens").finish_non_exhaustive()
    }
}

impl ResumeTokens {
    pub(crate) fn new(keys: &ResumeKeys, valid_for_s: u64, login_valid_for_s: u64) -> Self {
        let key = |bytes: &[u8; 32]| hmac::Key::new(hmac::HMAC_SHA256, bytes);
        Self {
            keys: keys.0.iter().map(key).collect(),
            valid_for_s,
            login_valid_for_s,
        }
    }

    /// A token for a session of this device that begins now.
    pub(crate) fn issue(&self, claims: Claims, device: DeviceId, unix_s: u64) -> Bytes {
        let expires = unix_s.saturating_add(self.valid_for_s);
        let mut token = BytesMut::with_capacity(LEN);
        token.put_u8(VERSION);
        token.put_u64(claims.user.get());
        token.put_u32(device.get());
        token.put_u64(expires.min(self.login_ends(claims.checked_s)));
        token.put_u64(claims.checked_s);
        token.put_u64(claims.counter.unwrap_or(0));
        let mac = hmac::sign(&self.keys[0], &token);
        token.put_slice(&mac.as_ref()[..MAC_LEN]);
        token.freeze()
    }

    /// What a token says that is shown by this device.
    pub(crate) fn verify(
        &self,
        token: &[u8],
        device: DeviceId,
        unix_s: u64,
    ) -> Result<Claims, ErrorCode> {
        let is_known = matches!(token.len(), LEN | LEN_OF_VERSION_1);
        if !is_known || (token.len() == LEN && token[0] != VERSION) {
            return Err(ErrorCode::TokenInvalid);
        }
        let (said, mac) = token.split_at(token.len() - MAC_LEN);
        if !self.keys.iter().any(|key| is_signed(key, said, mac)) {
            return Err(ErrorCode::TokenInvalid);
        }
        let (of_device, expires, claims) = match said.len() + MAC_LEN {
            LEN => read(&said[1..]),
            _ => self.read_version_1(said),
        }
        .ok_or(ErrorCode::TokenInvalid)?;
        if of_device != device.get() {
            return Err(ErrorCode::TokenInvalid);
        }
        if expires.min(self.login_ends(claims.checked_s)) <= unix_s {
            return Err(ErrorCode::TokenExpired);
        }
        Ok(claims)
    }

    /// When a signed token has to be shown again that was checked then.
    fn login_ends(&self, checked_s: u64) -> u64 {
        checked_s.saturating_add(self.login_valid_for_s)
    }

    /// Such a token does not say when a signed one was checked: as late as it was issued itself.
    fn read_version_1(&self, said: &[u8]) -> Option<(u32, u64, Claims)> {
        let mut said = said;
        let (user, device, expires) = (
            take_u64(&mut said)?,
            take_u32(&mut said)?,
            take_u64(&mut said)?,
        );
        let claims = Claims {
            user: UserId::new(user).ok()?,
            checked_s: expires.saturating_sub(self.valid_for_s),
            counter: None,
        };
        Some((device, expires, claims))
    }
}

/// Device, expiry and the rest of what a token says behind its version.
fn read(mut said: &[u8]) -> Option<(u32, u64, Claims)> {
    let said = &mut said;
    let (user, device, expires) = (take_u64(said)?, take_u32(said)?, take_u64(said)?);
    let claims = Claims {
        user: UserId::new(user).ok()?,
        checked_s: take_u64(said)?,
        counter: Some(take_u64(said)?),
    };
    Some((device, expires, claims))
}

fn take_u64(bytes: &mut &[u8]) -> Option<u64> {
    let (first, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(u64::from_be_bytes(*first))
}

fn take_u32(bytes: &mut &[u8]) -> Option<u32> {
    let (first, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(u32::from_be_bytes(*first))
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
        ResumeTokens::new(&keys, 100, 1_000)
    }

    fn device() -> DeviceId {
        DeviceId::new(9).expect("not 0")
    }

    /// User 7, checked then, in a session with the connect counter 3.
    fn checked_at(checked_s: u64) -> Claims {
        Claims {
            user: UserId::new(7).expect("not 0"),
            checked_s,
            counter: Some(3),
        }
    }

    #[test]
    fn t14_an_old_key_is_accepted_as_long_as_it_is_in_the_file() {
        let (claims, device) = (checked_at(1_000), device());
        let (old, new) = ([1; 32], [2; 32]);
        let token = tokens(&[old]).issue(claims, device, 1_000);
        let both = tokens(&[new, old]);
        assert_eq!(both.verify(&token, device, 1_000), Ok(claims));
        let fresh = both.issue(claims, device, 1_000);
        let only_new = tokens(&[new]);
        assert_eq!(only_new.verify(&fresh, device, 1_000), Ok(claims));
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
        let (claims, device) = (checked_at(1_000), device());
        let token = tokens.issue(claims, device, 1_000);
        assert_eq!(token.len(), 53);
        assert_eq!(tokens.verify(&token, device, 1_099), Ok(claims));
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
    fn df15_t14_a_login_ends_however_often_it_is_resumed() {
        let tokens = tokens(&[[1; 32]]);
        let (mut claims, device) = (checked_at(5_000), device());
        let mut resumed = 0;
        let mut now = 5_000;
        let refused = loop {
            let token = tokens.issue(claims, device, now);
            now += 90;
            match tokens.verify(&token, device, now) {
                Ok(said) => claims = said,
                Err(code) => break code,
            }
            resumed += 1;
        };
        assert_eq!(refused, ErrorCode::TokenExpired);
        assert_eq!(
            (resumed, now),
            (11, 6_080),
            "1,000 s after the check at most"
        );
        // A server that is told to believe for less time believes older tokens no longer.
        let token = tokens.issue(claims, device, 5_500);
        let keys = ResumeKeys::from_bytes(&[1; 32]).expect("a key");
        let stricter = ResumeTokens::new(&keys, 100, 500);
        assert_eq!(tokens.verify(&token, device, 5_501), Ok(claims));
        let expired = Err(ErrorCode::TokenExpired);
        assert_eq!(stricter.verify(&token, device, 5_501), expired);
    }

    #[test]
    fn df15_t14_a_token_of_the_first_version_was_checked_when_it_was_issued() {
        let tokens = tokens(&[[1; 32]]);
        let mut token = BytesMut::new();
        token.put_u64(7);
        token.put_u32(device().get());
        token.put_u64(5_100);
        let mac = hmac::sign(&tokens.keys[0], &token);
        token.put_slice(&mac.as_ref()[..MAC_LEN]);
        let claims = Claims {
            counter: None,
            ..checked_at(5_000)
        };
        assert_eq!(tokens.verify(&token, device(), 5_099), Ok(claims));
        let expired = Err(ErrorCode::TokenExpired);
        assert_eq!(tokens.verify(&token, device(), 5_100), expired);
        let other = DeviceId::new(8).expect("not 0");
        let invalid = Err(ErrorCode::TokenInvalid);
        assert_eq!(tokens.verify(&token, other, 5_000), invalid);
        token[35] ^= 1;
        assert_eq!(tokens.verify(&token, device(), 5_000), invalid);
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let tokens = tokens(&[[1; 32]]);
        let device = device();
        let token = tokens.issue(checked_at(1_000), device, 1_000);
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
