//! From the command line to a configuration.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail, ensure};
use clap::Parser;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use roadstead_client::{Config, CredentialError, FileJournal, JournalError, Trust, UserId};
use serde::Serialize;

/// A development token is signed anew for every login, so it need not live long.
const TOKEN_VALID_S: u64 = 3_600;

const KEYS: &str = "Keys: Enter sends. Ctrl-Z takes the last message back that is not on its way, for example \
one to somebody who has no room. `/to 3` goes to the chat with user 3. Ctrl-U clears the line, Up and Down scroll, Esc leaves.";

/// Chat with other users in the terminal, one at a time.
#[derive(Debug, Parser)]
#[command(name = "roadstead-chat", version, after_help = KEYS)]
pub(crate) struct Arguments {
    /// Who you are: a user id.
    #[arg(long)]
    user: u64,
    /// Whom you talk to at first; 2 for user 1, else 1.
    #[arg(long)]
    peer: Option<u64>,
    /// The server, host:port.
    #[arg(long, default_value = "127.0.0.1:4433", value_parser = server_address)]
    server: String,
    /// A token that proves the user.
    #[arg(long, conflicts_with = "token_file")]
    token: Option<String>,
    /// A file that holds such a token.
    #[arg(long)]
    token_file: Option<PathBuf>,
    /// The data directory of a development server: its certificate is trusted and its key signs the
    /// token.
    #[arg(long, default_value = "./roadstead-data")]
    data: PathBuf,
    /// A PEM file with the server's certificate, if not the one in the data directory.
    #[arg(long, conflicts_with = "ca")]
    cert: Option<PathBuf>,
    /// A PEM file with root certificates, instead of a pinned certificate.
    #[arg(long)]
    ca: Option<PathBuf>,
    /// Where this device keeps its journal and history. Two directories are two devices.
    #[arg(long)]
    state: Option<PathBuf>,
}

/// Everything the program starts with.
#[derive(Debug)]
pub(crate) struct Setup {
    pub(crate) user: UserId,
    pub(crate) peer: UserId,
    pub(crate) state: PathBuf,
    pub(crate) config: Config,
}

impl Setup {
    pub(crate) fn new(arguments: Arguments) -> anyhow::Result<Self> {
        let user = UserId::new(arguments.user).context("--user")?;
        let peer = arguments
            .peer
            .unwrap_or(if user.get() == 1 { 2 } else { 1 });
        let peer = UserId::new(peer).context("--peer")?;
        let certificate = arguments
            .cert
            .clone()
            .unwrap_or_else(|| arguments.data.join("cert.pem"));
        let (trust, identity) = match &arguments.ca {
            Some(roots) => (Trust::roots_file(roots), fs::read(roots)),
            None => (Trust::pinned_file(&certificate), fs::read(&certificate)),
        };
        let trust =
            trust.context("start `roadstead serve` first, or name --data, --cert or --ca")?;
        let state = match &arguments.state {
            Some(state) => state.clone(),
            None => default_state(user, &identity?),
        };
        let made = make_folder(&state);
        made.with_context(|| format!("creating {}", state.display()))?;
        let journal = open_journal(&state)?;
        let config = Config::new(&arguments.server, trust).journal(journal);
        let config = add_token(config, &arguments, user)?;
        Ok(Self {
            user,
            peer,
            state,
            config,
        })
    }
}

/// A name or an address, and a port: without one the client would try for ever (P12).
fn server_address(word: &str) -> Result<String, &'static str> {
    let why = "it takes host:port, for example localhost:4433";
    let (host, port) = word.rsplit_once(':').ok_or(why)?;
    let is_bare_v6 = host.contains(':') && !(host.starts_with('[') && host.ends_with(']'));
    match port.parse::<u16>() {
        Ok(1..) if !host.is_empty() && !is_bare_v6 => Ok(word.to_owned()),
        _ => Err(why),
    }
}

/// Makes a folder for messages in clear, and those that it is in, if it is not there.
fn make_folder(path: &Path) -> std::io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.recursive(true).create(path)
}

fn open_journal(state: &Path) -> anyhow::Result<FileJournal> {
    match FileJournal::open(state.join("journal")) {
        Err(JournalError::InUse) => bail!(
            "{} is in use: for a second device of the user name another --state",
            state.display()
        ),
        other => other.with_context(|| format!("{}/journal", state.display())),
    }
}

