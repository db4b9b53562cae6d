//! Files and folders that only their owner may read: messages in clear, keys.
//!
//! What the server makes gets its mode when it is made, whatever the umask of the shell that started it. What it
//! finds is its own, and made private, or the operator's, and named.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use rustix::fs::Mode;
use rustix::process::umask;

/// What group and others may do.
const OTHERS: u32 = 0o077;

/// Write access of group and others.
const OTHERS_WRITE: u32 = 0o022;

/// Files of the data directory that are nobody else's business, and the store.
const SECRETS: [&str; 7] = [
    "store",
    "cert-key.pem",
    "token-key.pem",
    "resume.key",
    "tickets.key",
    "reset.key",
    "retry.key",
];

/// Files of the data directory that clients may be given, and that only the server changes.
const PUBLIC: [&str; 3] = ["cert.pem", "jwks.json", "epoch"];

/// Libraries make files too, with modes of their own: from here on none of them is for others.
pub(crate) fn keep_from_others() {
    umask(Mode::from_raw_mode(OTHERS));
}

/// Makes a folder, and those that it is in, if it is not there.
pub(crate) fn make_folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Makes a file in place of one that a crash has left.
pub(crate) fn make_file(path: &Path) -> io::Result<File> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o600).open(path)
}

/// Makes what the server keeps in a data directory private, and says what was not. The directory itself may be the
/// operator's: it is named and left as it is.
pub(crate) fn secure(data: &Path) {
    let mode = fs::metadata(data).map_or(0, |found| found.permissions().mode());
    if mode & OTHERS != 0 {
        let path = data.display();
        tracing::warn!(%path, "others can look into the data directory: chmod 700");
    }
    for (names, bits) in [(&SECRETS[..], OTHERS), (&PUBLIC[..], OTHERS_WRITE)] {
        for name in names {
            tighten(&data.join(name), bits);
        }
    }
}

/// Takes bits away from a file, or from a folder and all that is in it.
fn tighten(path: &Path, bits: u32) {
    let mut changed = 0_u32;
    let result = tighten_all(path, bits, &mut changed);
    let path = path.display();
    if changed > 0 {
        tracing::warn!(%path, changed, "others had access: now only the owner has");
    }
    match result {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            tracing::warn!(%path, %error, "others may have access, and it can not be taken from them");
        }
        _ => {}
    }
}

fn tighten_all(path: &Path, bits: u32, changed: &mut u32) -> io::Result<()> {
    let found = fs::metadata(path)?;
    let mode = found.permissions().mode();
    if mode & bits != 0 {
        fs::set_permissions(path, Permissions::from_mode(mode & !bits))?;
        *changed += 1;
    }
    if !found.is_dir() {
        return Ok(());
    }
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        // What a link leads to is not of this folder.
        if !entry.file_type()?.is_symlink() {
            tighten_all(&entry.path(), bits, changed)?;
        }
    }
    Ok(())
}

/// Names a key that others can read: it may be the operator's, who may have a reason. A key that belongs to root
/// may be readable for its group, as distributions have it.
pub(crate) fn warn_if_others_read(path: &Path) {
    let Ok(found) = fs::metadata(path) else {
        return;
    };
    let allowed = if found.uid() == 0 { 0o640 } else { 0o600 };
    let mode = found.permissions().mode() & 0o777;
    if mode & OTHERS & !allowed != 0 {
        let path = path.display();
        let mode = format!("{mode:o}");
        tracing::warn!(%path, mode, "others can read this key: chmod 600");
    }
}
