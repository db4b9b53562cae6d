//! HKDF for the handshake, on the provider's HMAC with keys that are made ready once.
//!
//! The provider's own HKDF is stateless: an extracted key is extracted again for every output that is
//! expanded from it, and a key's two padded blocks are hashed each time. A handshake takes some thirty outputs
//! from a dozen keys, so with a ready HMAC key for each it hashes about half as much. And
//! without a pre-shared key TLS 1.3 starts from a constant (RFC 8446 section 7.1): that key is made once.

use std::sync::OnceLock;

use aws_lc_rs::hmac;
use roadstead_quic::crypto::wipe;
use rustls::crypto::{
    hmac::Tag,
    tls13::{Hkdf, HkdfExpander, OkmBlock, OutputLengthError},
};

/// HKDF-Extract (RFC 5869 section 2.2): HMAC with the salt as its key.
pub(crate) fn extract(hash: hmac::Algorithm, salt: &[u8], secret: &[u8]) -> hmac::Tag {
    hmac::sign(&hmac::Key::new(hash, salt), secret)
}

/// The same as a key that is ready for HKDF-Expand.
fn extract_key(hash: hmac::Algorithm, salt: &[u8], secret: &[u8]) -> hmac::Key {
    hmac::Key::new(hash, extract(hash, salt, secret).as_ref())
}

/// HKDF-Expand (RFC 5869 section 2.3). The info comes in parts. False, and nothing written, if the
/// output is longer than 255 hashes.
pub(crate) fn expand(key: &hmac::Key, info: &[&[u8]], out: &mut [u8]) -> bool {
    let hash_len = key.algorithm().tag_len();
    if out.len() > 255 * hash_len {
        return false;
    }
    let mut before: Option<hmac::Tag> = None;
    for (n, block) in (1..=u8::MAX).zip(out.chunks_mut(hash_len)) {
        let mut context = hmac::Context::with_key(key);
        if let Some(before) = &before {
            context.update(before.as_ref());
        }
        info.iter().for_each(|part| context.update(part));
        context.update(&[n]);
        let tag = context.sign();
        block.copy_from_slice(&tag.as_ref()[..block.len()]);
        before = Some(tag);
    }
    true
}

/// The key schedule's HKDF with one hash.
pub(super) struct ReadyHkdf {
    hash: &'static hmac::Algorithm,
    /// What a schedule without a pre-shared key starts from.
    early: OnceLock<hmac::Key>,
}

pub(super) static SHA256: ReadyHkdf = ReadyHkdf::new(&hmac::HMAC_SHA256);
pub(super) static SHA384: ReadyHkdf = ReadyHkdf::new(&hmac::HMAC_SHA384);

/// As many zeroes as any hash has bytes.
const ZEROES: [u8; OkmBlock::MAX_LEN] = [0; OkmBlock::MAX_LEN];

impl ReadyHkdf {
    const fn new(hash: &'static hmac::Algorithm) -> Self {
        Self {
            hash,
            early: OnceLock::new(),
        }
    }

    /// RFC 5869 section 2.2: no salt is as many zeroes as the hash has bytes.
    fn extract(&self, salt: Option<&[u8]>, secret: &[u8]) -> hmac::Key {
        let salt = salt.unwrap_or(&ZEROES[..self.hash.tag_len()]);
        extract_key(*self.hash, salt, secret)
    }
}

impl Hkdf for ReadyHkdf {
    fn extract_from_zero_ikm(&self, salt: Option<&[u8]>) -> Box<dyn HkdfExpander> {
        let zeroes = &ZEROES[..self.hash.tag_len()];
        Box::new(Expander(match salt {
            None => self
                .early
                .get_or_init(|| self.extract(None, zeroes))
                .clone(),
            salt => self.extract(salt, zeroes),
        }))
    }

    fn extract_from_secret(&self, salt: Option<&[u8]>, secret: &[u8]) -> Box<dyn HkdfExpander> {
        Box::new(Expander(self.extract(salt, secret)))
    }

    fn expander_for_okm(&self, okm: &OkmBlock) -> Box<dyn HkdfExpander> {
        Box::new(Expander(hmac::Key::new(*self.hash, okm.as_ref())))
    }

    fn hmac_sign(&self, key: &OkmBlock, message: &[u8]) -> Tag {
        let key = hmac::Key::new(*self.hash, key.as_ref());
        Tag::new(hmac::sign(&key, message).as_ref())
    }
}

