//! aws-lc-rs behind the engine's `Aead` seam: primitives on raw keys (T3, T4).
//!
//! A key is expanded for each packet, which spares an idle session the half kilobyte of an expanded key,
//! but for the keys of the connections that speak often, which are kept ready.

use std::{cell::RefCell, fmt};

use aws_lc_rs::{aead, hmac};
use roadstead_quic::crypto::{Aead, Labelled, Suite};

use super::ready_keys::ReadyKeys;
use crate::tls::hkdf::{expand, extract};

/// The provider's primitives, and the expanded keys of one shard's busiest connections.
#[derive(Default)]
pub struct AwsLc {
    packet: RefCell<ReadyKeys<aead::LessSafeKey>>,
    header: RefCell<ReadyKeys<aead::quic::HeaderProtectionKey>>,
}

impl fmt::Debug for AwsLc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AwsLc(..)")
    }
}

fn packet_key(suite: Suite, key: &[u8]) -> aead::LessSafeKey {
    let algorithm = match suite {
        Suite::Aes128Gcm => &aead::AES_128_GCM,
        Suite::Aes256Gcm => &aead::AES_256_GCM,
        Suite::ChaCha20Poly1305 => &aead::CHACHA20_POLY1305,
    };
    let key = aead::UnboundKey::new(algorithm, key).expect("the engine knows the length of keys");
    aead::LessSafeKey::new(key)
}

fn header_key(suite: Suite, key: &[u8]) -> aead::quic::HeaderProtectionKey {
    let algorithm = match suite {
        Suite::Aes128Gcm => &aead::quic::AES_128,
        Suite::Aes256Gcm => &aead::quic::AES_256,
        Suite::ChaCha20Poly1305 => &aead::quic::CHACHA20,
    };
    aead::quic::HeaderProtectionKey::new(algorithm, key)
        .expect("the engine knows the length of keys")
}

fn mask_of(key: &aead::quic::HeaderProtectionKey, sample: &[u8; 16]) -> [u8; 5] {
    key.new_mask(sample).expect("a sample has 16 bytes")
}

fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    bytes.try_into().expect("the length of the primitive")
}

impl Aead for AwsLc {
    type MaskKey = aead::quic::HeaderProtectionKey;

    fn mask_key(&self, key: &[u8; 16]) -> Self::MaskKey {
        header_key(Suite::Aes128Gcm, key)
    }

    fn mask(&self, key: &Self::MaskKey, sample: &[u8; 16]) -> [u8; 5] {
        mask_of(key, sample)
    }

    fn seal(
        &self,
        suite: Suite,
        key: &[u8],
        nonce: &[u8; 12],
        aad: &[u8],
        data: &mut [u8],
    ) -> [u8; 16] {
        let nonce = aead::Nonce::assume_unique_for_key(*nonce);
        let seal = |key: &aead::LessSafeKey| {
            key.seal_in_place_separate_tag(nonce, aead::Aad::from(aad), data)
                .expect("a packet is shorter than any limit of the cipher")
        };
        let mut ready = self.packet.borrow_mut();
        let tag = ready.with(suite, key, || packet_key(suite, key), seal);
        array(tag.as_ref())
    }

    fn open(
        &self,
        suite: Suite,
        key: &[u8],
        nonce: &[u8; 12],
        aad: &[u8],
        data: &mut [u8],
    ) -> bool {
        let nonce = aead::Nonce::assume_unique_for_key(*nonce);
        let open = |key: &aead::LessSafeKey| {
            let aad = aead::Aad::from(aad);
            key.open_in_place(nonce, aad, data).is_ok()
        };
        let mut ready = self.packet.borrow_mut();
        ready.with(suite, key, || packet_key(suite, key), open)
    }

    fn header_mask(&self, suite: Suite, key: &[u8], sample: &[u8; 16]) -> [u8; 5] {
        let mut ready = self.header.borrow_mut();
        let expand = || header_key(suite, key);
        ready.with(suite, key, expand, |key| mask_of(key, sample))
    }

    fn forget(&self, key: &[u8]) {
        self.packet.borrow_mut().forget(key);
        self.header.borrow_mut().forget(key);
    }

    fn hkdf_extract(&self, salt: &[u8], secret: &[u8]) -> [u8; 32] {
        array(extract(hmac::HMAC_SHA256, salt, secret).as_ref())
    }

    fn hkdf_expand_labels(&self, suite: Suite, secret: &[u8], outputs: &mut [Labelled<'_>]) {
        let hash = match suite {
            Suite::Aes256Gcm => hmac::HMAC_SHA384,
            Suite::Aes128Gcm | Suite::ChaCha20Poly1305 => hmac::HMAC_SHA256,
        };
        let key = hmac::Key::new(hash, secret);
        for (label, out) in outputs {
            // RFC 8446 section 7.1.
            let length = u16::try_from(out.len()).expect("some dozen bytes");
            let label_length = u8::try_from(6 + label.len()).expect("a short label");
            let length = length.to_be_bytes();
            let info: [&[u8]; 5] = [&length, &[label_length], b"tls13 ", label, &[0]];
            assert!(expand(&key, &info, out), "some dozen bytes");
        }
    }

    fn hmac(&self, key: &[u8; 32], parts: &[&[u8]]) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, key));
        parts.iter().for_each(|part| context.update(part));
        array(context.sign().as_ref())
    }
}