/// One directory per service and user: a development server that was set up anew has another
/// certificate, and knows nothing of the old one's devices.
fn default_state(user: UserId, identity: &[u8]) -> PathBuf {
    let name = format!("{:016x}-user-{user}", fingerprint(identity));
    let home = std::env::var_os("XDG_DATA_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".local/share")));
    match home {
        Some(home) => home.join("roadstead-chat").join(name),
        None => PathBuf::from(format!("./roadstead-chat-{user}")),
    }
}

/// FNV-1a: tells directories apart, nothing more.
fn fingerprint(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

fn add_token(config: Config, arguments: &Arguments, user: UserId) -> anyhow::Result<Config> {
    if let Some(token) = &arguments.token {
        return Ok(config.token(token));
    }
    if let Some(path) = &arguments.token_file {
        let token = fs::read_to_string(path).with_context(|| path.display().to_string())?;
        return Ok(config.token(token.trim()));
    }
    let path = arguments.data.join("token-key.pem");
    let pem = fs::read(&path)
        .with_context(|| format!("{}: name --data, --token or --token-file", path.display()))?;
    // Signed once now, so that a bad key is an error here and not a riddle later.
    sign(&pem, user)?;
    Ok(config.credentials(move || {
        let token = sign(&pem, user).map_err(|error| CredentialError(error.to_string()));
        std::future::ready(token)
    }))
}

#[derive(Serialize)]
struct Claims {
    sub: String,
    iss: &'static str,
    aud: &'static str,
    iat: u64,
    exp: u64,
}

/// A development token, as `roadstead token` prints it.
fn sign(pem: &[u8], user: UserId) -> anyhow::Result<String> {
    let key = EncodingKey::from_ed_pem(pem).context("the signing key")?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    ensure!(now > 0, "the clock stands still");
    let mut header = Header::new(Algorithm::EdDSA);
    header.kid = Some("development".into());
    let claims = Claims {
        sub: user.to_string(),
        iss: "roadstead",
        aud: "roadstead",
        iat: now,
        exp: now + TOKEN_VALID_S,
    };
    Ok(jsonwebtoken::encode(&header, &claims, &key)?)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;
    use jsonwebtoken::{DecodingKey, Validation};

    use super::*;

    /// What `roadstead serve` leaves behind.
    fn data() -> (tempfile::TempDir, String) {
        let folder = tempfile::tempdir().expect("a folder");
        let server = rcgen::generate_simple_self_signed(vec!["localhost".into()]).expect("a key");
        fs::write(folder.path().join("cert.pem"), server.cert.pem()).expect("writes");
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).expect("a key");
        fs::write(folder.path().join("token-key.pem"), key.serialize_pem()).expect("writes");
        (folder, key.public_key_pem())
    }

    fn arguments(folder: &Path, extra: &[&str]) -> Arguments {
        let (data, state) = (folder.join(""), folder.join("state"));
        let mut words = vec!["roadstead-chat", "--user", "1", "--data"];
        words.push(data.to_str().expect("UTF-8"));
        words.extend(["--state", state.to_str().expect("UTF-8")]);
        words.extend(extra);
        Arguments::parse_from(words)
    }

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn a_development_servers_data_is_all_that_is_needed() {
        let (folder, _) = data();
        let setup = Setup::new(arguments(folder.path(), &[])).expect("works");
        assert_eq!((setup.user.get(), setup.peer.get()), (1, 2));
        drop(setup);
        let again = Setup::new(arguments(folder.path(), &["--peer", "7"])).expect("works");
        assert_eq!(again.peer.get(), 7);
        let second = Setup::new(arguments(folder.path(), &[])).expect_err("locked");
        assert!(second.to_string().contains("--state"), "{second}");
    }

    #[test]
    fn fp12_a_server_without_a_port_is_a_usage_error() {
        let parse = |server| {
            let words = ["roadstead-chat", "--user", "1", "--server", server];
            Arguments::try_parse_from(words)
        };
        for right in ["localhost:4433", "127.0.0.1:1", "[::1]:65535"] {
            assert_eq!(parse(right).expect("right").server, right);
        }
        for wrong in [
            "localhost",
            "",
            ":1",
            "::1",
            "::1:1",
            "a:0",
            "a:65536",
            "a:b",
        ] {
            let error = parse(wrong).expect_err(wrong).to_string();
            assert!(error.contains("host:port"), "{error}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn fc4_the_state_is_its_owners_alone() {
        use std::os::unix::fs::PermissionsExt;
        let (folder, _) = data();
        Setup::new(arguments(folder.path(), &[])).expect("works");
        let found = fs::metadata(folder.path().join("state")).expect("made");
        assert_eq!(found.permissions().mode() & 0o777, 0o700);
    }

    #[test]
    fn the_token_is_what_the_server_verifies() {
        let (folder, public) = data();
        let pem = fs::read(folder.path().join("token-key.pem")).expect("written");
        let token = sign(&pem, UserId::new(7).expect("not 0")).expect("signs");
        let key = DecodingKey::from_ed_pem(public.as_bytes()).expect("a key");
        let mut validation = Validation::new(Algorithm::EdDSA);
        validation.set_issuer(&["roadstead"]);
        validation.set_audience(&["roadstead"]);
        #[derive(serde::Deserialize)]
        struct Subject {
            sub: String,
        }
        let claims = jsonwebtoken::decode::<Subject>(&token, &key, &validation).expect("valid");
        assert_eq!(claims.claims.sub, "7");
    }

    #[test]
    fn without_a_server_the_error_says_what_to_do() {
        let folder = tempfile::tempdir().expect("a folder");
        let error = Setup::new(arguments(folder.path(), &[])).expect_err("no certificate");
        assert!(
            format!("{error:#}").contains("roadstead serve"),
            "{error:#}"
        );
    }

    #[test]
    fn services_and_users_have_directories_of_their_own() {
        let user = |id| UserId::new(id).expect("not 0");
        let one = default_state(user(1), b"certificate");
        assert_ne!(one, default_state(user(2), b"certificate"));
        assert_ne!(one, default_state(user(1), b"another"));
    }
}