struct Expander(hmac::Key);

impl HkdfExpander for Expander {
    fn expand_slice(&self, info: &[&[u8]], output: &mut [u8]) -> Result<(), OutputLengthError> {
        match expand(&self.0, info, output) {
            true => Ok(()),
            false => Err(OutputLengthError),
        }
    }

    fn expand_block(&self, info: &[&[u8]]) -> OkmBlock {
        let mut block = [0; OkmBlock::MAX_LEN];
        let block = &mut block[..self.hash_len()];
        assert!(expand(&self.0, info, block), "one hash is not too long");
        let okm = OkmBlock::new(block);
        wipe(block);
        okm
    }

    fn hash_len(&self) -> usize {
        self.0.algorithm().tag_len()
    }
}

#[cfg(test)]
mod tests {
    use rustls::{CipherSuite, crypto::CryptoProvider};

    use super::*;

    /// RFC 5869 appendix A.2: longer inputs and outputs.
    #[test]
    fn rfc5869_a2() {
        let [ikm, salt, info] =
            [0, 0x60, 0xb0].map(|first| (first..=first + 0x4f).collect::<Vec<u8>>());
        let key = extract_key(hmac::HMAC_SHA256, &salt, &ikm);
        let mut out = [0; 82];
        assert!(expand(&key, &[&info[..7], &info[7..]], &mut out));
        let expected = "b11e398dc80327a1c8e7f78c596a49344f012eda2d4efad8a050cc4c19afa97c\
                        59045a99cac7827271cb41c65e590e09da3275600c2f09b8367793a9aca3db71\
                        cc30c58179ec3e87c14c01d5c1f3434f1d87";
        assert_eq!(hex(&out), expected);
    }

    #[test]
    fn more_than_255_hashes_are_refused() {
        let key = extract_key(hmac::HMAC_SHA256, b"salt", b"secret");
        assert!(expand(&key, &[], &mut [0; 255 * 32]));
        assert!(!expand(&key, &[], &mut [0; 255 * 32 + 1]));
    }

    #[test]
    fn it_is_the_hkdf_of_the_library() {
        for (ours, library) in [
            (&SHA256, CipherSuite::TLS13_AES_128_GCM_SHA256),
            (&SHA384, CipherSuite::TLS13_AES_256_GCM_SHA384),
        ] {
            let library = library_hkdf(library);
            let secret = [7; 48];
            let okm = OkmBlock::new(&secret[..ours.hash.tag_len()]);
            let both: [[Box<dyn HkdfExpander>; 5]; 2] = [ours as &dyn Hkdf, library].map(|hkdf| {
                [
                    hkdf.extract_from_zero_ikm(None),
                    hkdf.extract_from_zero_ikm(Some(b"salt")),
                    hkdf.extract_from_secret(None, &secret),
                    hkdf.extract_from_secret(Some(b"salt"), &secret),
                    hkdf.expander_for_okm(&okm),
                ]
            });
            for (ours, library) in both[0].iter().zip(&both[1]) {
                for length in [0, 1, 12, 16, 32, 47, 48, 64, 200] {
                    let mut outs = [vec![0; length], vec![0; length]];
                    for (hkdf, out) in [ours, library].into_iter().zip(&mut outs) {
                        let made = hkdf.expand_slice(&[b"a", b"", b"label"], out);
                        assert!(made.is_ok());
                    }
                    assert_eq!(outs[0], outs[1]);
                }
                let blocks = [ours, library].map(|hkdf| hkdf.expand_block(&[b"block"]));
                assert_eq!(blocks[0].as_ref(), blocks[1].as_ref());
                assert_eq!(ours.hash_len(), library.hash_len());
            }
            let tags = [ours as &dyn Hkdf, library].map(|hkdf| hkdf.hmac_sign(&okm, b"message"));
            assert_eq!(tags[0].as_ref(), tags[1].as_ref());
        }
    }

    fn library_hkdf(suite: CipherSuite) -> &'static dyn Hkdf {
        let provider: CryptoProvider = rustls::crypto::aws_lc_rs::default_provider();
        let suites = provider.cipher_suites.iter();
        let mut suites = suites.filter(|s| s.suite() == suite);
        let suite = suites.next().and_then(|suite| suite.tls13());
        suite.expect("a suite of the library").hkdf_provider
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}
