//! How a client is set up.

use std::fmt;
use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use roadstead_proto::DeviceId;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use crate::error::{ClientError, CredentialError};
use crate::journal::{Journal, MemoryJournal};

/// Which servers are believed to be the service.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Trust {
    /// Certificates that chain to one of these roots and name the server.
    Roots(Arc<RootCertStore>),
    /// Exactly these certificates, whatever name they bear: for self-signed ones.
    Pinned(Vec<CertificateDer<'static>>),
}

impl Trust {
    /// Pins the certificates of a PEM file.
    ///
    /// # Errors
    /// [`ClientError::Tls`] if there are none.
    pub fn pinned_file(path: impl AsRef<Path>) -> Result<Self, ClientError> {
        Ok(Self::Pinned(read_certificates(path.as_ref())?))
    }

    /// Trusts the roots of a PEM file.
    ///
    /// # Errors
    /// [`ClientError::Tls`] if there are none, or one that can not be a root.
    pub fn roots_file(path: impl AsRef<Path>) -> Result<Self, ClientError> {
        let mut roots = RootCertStore::empty();
        for certificate in read_certificates(path.as_ref())? {
            roots
                .add(certificate)
                .map_err(|error| ClientError::Tls(error.to_string()))?;
        }
        Ok(Self::Roots(Arc::new(roots)))
    }
}

fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, ClientError> {
    let refuse = |why: &dyn fmt::Display| ClientError::Tls(format!("{}: {why}", path.display()));
    let certificates: Vec<_> = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|error| refuse(&error))?;
    if certificates.is_empty() {
        return Err(refuse(&"no certificate in it"));
    }
    Ok(certificates)
}

/// The future of a [`CredentialProvider`].
pub type TokenFuture = Pin<Box<dyn Future<Output = Result<String, CredentialError>> + Send>>;

/// Where signed tokens come from. Asked at the first connection, and whenever the server no longer
/// takes what it gave to resume with.
pub trait CredentialProvider: Send + Sync + 'static {
    /// A token that is valid now.
    fn token(&self) -> TokenFuture;
}

impl<F, R> CredentialProvider for F
where
    F: Fn() -> R + Send + Sync + 'static,
    R: Future<Output = Result<String, CredentialError>> + Send + 'static,
{
    fn token(&self) -> TokenFuture {
        Box::pin(self())
    }
}

/// Everything a client needs to know before it starts.
///
/// ```no_run
/// use roadstead_client::{Config, FileJournal, Trust};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let config = Config::new("chat.example.org:4433", Trust::pinned_file("cert.pem")?)
///     .token("eyJhbGciOiJFZERTQSJ9…")
///     .journal(FileJournal::open("device.journal")?);
/// # Ok(())
/// # }
/// ```
pub struct Config {
    pub(crate) servers: Vec<String>,
    pub(crate) server_name: Option<String>,
    pub(crate) trust: Trust,
    pub(crate) credentials: Option<Arc<dyn CredentialProvider>>,
    pub(crate) journal: Box<dyn Journal>,
    pub(crate) device: Option<DeviceId>,
    pub(crate) reconnect_min: Duration,
    pub(crate) reconnect_max: Duration,
    pub(crate) keep_unconfirmed: Duration,
    pub(crate) send_deadline: Duration,
}

impl Config {
    /// A client of the server at `host:port`, with a new device that lasts as long as the process.
    #[must_use]
    pub fn new(server: impl Into<String>, trust: Trust) -> Self {
        Self {
            servers: vec![server.into()],
            server_name: None,
            trust,
            credentials: None,
            journal: Box::new(MemoryJournal::new()),
            device: None,
            reconnect_min: Duration::from_millis(500),
            reconnect_max: Duration::from_secs(60),
            keep_unconfirmed: Duration::from_secs(7 * 24 * 3600),
            send_deadline: Duration::ZERO,
        }
    }

    /// Another address of the same service, tried when those before it can not be reached.
    #[must_use]
    pub fn server(mut self, server: impl Into<String>) -> Self {
        self.servers.push(server.into());
        self
    }

    /// The name that the server's certificate must bear, if it is not the host of its address.
    #[must_use]
    pub fn server_name(mut self, name: impl Into<String>) -> Self {
        self.server_name = Some(name.into());
        self
    }

    /// A token that does not change. A client that runs for longer than it is valid needs
    /// [`credentials`](Self::credentials).
    #[must_use]
    pub fn token(self, token: impl Into<String>) -> Self {
        let token = token.into();
        self.credentials(move || std::future::ready(Ok(token.clone())))
    }

    /// Where tokens come from.
    #[must_use]
    pub fn credentials(mut self, provider: impl CredentialProvider) -> Self {
        self.credentials = Some(Arc::new(provider));
        self
    }

    /// Where the device keeps what it must not forget.
    #[must_use]
    pub fn journal(mut self, journal: impl Journal) -> Self {
        self.journal = Box::new(journal);
        self
    }

    /// The device's id, if the application has one. Without it the journal's is used, and an empty
    /// journal gets a random one. With an empty journal the client asks the server which numbers this
    /// device has used and continues above them (R13).
    #[must_use]
    pub fn device(mut self, device: DeviceId) -> Self {
        self.device = Some(device);
        self
    }

    /// The shortest and the longest delay between attempts to connect, before jitter.
    #[must_use]
    pub fn reconnect_delay(mut self, min: Duration, max: Duration) -> Self {
        self.reconnect_min = min;
        self.reconnect_max = max;
        self
    }

    /// How long an unconfirmed message is kept and sent again; 7 days by default.
    #[must_use]
    pub fn keep_unconfirmed(mut self, time: Duration) -> Self {
        self.keep_unconfirmed = time;
        self
    }

    /// How long the server may try to commit a message before it refuses it for now; the server's
    /// default if zero.
    #[must_use]
    pub fn send_deadline(mut self, time: Duration) -> Self {
        self.send_deadline = time;
        self
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("servers", &self.servers)
            .field("server_name", &self.server_name)
            .field("device", &self.device)
            .field("journal", &self.journal)
            .finish_non_exhaustive()
    }
}
