//! A deterministic handshake and a keyed checksum in place of cryptography (T3): real packet
//! formats, equal seeds give equal bytes. Nothing here is secure.

use std::cell::Cell;

use roadstead_quic::crypto::{
    Aead, DirectionKeys, KeyChange, Labelled, LevelKeys, Secret, Suite, Tls, TlsError,
};

/// A keyed 256-bit checksum.
fn mix(parts: &[&[u8]]) -> [u64; 4] {
    let mut s = [
        0x243f_6a88_85a3_08d3u64,
        0x1319_8a2e_0370_7344,
        0xa409_3822_299f_31d0,
        1,
    ];
    let mut absorb = |v: u64| {
        s[0] = (s[0] ^ v)
            .wrapping_mul(0x9e37_79b9_7f4a_7c15)
            .rotate_left(29);
        s[1] = (s[1] ^ s[0])
            .wrapping_mul(0xbf58_476d_1ce4_e5b9)
            .rotate_left(31);
        s[2] = (s[2] ^ s[1])
            .wrapping_mul(0x94d0_49bb_1331_11eb)
            .rotate_left(27);
        s[3] = (s[3] ^ s[2]).wrapping_add(s[0]).rotate_left(17);
    };
    for part in parts {
        absorb(part.len() as u64);
        for chunk in part.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            absorb(u64::from_le_bytes(word));
        }
    }
    for _ in 0..4 {
        absorb(0);
    }
    s
}

fn bytes(words: [u64; 4]) -> [u8; 32] {
    let mut out = [0; 32];
    for (chunk, word) in out.chunks_mut(8).zip(words) {
        chunk.copy_from_slice(&word.to_le_bytes());
    }
    out
}

/// The stand-in for a crypto provider.
#[derive(Clone, Copy, Debug, Default)]
pub struct FakeAead;

fn stream(key: &[u8], nonce: &[u8; 12], data: &mut [u8]) {
    let seed = mix(&[b"stream", key, nonce]);
    let mut state = seed[0] ^ seed[2];
    for chunk in data.chunks_mut(8) {
        state = state
            .wrapping_mul(0x5851_f42d_4c95_7f2d)
            .wrapping_add(seed[1] | 1);
        for (b, k) in chunk.iter_mut().zip((state ^ state >> 33).to_le_bytes()) {
            *b ^= k;
        }
    }
}

impl Aead for FakeAead {
    type MaskKey = [u8; 16];

    fn mask_key(&self, key: &[u8; 16]) -> [u8; 16] {
        *key
    }

    fn mask(&self, key: &[u8; 16], sample: &[u8; 16]) -> [u8; 5] {
        self.header_mask(Suite::Aes128Gcm, key, sample)
    }

    fn seal(
        &self,
        _: Suite,
        key: &[u8],
        nonce: &[u8; 12],
        aad: &[u8],
        data: &mut [u8],
    ) -> [u8; 16] {
        stream(key, nonce, data);
        bytes(mix(&[b"tag", key, nonce, aad, data]))[..16]
            .try_into()
            .unwrap()
    }

    fn open(&self, _: Suite, key: &[u8], nonce: &[u8; 12], aad: &[u8], data: &mut [u8]) -> bool {
        let (data, tag) = data.split_at_mut(data.len() - 16);
        let ok = bytes(mix(&[b"tag", key, nonce, aad, data]))[..16] == *tag;
        if ok {
            stream(key, nonce, data);
        }
        ok
    }

    fn header_mask(&self, _: Suite, key: &[u8], sample: &[u8; 16]) -> [u8; 5] {
        bytes(mix(&[b"mask", key, sample]))[..5].try_into().unwrap()
    }

    fn hkdf_extract(&self, salt: &[u8], secret: &[u8]) -> [u8; 32] {
        bytes(mix(&[b"extract", salt, secret]))
    }

    fn hkdf_expand_labels(&self, suite: Suite, secret: &[u8], outputs: &mut [Labelled<'_>]) {
        for (label, out) in outputs {
            let wide = [0, 1].map(|n| bytes(mix(&[b"expand", &[suite as u8, n], secret, label])));
            let len = out.len();
            out.copy_from_slice(&wide.concat()[..len]);
        }
    }

    fn hmac(&self, key: &[u8; 32], parts: &[&[u8]]) -> [u8; 32] {
        let flat: Vec<u8> = parts.concat();
        bytes(mix(&[b"hmac", key, &flat]))
    }
}

/// What both ends of the fake handshake are configured with.
#[derive(Debug)]
pub struct FakeConfig {
    pub suite: Suite,
    /// Bytes of padding in the client's hello, and of the server's "certificate".
    pub hello_padding: usize,
    pub chain: usize,
    /// Tickets the server sends.
    pub tickets: u32,
    /// A server that sends a KeyUpdate message instead of a ticket (T6).
    pub sends_key_update: bool,
    /// Replaces the transport parameters of this end.
    pub params: Option<Vec<u8>>,
    /// Sends no transport parameters.
    pub no_params: bool,
    /// Rewrites this end's parameters before they are sent.
    pub edit_params: Option<fn(Vec<u8>) -> Vec<u8>>,
    counter: Cell<u64>,
}

impl FakeConfig {
    pub fn new(seed: u64) -> Self {
        Self {
            suite: Suite::Aes128Gcm,
            hello_padding: 200,
            chain: 700,
            tickets: 1,
            sends_key_update: false,
            params: None,
            no_params: false,
            edit_params: None,
            counter: Cell::new(seed),
        }
    }

