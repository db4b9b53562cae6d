//! Preloaded into a process: makes writing or syncing fail below a folder, while told to.
//!
//! `FAILING_DISK_ROOT` names the folder, `FAILING_DISK_ORDER` a file that the test writes, removes and
//! writes again: while it is there, it holds the calls that fail (`sync`, `write`, `open`, in any number)
//! and, last, the number of the error. What fails has no effect at all; a file or folder opened for
//! reading is left alone.
//!
//! Compiled by the tests that use it, as a library of its own: the hooks need `unsafe`, the store has none.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::path::PathBuf;

unsafe extern "C" {
    fn dlsym(handle: *mut c_void, symbol: *const c_char) -> *mut c_void;
    fn __errno_location() -> *mut c_int;
}

/// Writing, creating: the bits of `open` that ask for more than to read (Linux).
const WRITES: c_int = 0o1 | 0o2 | 0o100 | 0o1000;

fn real<T: Copy>(name: &CStr) -> T {
    let next = -1isize as *mut c_void;
    // SAFETY: RTLD_NEXT is a valid handle and the name ends in 0.
    let found = unsafe { dlsym(next, name.as_ptr()) };
    assert!(!found.is_null(), "the C library has {name:?}");
    // SAFETY: every caller names the type of the function that it hooks, a pointer in size.
    unsafe { std::mem::transmute_copy::<*mut c_void, T>(&found) }
}

/// The error that a kind of call must fail with now.
fn ordered(kind: &str) -> Option<c_int> {
    let order = std::fs::read_to_string(std::env::var_os("FAILING_DISK_ORDER")?).ok()?;
    let mut words = order.split_whitespace();
    let error = words.next_back()?.parse().ok()?;
    words.any(|word| word == kind).then_some(error)
}

fn is_below(path: &std::path::Path) -> bool {
    std::env::var_os("FAILING_DISK_ROOT").is_some_and(|root| path.starts_with(PathBuf::from(root)))
}

fn fails(kind: &str, fd: c_int) -> bool {
    let Some(error) = ordered(kind) else {
        return false;
    };
    let path = std::fs::read_link(format!("/proc/self/fd/{fd}"));
    path.is_ok_and(|path| is_below(&path)) && fail(error)
}

fn fail(error: c_int) -> bool {
    // SAFETY: the C library's own place for the number of this thread's last error.
    unsafe { *__errno_location() = error };
    true
}

fn open_fails(path: *const c_char, flags: c_int) -> bool {
    if flags & WRITES == 0 {
        return false;
    }
    // SAFETY: the caller of open passes a path that ends in 0.
    let path = CString::from(unsafe { CStr::from_ptr(path) });
    let path = PathBuf::from(path.to_string_lossy().into_owned());
    is_below(&path) && ordered("open").is_some_and(fail)
}

macro_rules! hook {
    ($name:ident($fd:ident $(, $argument:ident: $type:ty)*) -> $result:ty, $kind:literal) => {
        #[unsafe(no_mangle)]
        pub extern "C" fn $name($fd: c_int $(, $argument: $type)*) -> $result {
            type Real = unsafe extern "C" fn(c_int $(, $type)*) -> $result;
            if fails($kind, $fd) {
                return -1;
            }
            let name = CString::new(stringify!($name)).expect("a name");
            // SAFETY: the hooked function with the caller's own arguments.
            unsafe { real::<Real>(&name)($fd $(, $argument)*) }
        }
    };
}

hook!(fsync(fd) -> c_int, "sync");
hook!(fdatasync(fd) -> c_int, "sync");
hook!(write(fd, bytes: *const c_void, count: usize) -> isize, "write");
hook!(pwrite64(fd, bytes: *const c_void, count: usize, at: i64) -> isize, "write");
hook!(writev(fd, parts: *const c_void, count: c_int) -> isize, "write");
hook!(ftruncate64(fd, length: i64) -> c_int, "write");

#[unsafe(no_mangle)]
pub extern "C" fn open64(path: *const c_char, flags: c_int, mode: c_int) -> c_int {
    type Real = unsafe extern "C" fn(*const c_char, c_int, c_int) -> c_int;
    if open_fails(path, flags) {
        return -1;
    }
    // SAFETY: the hooked function with the caller's own arguments.
    unsafe { real::<Real>(c"open64")(path, flags, mode) }
}

#[unsafe(no_mangle)]
pub extern "C" fn openat64(folder: c_int, path: *const c_char, flags: c_int, mode: c_int) -> c_int {
    type Real = unsafe extern "C" fn(c_int, *const c_char, c_int, c_int) -> c_int;
    if open_fails(path, flags) {
        return -1;
    }
    // SAFETY: the hooked function with the caller's own arguments.
    unsafe { real::<Real>(c"openat64")(folder, path, flags, mode) }
}
