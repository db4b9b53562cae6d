//! rustls on the side of the peers that use it: a ticket store that tells when one came.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use anyhow::Result;
use rustls::{
    NamedGroup, RootCertStore,
    client::{
        ClientSessionMemoryCache, ClientSessionStore, Resumption, Tls12ClientSessionValue,
        Tls13ClientSessionValue,
    },
    crypto::aws_lc_rs::default_provider,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};
use tokio::sync::Notify;

use crate::{identity::Identity, script::ALPN};

/// rustls's own store, and how many tickets came.
pub(super) struct Tickets {
    inner: ClientSessionMemoryCache,
    count: AtomicUsize,
    came: Notify,
}

impl Tickets {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            inner: ClientSessionMemoryCache::new(8),
            count: AtomicUsize::new(0),
            came: Notify::new(),
        })
    }

    /// Waits for the first one.
    pub(super) async fn wait(&self) {
        while self.count.load(Ordering::Acquire) == 0 {
            self.came.notified().await;
        }
    }
}

impl fmt::Debug for Tickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tickets")
            .field("count", &self.count)
            .finish_non_exhaustive()
    }
}

impl ClientSessionStore for Tickets {
    fn set_kx_hint(&self, name: ServerName<'static>, group: NamedGroup) {
        self.inner.set_kx_hint(name, group);
    }

    fn kx_hint(&self, name: &ServerName<'_>) -> Option<NamedGroup> {
        self.inner.kx_hint(name)
    }

    fn set_tls12_session(&self, name: ServerName<'static>, value: Tls12ClientSessionValue) {
        self.inner.set_tls12_session(name, value);
    }

    fn tls12_session(&self, name: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        self.inner.tls12_session(name)
    }

    fn remove_tls12_session(&self, name: &ServerName<'static>) {
        self.inner.remove_tls12_session(name);
    }

    fn insert_tls13_ticket(&self, name: ServerName<'static>, value: Tls13ClientSessionValue) {
        self.inner.insert_tls13_ticket(name, value);
        self.count.fetch_add(1, Ordering::Release);
        self.came.notify_one();
    }

    fn take_tls13_ticket(&self, name: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.inner.take_tls13_ticket(name)
    }
}

/// A client that trusts the identity and keeps tickets.
pub(super) fn client(identity: &Identity) -> Result<(rustls::ClientConfig, Arc<Tickets>)> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(identity.chain.as_bytes())?)?;
    let tickets = Tickets::new();
    let mut config = rustls::ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![ALPN.into()];
    config.resumption = Resumption::store(tickets.clone());
    Ok((config, tickets))
}

/// A server with the identity, whose sessions can be resumed.
pub(super) fn server(identity: &Identity) -> Result<rustls::ServerConfig> {
    let chain = vec![CertificateDer::from_pem_slice(identity.chain.as_bytes())?];
    let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes())?;
    let mut config = rustls::ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![ALPN.into()];
    Ok(config)
}
