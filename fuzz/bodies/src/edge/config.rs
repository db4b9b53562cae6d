//! The configuration file: any text is refused in words, or is one that the server can run with.

use std::time::Duration;

use roadstead_edge::fuzzing;

/// A file.
pub fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    if let Some((shards, heartbeat)) = fuzzing::config(text) {
        assert!((1..=512).contains(&shards));
        assert!(heartbeat >= Duration::from_secs(1));
    }
}

/// The documented file, whole and by its sections.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let whole = fuzzing::config_example();
    let code: Vec<&str> = whole
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
        .collect();
    let sections = code
        .split(|line| line.starts_with('['))
        .map(|s| s.join("\n"));
    let mut seeds: Vec<Vec<u8>> = sections.map(String::into_bytes).collect();
    seeds.push(code.join("\n").into_bytes());
    seeds.extend([
        b"shards = 513".to_vec(),
        b"node = 1024".to_vec(),
        b"listen = [\"[::1]:4433\", \"0.0.0.0:1\"]".to_vec(),
        b"[sessions]\nheartbeat_s = 0".to_vec(),
        b"[tls]\ncertificate = \"a\"".to_vec(),
    ]);
    seeds
}
