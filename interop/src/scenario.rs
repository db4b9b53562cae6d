//! The features of the matrix: what is done for each, and what must have been observed.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::{
    identity::Identity,
    peers::Implementation,
    script::{ALPN, Client, ClientOptions, End, Facts, Order, Role, Server, ServerOptions, Step},
    tap::Tap,
};

/// A row of the matrix.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Feature {
    /// RFC 9001 4.
    Handshake,
    /// RFC 9000 2.
    Streams,
    /// RFC 9000 4.
    Transfer,
    /// RFC 9221.
    Datagrams,
    /// RFC 9001 6, begun by Roadstead.
    KeyUpdate,
    /// RFC 9001 6, begun by the peer.
    KeyUpdateByPeer,
    /// RFC 9000 8.1.2.
    Retry,
    /// RFC 9000 9.3: the client does not know.
    Rebind,
    /// RFC 9000 9.2: the client moves on purpose.
    Migration,
    /// RFC 8446 2.2.
    Resumption,
    /// RFC 9000 6.
    VersionNegotiation,
    /// RFC 9000 10.3.
    StatelessReset,
    /// RFC 9000 10.2.
    CloseByClient,
    /// RFC 9000 10.2.
    CloseByServer,
}

impl Feature {
    /// All, in the order of the matrix.
    pub const ALL: [Self; 14] = [
        Self::Handshake,
        Self::Streams,
        Self::Transfer,
        Self::Datagrams,
        Self::KeyUpdate,
        Self::KeyUpdateByPeer,
        Self::Retry,
        Self::Rebind,
        Self::Migration,
        Self::Resumption,
        Self::VersionNegotiation,
        Self::StatelessReset,
        Self::CloseByClient,
        Self::CloseByServer,
    ];

    /// Its name in the matrix.
    pub fn name(self) -> &'static str {
        match self {
            Self::Handshake => "handshake",
            Self::Streams => "streams",
            Self::Transfer => "1 MiB each way",
            Self::Datagrams => "datagrams",
            Self::KeyUpdate => "key update",
            Self::KeyUpdateByPeer => "key update by the peer",
            Self::Retry => "Retry",
            Self::Rebind => "NAT rebind",
            Self::Migration => "migration",
            Self::Resumption => "resumption",
            Self::VersionNegotiation => "version negotiation",
            Self::StatelessReset => "stateless reset",
            Self::CloseByClient => "close by the client",
            Self::CloseByServer => "close by the server",
        }
    }

    /// What a pass of it asserts.
    pub fn asserts(self) -> &'static str {
        match self {
            Self::Handshake => {
                "both ends report a handshake and the same protocol name; an echo comes back"
            }
            Self::Streams => {
                "4 bidirectional streams at once and 4 unidirectional ones, answered on 4 of the server's \
                 own; every checksum is that of what was sent, and the server counted 8 streams"
            }
            Self::Transfer => "1 MiB on one stream there and back, compared by SHA-256",
            Self::Datagrams => "a datagram of 700 bytes comes back; the server counted it",
            Self::KeyUpdate => {
                "Roadstead updates twice, with echoes between: each time its own key phase and that of \
                 what the peer sends flipped"
            }
            Self::KeyUpdateByPeer => {
                "the peer updates twice, with echoes between: each time both key phases flipped at \
                 Roadstead"
            }
            Self::Retry => {
                "one Retry packet and then an Initial with a token passed the tap; an echo comes back"
            }
            Self::Rebind => {
                "the tap changes its outside address; echoes go on, and the server reports the new address"
            }
            Self::Migration => {
                "the client moves to a second socket; echoes go on, the server reports the new address, \
                 and Roadstead reports the path as validated"
            }
            Self::Resumption => {
                "of two connections Roadstead's TLS, and the peer's where it tells, reports the first as \
                 full and the second as resumed"
            }
            Self::VersionNegotiation => {
                "a Version Negotiation packet passed the tap, and the client went on with v1 or gave up \
                 for want of a common version"
            }
            Self::StatelessReset => {
                "the server forgets the connection; the client reports a stateless reset"
            }
            Self::CloseByClient => {
                "the server reports the client's application code, and its phrase where both libraries \
                 carry one"
            }
            Self::CloseByServer => "the client reports the same of the server's close",
        }
    }

    /// Runs it. `own` is the role that Roadstead plays.
    pub fn run(
        self,
        client: &dyn Implementation,
        server: &dyn Implementation,
        own: Role,
        identity: &Identity,
    ) -> Result<()> {
        let foreign = self == Self::VersionNegotiation;
        let server_options = ServerOptions {
            retry: self == Self::Retry,
            foreign_version: foreign && own == Role::Client,
        };
        let client_options = ClientOptions {
            foreign_version: foreign && own == Role::Server,
        };
        let recovers = own == Role::Server && client.recovers_from_negotiation();
        let server = server.serve(identity, &server_options)?;
        let mut stage = Stage {
            tap: Tap::before(server.address())?,
            server,
            client: client.client(identity, &client_options)?,
            own,
        };
        let result = stage.play(self, recovers);
        result.with_context(|| stage.describe())
    }
}