    fn random(&self) -> [u8; 32] {
        self.counter.set(self.counter.get().wrapping_add(1));
        bytes(mix(&[b"random", &self.counter.get().to_le_bytes()]))
    }
}

const CLIENT_HELLO: u8 = 1;
const SERVER_HELLO: u8 = 2;
const TICKET: u8 = 4;
const EXTENSIONS: u8 = 8;
const CERTIFICATE: u8 = 11;
const FINISHED: u8 = 20;
const KEY_UPDATE: u8 = 24;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Expect {
    ClientHello,
    ServerHello,
    Extensions,
    Certificate,
    Finished,
    Nothing,
}

enum Out {
    Bytes(Vec<u8>),
    Keys(Box<KeyChange>),
}

thread_local! {
    /// TLS sessions made by this thread, of both sides.
    pub static SESSIONS: Cell<u64> = const { Cell::new(0) };
    /// The last secrets that a server derived, as (handshake or traffic, client's, server's): with
    /// them a test forges authentic packets of either side.
    pub static SECRETS: std::cell::RefCell<std::collections::BTreeMap<&'static str, [[u8; 32]; 2]>> =
        const { std::cell::RefCell::new(std::collections::BTreeMap::new()) };
}

/// One end of the fake handshake.
pub struct FakeTls {
    client: bool,
    suite: Suite,
    params: Option<Vec<u8>>,
    chain: usize,
    ticket_count: u32,
    key_update: bool,
    random: [u8; 32],
    transcript: Vec<u8>,
    peer_params: Option<Vec<u8>>,
    expect: Expect,
    input: Vec<u8>,
    out: std::collections::VecDeque<Out>,
    tickets: u32,
    name: Option<String>,
}

impl std::fmt::Debug for FakeTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FakeTls")
            .field("expect", &self.expect)
            .finish_non_exhaustive()
    }
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![kind];
    out.extend_from_slice(&u32::try_from(body.len()).unwrap().to_be_bytes()[1..]);
    out.extend_from_slice(body);
    out
}

impl FakeTls {
    fn start(config: &FakeConfig, client: bool, params: Vec<u8>) -> Self {
        SESSIONS.set(SESSIONS.get() + 1);
        let params = config.params.clone().unwrap_or(params);
        let params = config
            .edit_params
            .map_or(params.clone(), |edit| edit(params));
        Self {
            client,
            suite: config.suite,
            params: (!config.no_params).then_some(params),
            chain: config.chain,
            ticket_count: config.tickets,
            key_update: config.sends_key_update,
            random: config.random(),
            transcript: Vec::new(),
            peer_params: None,
            expect: if client {
                Expect::ServerHello
            } else {
                Expect::ClientHello
            },
            input: Vec::new(),
            out: std::collections::VecDeque::new(),
            tickets: 0,
            name: None,
        }
    }

    fn send(&mut self, kind: u8, body: &[u8]) {
        self.out.push_back(Out::Bytes(message(kind, body)));
    }

    fn level(&self, label: &'static str) -> (LevelKeys, Secret, Secret) {
        let secret =
            |side: &str| bytes(mix(&[label.as_bytes(), side.as_bytes(), &self.transcript]));
        let (client, server) = (secret("client"), secret("server"));
        SECRETS.with_borrow_mut(|s| s.insert(label, [client, server]));
        let (local, remote) = if self.client {
            (client, server)
        } else {
            (server, client)
        };
        let keys = LevelKeys {
            suite: self.suite,
            local: DirectionKeys::derive(&FakeAead, self.suite, &local),
            remote: DirectionKeys::derive(&FakeAead, self.suite, &remote),
        };
        (keys, Secret::new(&local), Secret::new(&remote))
    }

    fn handshake_keys(&mut self) {
        let keys = self.level("handshake").0;
        self.out
            .push_back(Out::Keys(Box::new(KeyChange::Handshake(keys))));
    }

    fn one_rtt_keys(&mut self) {
        let (keys, local_secret, remote_secret) = self.level("traffic");
        let change = KeyChange::OneRtt {
            keys,
            local_secret,
            remote_secret,
        };
        self.out.push_back(Out::Keys(Box::new(change)));
    }

