//! Preloaded into a process: keeps what a power cut would leave of a folder, and nothing else.
//!
//! A sync of a file copies the file's content as of then into the shadow folder, under its inode; a sync
//! of a folder writes down which names point to which inodes. What was never synced is in neither. That
//! is the strictest reading of POSIX: the name of a file, its removal and its renaming last only once the
//! folder was synced, its content only once the file was. Both are replaced atomically, because the
//! process is killed at any moment.
//!
//! Compiled by the test that uses it, as a library of its own: the hooks need `unsafe`, the store has none.

use std::collections::HashMap;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::fs::{self, File};
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock};

unsafe extern "C" {
    fn dlsym(handle: *mut c_void, symbol: *const c_char) -> *mut c_void;
    fn dup(fd: c_int) -> c_int;
}

type Sync = unsafe extern "C" fn(c_int) -> c_int;

/// Files seen, held open so that no inode number is used again while the process lives.
static HELD: OnceLock<Mutex<HashMap<u64, File>>> = OnceLock::new();

fn real(name: &CStr) -> Sync {
    let next = -1isize as *mut c_void;
    // SAFETY: RTLD_NEXT is a valid handle and the name ends in 0.
    let found = unsafe { dlsym(next, name.as_ptr()) };
    assert!(!found.is_null(), "the C library has {name:?}");
    // SAFETY: both hooked functions have this type.
    unsafe { std::mem::transmute::<*mut c_void, Sync>(found) }
}

#[unsafe(no_mangle)]
pub extern "C" fn fsync(fd: c_int) -> c_int {
    synced(fd, real(c"fsync"))
}

#[unsafe(no_mangle)]
pub extern "C" fn fdatasync(fd: c_int) -> c_int {
    synced(fd, real(c"fdatasync"))
}

fn synced(fd: c_int, sync: Sync) -> c_int {
    // One at a time, or a look at a folder that is older could replace one that is newer.
    static ORDER: Mutex<()> = Mutex::new(());
    let _order = ORDER.lock().expect("no panics");
    // Content that is written while the sync runs may or may not be in it: the copy is taken before.
    let taken = capture(fd);
    // SAFETY: the caller's own descriptor, handed on.
    let result = unsafe { sync(fd) };
    if result == 0
        && let Some((name, content)) = taken
    {
        keep(&name, &content);
    }
    result
}

fn variable(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).map(PathBuf::from)
}

fn capture(fd: c_int) -> Option<(String, Vec<u8>)> {
    let root = variable("POWERCUT_ROOT")?;
    let path = fs::read_link(format!("/proc/self/fd/{fd}")).ok()?;
    let path = PathBuf::from(path.to_str()?.trim_end_matches(" (deleted)"));
    let below = path.strip_prefix(&root).ok()?;
    // SAFETY: dup of the caller's descriptor; the copy is ours to close.
    let file = unsafe { File::from_raw_fd(dup(fd)) };
    let metadata = file.metadata().ok()?;
    if metadata.is_dir() {
        return Some((folder_name(below), listing(&path).into_bytes()));
    }
    let content = fs::read(format!("/proc/self/fd/{}", file.as_raw_fd())).ok()?;
    let inode = metadata.ino();
    let held = HELD.get_or_init(Mutex::default);
    held.lock().expect("no panics").entry(inode).or_insert(file);
    Some((format!("inode-{inode}"), content))
}

fn folder_name(below: &Path) -> String {
    format!(
        "folder-{}",
        below.to_str().expect("plain names").replace('/', "|")
    )
}

/// One line per name: kind, inode, name.
fn listing(folder: &Path) -> String {
    let mut lines = String::new();
    for entry in fs::read_dir(folder).expect("a folder").flatten() {
        // A name may vanish while it is looked at: then it is not there.
        let Ok(metadata) = entry.metadata() else {
            continue;
        };
        let kind = if metadata.is_dir() { 'd' } else { 'f' };
        let name = entry.file_name();
        lines += &format!(
            "{kind} {} {}\n",
            metadata.ino(),
            name.to_str().expect("plain")
        );
    }
    lines
}

fn keep(name: &str, content: &[u8]) {
    let shadow = variable("POWERCUT_SHADOW").expect("set with the root");
    let temporary = shadow.join("temporary");
    fs::write(&temporary, content).expect("the shadow takes it");
    fs::rename(temporary, shadow.join(name)).expect("the shadow takes it");
}