/// How long a server may take to notice what its client noticed.
const PATIENCE: Duration = Duration::from_secs(30);

/// How often it is asked meanwhile.
const POLL: Duration = Duration::from_millis(2);

/// The code and phrase of closes.
const CODE: u32 = 0x2a17;
const REASON: &str = "enough";

/// Two ends and the tap between them.
struct Stage {
    // In the order in which they go.
    client: Box<dyn Client>,
    server: Box<dyn Server>,
    tap: Tap,
    own: Role,
}

impl Stage {
    fn play(&mut self, feature: Feature, recovers: bool) -> Result<()> {
        if feature == Feature::VersionNegotiation {
            return self.version_negotiation(recovers);
        }
        self.connect()?;
        self.echo()?;
        match feature {
            Feature::Handshake => self.handshake(),
            Feature::Streams => self.streams(),
            Feature::Transfer => self.transfer(),
            Feature::Datagrams => self.datagrams(),
            Feature::KeyUpdate => self.key_update(self.own),
            Feature::KeyUpdateByPeer => self.key_update(other(self.own)),
            Feature::Retry => self.retry(),
            Feature::Rebind => self.rebind(),
            Feature::Migration => self.migration(),
            Feature::Resumption => self.resumption(),
            Feature::StatelessReset => self.stateless_reset(),
            Feature::CloseByClient => self.close_by_client(),
            Feature::CloseByServer => self.close_by_server(),
            Feature::VersionNegotiation => unreachable!("played above"),
        }
    }

    fn connect(&mut self) -> Result<()> {
        let to = self.tap.address();
        self.client.step(&Step::Connect { to })
    }

    fn echo(&mut self) -> Result<()> {
        let (streams, bytes) = (1, 5_000);
        self.client.step(&Step::Echo { streams, bytes })
    }

    /// What Roadstead observed.
    fn own_facts(&mut self) -> Result<Facts> {
        match self.own {
            Role::Client => self.client.facts(),
            Role::Server => self.server.facts(),
        }
    }

    fn peer_facts(&mut self) -> Result<Facts> {
        match self.own {
            Role::Client => self.server.facts(),
            Role::Server => self.client.facts(),
        }
    }