    fn on_message(&mut self, kind: u8, body: &[u8]) -> Result<(), TlsError> {
        let unexpected = Err(TlsError { alert: 10 });
        match (self.expect, kind) {
            (Expect::ClientHello, CLIENT_HELLO) if body.len() >= 34 => {
                let name = usize::from(body[32]);
                self.name = Some(String::from_utf8_lossy(&body[33..33 + name]).into_owned());
                let has = body[33 + name];
                let len = usize::from(u16::from_be_bytes([body[34 + name], body[35 + name]]));
                if has == 1 {
                    self.peer_params = Some(body[36 + name..36 + name + len].to_vec());
                }
                self.transcript.extend_from_slice(&body[..32]);
                let random = self.random;
                self.transcript.extend_from_slice(&random);
                self.send(SERVER_HELLO, &random);
                self.handshake_keys();
                match self.params.clone() {
                    Some(params) => self.send(EXTENSIONS, &[&[1][..], &params].concat()),
                    None => self.send(EXTENSIONS, &[0]),
                }
                let chain = vec![7; self.chain];
                self.send(CERTIFICATE, &chain);
                let check = bytes(mix(&[b"server finished", &self.transcript]));
                self.send(FINISHED, &check);
                self.one_rtt_keys();
                self.expect = Expect::Finished;
            }
            (Expect::ServerHello, SERVER_HELLO) if body.len() == 32 => {
                let random = self.random;
                self.transcript.extend_from_slice(&random);
                self.transcript.extend_from_slice(body);
                self.handshake_keys();
                self.expect = Expect::Extensions;
            }
            (Expect::Extensions, EXTENSIONS) if !body.is_empty() => {
                self.peer_params = (body[0] == 1).then(|| body[1..].to_vec());
                self.expect = Expect::Certificate;
            }
            (Expect::Certificate, CERTIFICATE) => self.expect = Expect::Finished,
            (Expect::Finished, FINISHED) => {
                let label: &[u8] = if self.client {
                    b"server finished"
                } else {
                    b"client finished"
                };
                if body != bytes(mix(&[label, &self.transcript])) {
                    return Err(TlsError { alert: 51 });
                }
                self.expect = Expect::Nothing;
                if self.client {
                    let check = bytes(mix(&[b"client finished", &self.transcript]));
                    self.send(FINISHED, &check);
                    self.one_rtt_keys();
                } else {
                    for n in 0..self.ticket_count {
                        let body = vec![u8::try_from(n).unwrap(); 180];
                        self.send(if self.key_update { KEY_UPDATE } else { TICKET }, &body);
                    }
                }
            }
            (Expect::Nothing, TICKET) if self.client => self.tickets += 1,
            _ => return unexpected,
        }
        Ok(())
    }
}

impl Tls for FakeTls {
    type ServerConfig = FakeConfig;
    type ClientConfig = FakeConfig;

    fn server(config: &FakeConfig, params: Vec<u8>) -> Result<Self, TlsError> {
        Ok(Self::start(config, false, params))
    }

    fn client(config: &FakeConfig, name: &str, params: Vec<u8>) -> Result<Self, TlsError> {
        let mut tls = Self::start(config, true, params);
        let params = tls.params.clone();
        let body = params.clone().unwrap_or_default();
        let hello = [
            &tls.random[..],
            &[u8::try_from(name.len()).unwrap()],
            name.as_bytes(),
            &[u8::from(params.is_some())],
            &u16::try_from(body.len()).unwrap().to_be_bytes(),
            &body,
            &vec![0; config.hello_padding],
        ]
        .concat();
        tls.send(CLIENT_HELLO, &hello);
        Ok(tls)
    }

    fn read(&mut self, data: &[u8]) -> Result<(), TlsError> {
        self.input.extend_from_slice(data);
        while self.input.len() >= 4 {
            let len = u32::from_be_bytes([0, self.input[1], self.input[2], self.input[3]]) as usize;
            if self.input.len() < 4 + len {
                break;
            }
            let message: Vec<u8> = self.input.drain(..4 + len).collect();
            self.on_message(message[0], &message[4..])?;
        }
        Ok(())
    }

    fn write(&mut self, out: &mut Vec<u8>) -> Result<Option<KeyChange>, TlsError> {
        while let Some(next) = self.out.pop_front() {
            match next {
                Out::Bytes(bytes) => out.extend_from_slice(&bytes),
                Out::Keys(keys) => return Ok(Some(*keys)),
            }
        }
        Ok(None)
    }

    fn is_handshaking(&self) -> bool {
        self.expect != Expect::Nothing
    }

    fn peer_params(&self) -> Option<&[u8]> {
        self.peer_params.as_deref()
    }

    fn alpn(&self) -> Option<&[u8]> {
        Some(b"roadstead/1")
    }

    fn server_name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    fn tickets(&self) -> u32 {
        self.tickets
    }
}
