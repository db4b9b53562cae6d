//! How much memory the host gives this process: the least of its RAM and the limits of the process's
//! control groups (version 1 and 2, each with all its parents).

use std::io;
use std::path::Path;

/// The tightest limit, and the file that says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limit {
    /// What there is, in bytes.
    pub bytes: u64,
    /// The file, as an absolute path.
    pub source: String,
}

/// Version 1 writes 'no limit' as the largest multiple of a page below 2^63.
const UNLIMITED_FROM: u64 = 1 << 60;

/// Memory that this process may have at all. Reads below `root`, which is `/` outside of tests. `None` if
/// not even /proc/meminfo can be read.
pub fn memory(root: &Path) -> Option<Limit> {
    let ram = of_meminfo(root, "MemTotal:")?;
    let groups = limits_of_groups(root).into_iter();
    groups.chain([ram]).min_by_key(|limit| limit.bytes)
}

/// Memory that this process can still get without anybody else losing any: what the kernel calls
/// available, or what its control groups leave. Page cache of a group counts as taken there, so this is
/// rather too little than too much.
pub fn memory_free(root: &Path) -> Option<Limit> {
    let ram = of_meminfo(root, "MemAvailable:")?;
    let left = |limit: Limit| {
        let (folder, _) = limit.source.rsplit_once('/')?;
        let folder = root.join(folder.trim_start_matches('/'));
        let used = ["memory.current", "memory.usage_in_bytes"]
            .iter()
            .find_map(|name| std::fs::read_to_string(folder.join(name)).ok())?;
        let used: u64 = used.trim().parse().ok()?;
        Some(Limit {
            bytes: limit.bytes.saturating_sub(used),
            ..limit
        })
    };
    let groups = limits_of_groups(root).into_iter().filter_map(left);
    groups.chain([ram]).min_by_key(|limit| limit.bytes)
}

fn of_meminfo(root: &Path, name: &str) -> Option<Limit> {
    let text = std::fs::read_to_string(root.join("proc/meminfo")).ok()?;
    Some(Limit {
        bytes: bytes_of(&text, name)?,
        source: "/proc/meminfo".into(),
    })
}

/// Whether this process, and what it starts, gets huge pages where its allocator asks for them. Without them
/// memory comes by 4 KiB: a huge page is resident in full for a few bytes of it, and the kernel makes them anew
/// of pages that were given back (docs/decisions/0021). What is huge by now stays so: call it first.
pub fn set_huge_pages(on: bool) -> io::Result<()> {
    let [off, none] = [libc::c_ulong::from(!on), 0];
    // SAFETY: the call takes no pointers; needed because std has no prctl.
    match unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, off, none, none, none) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// A line `name  n kB` of a file of /proc, in bytes.
pub fn bytes_of(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// The memory limits of the process's control groups and of their parents.
fn limits_of_groups(root: &Path) -> Vec<Limit> {
    let files = group_files(root, "memory", "memory.max", "memory.limit_in_bytes");
    let limit = |(source, text): (String, String)| {
        let bytes: u64 = text.trim().parse().ok()?;
        (bytes < UNLIMITED_FROM).then_some(Limit { bytes, source })
    };
    files.into_iter().filter_map(limit).collect()
}

/// A file of the process's control group of a controller and of each of its parents, with its text: `v2` in
/// version 2 of control groups, `v1` in version 1.
pub fn group_files(root: &Path, controller: &str, v2: &str, v1: &str) -> Vec<(String, String)> {
    let groups = std::fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    let mut files = Vec::new();
    for line in groups.lines() {
        // hierarchy-id ':' controllers ':' path (cgroups(7)); version 2 names no controllers.
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else {
            continue;
        };
        let (mount, file) = match controllers {
            "" => ("sys/fs/cgroup".to_owned(), v2),
            names if names.split(',').any(|name| name == controller) => {
                (format!("sys/fs/cgroup/{controller}"), v1)
            }
            _ => continue,
        };
        // In a container the path may be the host's, and only the mount's root is there: every level
        // that exists counts.
        for level in Path::new(path.trim_start_matches('/')).ancestors() {
            let file = Path::new(&mount).join(level).join(file);
            if let Ok(text) = std::fs::read_to_string(root.join(&file)) {
                files.push((format!("/{}", file.display()), text));
            }
        }
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().expect("a directory");
        for (path, text) in files {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
            std::fs::write(path, text).expect("written");
        }
        root
    }

    #[test]
    fn huge_pages_are_switched_for_the_process() {
        for (on, said) in [(true, "THP_enabled:\t1"), (false, "THP_enabled:\t0")] {
            set_huge_pages(on).expect("every kernel since 3.15");
            let status = std::fs::read_to_string("/proc/self/status").expect("readable");
            assert!(status.contains(said), "{status}");
        }
    }

    const RAM: (&str, &str) = ("proc/meminfo", "MemTotal:       1000 kB\nMemFree: 1 kB\n");

    #[test]
    fn without_groups_it_is_the_ram() {
        let root = host(&[RAM]);
        let limit = memory(root.path()).expect("readable");
        assert_eq!(
            (limit.bytes, limit.source.as_str()),
            (1_024_000, "/proc/meminfo")
        );
        assert_eq!(memory(host(&[]).path()), None);
    }

    #[test]
    fn the_tightest_parent_counts() {
        let root = host(&[
            RAM,
            ("proc/self/cgroup", "0::/a/b\n"),
            ("sys/fs/cgroup/a/b/memory.max", "max\n"),
            ("sys/fs/cgroup/a/memory.max", "4096\n"),
        ]);
        let limit = memory(root.path()).expect("readable");
        assert_eq!(
            (limit.bytes, limit.source.as_str()),
            (4_096, "/sys/fs/cgroup/a/memory.max")
        );
    }

    #[test]
    fn what_is_free_is_what_the_host_and_every_group_leave() {
        let groups = [
            ("proc/meminfo", "MemTotal: 1000 kB\nMemAvailable: 100 kB\n"),
            ("proc/self/cgroup", "0::/a\n"),
            ("sys/fs/cgroup/a/memory.max", "90000\n"),
            ("sys/fs/cgroup/a/memory.current", "20000\n"),
        ];
        let free = |files| memory_free(host(files).path()).expect("readable").bytes;
        assert_eq!(free(&groups[..1]), 100 * 1024);
        assert_eq!(free(&groups), 70_000);
        assert_eq!(memory_free(host(&[RAM]).path()), None, "no such line");
    }

    #[test]
    fn version_1_and_its_word_for_unlimited() {
        let root = host(&[
            RAM,
            ("proc/self/cgroup", "4:cpu,memory:/x\n1:cpuset:/y\n0::/\n"),
            (
                "sys/fs/cgroup/memory/memory.limit_in_bytes",
                "9223372036854771712\n",
            ),
            ("sys/fs/cgroup/memory/x/memory.limit_in_bytes", "512000\n"),
        ]);
        assert_eq!(memory(root.path()).expect("readable").bytes, 512_000);
    }
}