    /// Waits until the server's facts are as wanted.
    fn server_facts(&mut self, what: &str, wanted: impl Fn(&Facts) -> bool) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let facts = self.server.facts()?;
            if wanted(&facts) {
                return Ok(());
            }
            ensure!(
                Instant::now() < deadline,
                "the server did not report {what}"
            );
            std::thread::sleep(POLL);
        }
    }

    fn handshake(&mut self) -> Result<()> {
        for facts in [self.client.facts()?, self.server.facts()?] {
            ensure!(facts.connected == 1, "{} handshakes", facts.connected);
            ensure!(facts.alpn == ALPN, "protocol {:?}", facts.alpn);
        }
        Ok(())
    }

    fn streams(&mut self) -> Result<()> {
        let (streams, bytes) = (4, 20_000);
        let before = self.server.facts()?.streams;
        self.client.step(&Step::Echo { streams, bytes })?;
        self.client.step(&Step::EchoUni { streams, bytes })?;
        self.server_facts("8 streams", |facts| facts.streams == before + 8)
    }

    fn transfer(&mut self) -> Result<()> {
        let (streams, bytes) = (1, 1 << 20);
        self.client.step(&Step::Echo { streams, bytes })?;
        self.server_facts("1 MiB", |facts| facts.bytes >= 1 << 20)
    }

    fn datagrams(&mut self) -> Result<()> {
        self.client.step(&Step::Datagram)?;
        ensure!(self.client.facts()?.datagrams == 1, "no datagram came back");
        self.server_facts("a datagram", |facts| facts.datagrams >= 1)
    }

    fn key_update(&mut self, by: Role) -> Result<()> {
        for n in 1..=2 {
            let deadline = Instant::now() + PATIENCE;
            let mut wanted = true;
            loop {
                if wanted {
                    match by {
                        Role::Client => self.client.step(&Step::UpdateKeys)?,
                        Role::Server => self.server.order(&Order::UpdateKeys)?,
                    }
                }
                self.echo()?;
                let seen = self.own_facts()?.key_updates;
                if seen == Some((n, n)) {
                    break;
                }
                // A library may not begin one while it keeps the old keys (RFC 9001 6.5), and need not
                // say. Once one began, the other end follows with its next packet.
                wanted = seen == Some((n - 1, n - 1));
                let began = seen == Some((n, n - 1)) || seen == Some((n - 1, n));
                let again = began || (by != self.own && wanted);
                ensure!(
                    again && Instant::now() < deadline,
                    "key phases flipped {seen:?}, expected {n}"
                );
            }
        }
        Ok(())
    }

    fn retry(&mut self) -> Result<()> {
        let seen = self.tap.seen()?;
        ensure!(seen.retries >= 1, "no Retry was seen");
        ensure!(seen.initials_with_token >= 1, "no token was seen");
        Ok(())
    }

    fn rebind(&mut self) -> Result<()> {
        let moved = self.tap.rebind()?;
        for _ in 0..3 {
            self.echo()?;
        }
        self.server_facts("the new address", |facts| {
            facts.remotes.last() == moved.last()
        })
    }

    fn migration(&mut self) -> Result<()> {
        self.client.step(&Step::Migrate)?;
        for _ in 0..3 {
            self.echo()?;
        }
        self.server_facts("a new address", |facts| facts.remotes.len() == 2)?;
        let notes = self.own_facts()?.notes;
        ensure!(
            notes.iter().any(|n| n == "Migrated"),
            "the path was not validated"
        );
        Ok(())
    }

    fn resumption(&mut self) -> Result<()> {
        self.client.step(&Step::AwaitTicket)?;
        self.close_by_client()?;
        self.connect()?;
        self.echo()?;
        let own = self.own_facts()?.resumed;
        ensure!(
            own == [false, true],
            "resumed, as Roadstead saw it: {own:?}"
        );
        let peer = self.peer_facts()?.resumed;
        ensure!(
            peer.is_empty() || peer == own,
            "resumed, as the peer saw it: {peer:?}"
        );
        Ok(())
    }

    fn version_negotiation(&mut self, recovers: bool) -> Result<()> {
        if recovers {
            self.connect()?;
            self.echo()?;
        } else {
            let to = self.tap.address();
            self.client.step(&Step::ConnectInVain { to })?;
            let ends = self.client.facts()?.ends;
            ensure!(ends == [End::Version], "the client ended with {ends:?}");
        }
        let seen = self.tap.seen()?.version_negotiations;
        ensure!(seen >= 1, "no Version Negotiation was seen");
        Ok(())
    }

    fn stateless_reset(&mut self) -> Result<()> {
        self.server.order(&Order::Forget)?;
        self.client.step(&Step::AwaitEnd)?;
        let ends = self.client.facts()?.ends;
        ensure!(ends == [End::Reset], "the client ended with {ends:?}");
        Ok(())
    }

    fn close_by_client(&mut self) -> Result<()> {
        let (code, reason) = (CODE, REASON.to_owned());
        self.client.step(&Step::Close { code, reason })?;
        self.server_facts("the close", |facts| facts.ends.last().is_some_and(is_ours))
    }

    fn close_by_server(&mut self) -> Result<()> {
        let (code, reason) = (CODE, REASON.to_owned());
        self.server.order(&Order::Close { code, reason })?;
        self.client.step(&Step::AwaitEnd)?;
        match self.client.facts()?.ends.last() {
            Some(end) if is_ours(end) => Ok(()),
            end => bail!("the client ended with {end:?}"),
        }
    }

    fn describe(&mut self) -> String {
        let (client, server) = (self.client.facts(), self.server.facts());
        format!(
            "client: {client:?}; server: {server:?}; tap: {:?}",
            self.tap.seen()
        )
    }
}

fn other(role: Role) -> Role {
    match role {
        Role::Client => Role::Server,
        Role::Server => Role::Client,
    }
}

/// The close of the scenarios. Some libraries send no phrase, some tell of none.
fn is_ours(end: &End) -> bool {
    matches!(end, End::Application { code, reason }
        if *code == u64::from(CODE) && reason.as_deref().is_none_or(|r| r == REASON || r.is_empty()))
}
