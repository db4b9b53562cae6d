//! The certificate in force, which can be replaced while connections are open.

use std::sync::{Arc, RwLock};

use rustls::{
    pki_types::{PrivateKeyDer, pem::PemObject},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

use super::{certificates, provider};
use crate::error::Error;

/// Shows the same certificate to every client. The lock is taken once per handshake, never per message.
#[derive(Debug)]
pub(super) struct Certificate(RwLock<Arc<CertifiedKey>>);

impl Certificate {
    /// From a chain and its key as PEM. A key that does not belong to the chain is an error.
    pub(super) fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, Error> {
        Ok(Self(RwLock::new(certified(chain, key)?)))
    }

    /// Shows another one from the next handshake on. After an error the old one is still shown.
    pub(super) fn replace(&self, chain: &[u8], key: &[u8]) -> Result<(), Error> {
        let new = certified(chain, key)?;
        *self.0.write().unwrap_or_else(|e| e.into_inner()) = new;
        Ok(())
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.read().unwrap_or_else(|e| e.into_inner()).clone())
    }
}

fn certified(chain: &[u8], key: &[u8]) -> Result<Arc<CertifiedKey>, Error> {
    let chain = certificates(chain)?;
    let key =
        PrivateKeyDer::from_pem_slice(key).map_err(|e| Error::Tls(format!("private key: {e}")))?;
    Ok(Arc::new(CertifiedKey::from_der(chain, key, &provider())?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pem(name: &str) -> (String, String) {
        let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
        (made.cert.pem(), made.signing_key.serialize_pem())
    }

    fn shown(certificate: &Certificate) -> Vec<u8> {
        certificate.0.read().unwrap().cert[0].to_vec()
    }

    #[test]
    fn a_bad_replacement_leaves_the_old_one() {
        let (old, old_key) = pem("old.test");
        let (new, new_key) = pem("new.test");
        let certificate = Certificate::from_pem(old.as_bytes(), old_key.as_bytes()).unwrap();
        let first = shown(&certificate);
        let bad = [
            ("", new_key.as_str()),
            ("no PEM", &new_key),
            (&new, ""),
            (&new, "no PEM"),
            // Read between the writing of the one and of the other.
            (&new, &old_key),
        ];
        for (chain, key) in bad {
            assert!(
                certificate
                    .replace(chain.as_bytes(), key.as_bytes())
                    .is_err()
            );
            assert_eq!(shown(&certificate), first);
        }
        certificate
            .replace(new.as_bytes(), new_key.as_bytes())
            .unwrap();
        assert_ne!(shown(&certificate), first);
    }
}
