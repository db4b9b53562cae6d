//! R11: a power cut. kill -9 keeps what the kernel has, and proves little; here a child runs under a shim
//! that keeps only what was synced, and what it kept is the disk after the cut.

mod rig;

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use rig::ask::Ask;
use rig::writer::{self, Answered};
use rig::{Rig, device, user};
use roadstead_faulty_disk::{PRELOAD, power_cut};

/// Not a test of its own: the process whose power is cut.
#[test]
#[ignore = "the child of the test here"]
fn child() {
    writer::run();
}

/// What the disk holds after the cut.
fn image(shadow: &Path, below: &str, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    let Ok(names) = fs::read_to_string(shadow.join(format!("folder-{}", below.replace('/', "|"))))
    else {
        // Never synced: whatever it holds is not durable by name.
        return;
    };
    for line in names.lines() {
        let mut parts = line.splitn(3, ' ');
        let (kind, inode, name) = (
            parts.next(),
            parts.next(),
            parts.next().expect("three parts"),
        );
        if kind == Some("d") {
            let below = if below.is_empty() {
                name.into()
            } else {
                format!("{below}/{name}")
            };
            image(shadow, &below, &to.join(name));
        } else {
            let content = fs::read(shadow.join(format!("inode-{}", inode.expect("three parts"))));
            // A name without synced content is an empty file.
            fs::write(to.join(name), content.unwrap_or_default()).expect("writes");
        }
    }
}

/// Runs a child on a disk until `sends` answers, cuts, and puts what is left in place of the disk.
fn run_and_cut(shim: &Path, young: usize, disk: &Path, sends: usize, answered: &mut Answered) {
    let shadow = tempfile::tempdir().expect("a folder");
    seed(disk, disk, shadow.path());
    let mut child = Command::new(std::env::current_exe().expect("this test"))
        .args(["--exact", "child", "--ignored", "--nocapture"])
        .env(writer::PATH, disk.join("store"))
        .env(writer::YOUNG, young.to_string())
        .env(PRELOAD, shim)
        .env("POWERCUT_ROOT", disk)
        .env("POWERCUT_SHADOW", shadow.path())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the child starts");
    let output = BufReader::new(child.stdout.take().expect("piped"));
    let mut seen = 0;
    for line in output.lines() {
        seen += usize::from(answered.take(&line.expect("text")));
        if seen == sends {
            child.kill().expect("kill -9");
        }
    }
    child.wait().expect("the child is gone");
    assert!(seen >= sends, "the child answered {seen} of {sends}");
    let cut = tempfile::tempdir().expect("a folder");
    image(shadow.path(), "", cut.path());
    fs::remove_dir_all(disk.join("store")).expect("the old disk goes");
    if cut.path().join("store").exists() {
        writer::copy_folder(&cut.path().join("store"), &disk.join("store"));
    }
}

/// What is on the disk when the power comes back is durable: the shadow begins with it.
fn seed(root: &Path, folder: &Path, shadow: &Path) {
    use std::os::unix::fs::MetadataExt;
    let mut lines = String::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let entry = entry.expect("an entry");
        let (metadata, name) = (entry.metadata().expect("there"), entry.file_name());
        let kind = if metadata.is_dir() { 'd' } else { 'f' };
        lines += &format!(
            "{kind} {} {}\n",
            metadata.ino(),
            name.to_str().expect("plain")
        );
        if metadata.is_dir() {
            seed(root, &entry.path(), shadow);
        } else {
            let to = shadow.join(format!("inode-{}", metadata.ino()));
            fs::copy(entry.path(), to).expect("copies");
        }
    }
    let below = folder
        .strip_prefix(root)
        .expect("below")
        .to_str()
        .expect("plain");
    let to = shadow.join(format!("folder-{}", below.replace('/', "|")));
    fs::write(to, lines).expect("writes");
}

#[test]
fn r11_nothing_answered_is_lost_by_a_power_cut() {
    let tools = tempfile::tempdir().expect("a folder");
    let Some(shim) = power_cut(tools.path()).expect("it compiles") else {
        eprint_skipped();
        return;
    };
    for young in [1 << 20, 2_000] {
        let disk = tempfile::tempdir().expect("a folder");
        // The folder that the store is put into is the operator's, and durable.
        fs::create_dir(disk.path().join("store")).expect("a folder");
        let mut answered = Answered::default();
        for sends in [1, 35, 70, 40] {
            run_and_cut(&shim, young, disk.path(), sends, &mut answered);
            writer::verify_copy(&disk.path().join("store"), &answered);
        }
    }
}

#[test]
fn the_shim_forgets_what_was_not_synced() {
    // The canary: a test whose disk keeps everything would pass whatever the store did.
    let tools = tempfile::tempdir().expect("a folder");
    let Some(shim) = power_cut(tools.path()).expect("it compiles") else {
        eprint_skipped();
        return;
    };
    let (disk, shadow) = (
        tempfile::tempdir().expect("one"),
        tempfile::tempdir().expect("two"),
    );
    let script = "cd $POWERCUT_ROOT && printf kept > a && sync a && sync . && printf lost >> a && printf lost > b";
    let status = Command::new("sh")
        .args(["-c", script])
        .env(PRELOAD, &shim)
        .env("POWERCUT_ROOT", disk.path())
        .env("POWERCUT_SHADOW", shadow.path())
        .status();
    assert!(status.expect("a shell").success());
    let cut = tempfile::tempdir().expect("a folder");
    image(shadow.path(), "", cut.path());
    let names: BTreeMap<_, _> = fs::read_dir(cut.path())
        .expect("a folder")
        .map(|entry| entry.expect("an entry"))
        .map(|entry| (entry.file_name(), fs::read(entry.path()).expect("reads")))
        .collect();
    assert_eq!(names, BTreeMap::from([("a".into(), b"kept".to_vec())]));
}

#[allow(clippy::print_stderr, reason = "a test that did not run says so")]
fn eprint_skipped() {
    eprintln!("skipped: no rustc to build the power-cut shim with");
}

#[test]
fn an_image_without_a_store_opens_as_new() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut rig = Rig::open(&folder.path().join("made"));
    assert_eq!(rig.open((user(1), device(1))).highest_number, Some(0));
}
