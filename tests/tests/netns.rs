//! Named namespaces, beside `ip netns`: ours and theirs are the same thing, and junk is never entered.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink},
    path::Path,
    process::Command,
    thread,
};

use monitor::netns::{self, NetnsError, Records};
use monitor_tests::host::{TestHost, ip, run};

const DIR: &str = "/run/netns";
const RUN: &str = "/run/netns-monitor";

fn dir() -> &'static Path {
    Path::new(DIR)
}

fn records() -> Records {
    Records::new(Path::new(RUN))
}

fn name(text: &str) -> monitor::topology::names::NsName {
    text.parse().expect("a name")
}

/// As the kernel tells it to somebody else.
fn inode_of(netns: &str) -> u64 {
    fs::metadata(format!("{DIR}/{netns}")).expect("a file").ino()
}

#[test]
fn what_we_make_ip_sees_enters_and_deletes() {
    let _host = TestHost::new();
    netns::create(dir(), &records(), &name("blue")).expect("made");
    assert_eq!(ip("netns list").trim(), "blue");
    assert!(ip("netns exec blue ip -o link").contains("lo:"));
    let identity = netns::identity(dir(), &name("blue")).expect("an identity");
    assert_eq!(identity.inode, inode_of("blue"));
    assert!(records().owns(&name("blue"), identity.cookie));
    ip("netns delete blue");
    assert!(!Path::new("/run/netns/blue").exists());
    // Gone is removed: the record goes, and nothing complains.
    netns::remove(dir(), &records(), &name("blue")).expect("removed");
    assert!(!records().contains(&name("blue")));
}

#[test]
fn what_ip_makes_we_see_and_enter_and_do_not_own() {
    let _host = TestHost::new();
    ip("netns add theirs");
    let listed = netns::list(dir()).expect("a list");
    assert_eq!(
        listed.iter().map(|(name, id)| (name.to_string(), id.inode)).collect::<Vec<_>>(),
        [("theirs".to_owned(), inode_of("theirs"))]
    );
    let inside = netns::inside(dir(), &name("theirs"), || netns::own_identity().expect("an identity"))
        .expect("entered");
    assert_eq!(inside, listed[0].1);
    assert_ne!(inside, netns::own_identity().expect("an identity"));
    assert!(!records().owns(&name("theirs"), inside.cookie));
    assert!(matches!(netns::remove(dir(), &records(), &name("theirs")), Err(NetnsError::NotOurs { .. })));
    assert_eq!(ip("netns list").trim(), "theirs");
    assert!(matches!(netns::create(dir(), &records(), &name("theirs")), Err(NetnsError::Exists { .. })));
}

#[test]
fn a_name_that_was_deleted_and_made_again_is_not_ours() {
    let _host = TestHost::new();
    netns::create(dir(), &records(), &name("blue")).expect("made");
    let first = netns::identity(dir(), &name("blue")).expect("an identity");
    ip("netns delete blue");
    ip("netns add blue");
    let second = netns::identity(dir(), &name("blue")).expect("an identity");
    assert_ne!(first.cookie, second.cookie);
    assert!(!records().owns(&name("blue"), second.cookie));
    assert!(matches!(netns::remove(dir(), &records(), &name("blue")), Err(NetnsError::NotOurs { .. })));
    assert_eq!(ip("netns list").trim(), "blue");
}

#[test]
fn a_record_of_another_boot_or_a_torn_one_makes_nothing_ours() {
    let _host = TestHost::new();
    netns::create(dir(), &records(), &name("blue")).expect("made");
    let cookie = netns::identity(dir(), &name("blue")).expect("an identity").cookie;
    let path = format!("{RUN}/netns/blue");
    let whole = fs::read_to_string(&path).expect("a record");
    for length in 0..whole.len() {
        fs::write(&path, &whole[..length]).expect("torn");
        assert!(!records().owns(&name("blue"), cookie), "{:?}", &whole[..length]);
    }
    fs::write(&path, whole.replace("boot ", "boot 0")).expect("another boot");
    assert!(!records().owns(&name("blue"), cookie));
    fs::write(&path, whole).expect("whole again");
    assert!(records().owns(&name("blue"), cookie));
}

#[test]
fn junk_in_the_directory_is_neither_listed_nor_entered() {
    let _host = TestHost::new();
    ip("netns add real");
    fs::write("/run/netns/plain", "no namespace").expect("a file");
    symlink("/run/netns/real", "/run/netns/link").expect("a link");
    symlink("/proc/1/ns/net", "/run/netns/outside").expect("a link");
    fs::create_dir("/run/netns/folder").expect("a folder");
    run("mkfifo", "/run/netns/fifo");
    fs::write("/run/netns/uts", "").expect("a file");
    run("mount", "--bind /proc/self/ns/uts /run/netns/uts");
    let listed: Vec<_> =
        netns::list(dir()).expect("a list").into_iter().map(|(name, _)| name.to_string()).collect();
    assert_eq!(listed, ["real"]);
    for junk in ["plain", "link", "outside", "folder", "fifo", "uts"] {
        let entered = netns::inside(dir(), &name(junk), || panic!("entered {junk}"));
        assert!(matches!(entered, Err(NetnsError::Junk { .. })), "{junk}: {entered:?}");
        assert!(netns::remove(dir(), &records(), &name(junk)).is_ok(), "nothing of ours is there");
        assert!(fs::symlink_metadata(format!("/run/netns/{junk}")).is_ok(), "{junk} was removed");
    }
    let absent = netns::inside(dir(), &name("absent"), || ());
    assert!(matches!(absent, Err(NetnsError::Missing { .. })), "{absent:?}");
}

#[test]
fn an_empty_file_left_by_a_crash_is_used_again_only_with_our_record() {
    let _host = TestHost::new();
    let leave = |path: &str| {
        fs::write(path, "").expect("a file");
        fs::set_permissions(path, fs::Permissions::from_mode(0o0)).expect("mode 0");
    };
    fs::create_dir_all(format!("{RUN}/netns")).expect("records");
    leave("/run/netns/ours");
    fs::write(format!("{RUN}/netns/ours"), "boot x cookie 1\n").expect("a record");
    netns::create(dir(), &records(), &name("ours")).expect("made over what was left");
    assert_eq!(ip("netns list").trim(), "ours");
    leave("/run/netns/theirs");
    let refused = netns::create(dir(), &records(), &name("theirs")).expect_err("somebody else's");
    assert!(
        refused.to_string().contains("/run/netns/theirs is no network namespace but an ordinary file"),
        "{refused}"
    );
    assert!(Path::new("/run/netns/theirs").exists());
}

#[test]
fn many_made_at_once_by_us_and_by_ip_all_stand() {
    let _host = TestHost::new();
    thread::scope(|scope| {
        for number in 0..8 {
            scope.spawn(move || match number % 2 {
                0 => netns::create(dir(), &records(), &name(&format!("n{number}"))).expect("made"),
                _ => drop(ip(&format!("netns add n{number}"))),
            });
        }
    });
    assert_eq!(netns::list(dir()).expect("a list").len(), 8);
    // One mount for each, and the directory's own: nothing was stacked.
    let mounts = fs::read_to_string("/proc/thread-self/mountinfo").expect("mounts");
    assert_eq!(mounts.lines().filter(|line| line.contains(" /run/netns/")).count(), 8, "{mounts}");
    assert_eq!(
        mounts.lines().filter(|line| line.contains(" /run/netns ") && line.contains(" - tmpfs ")).count(),
        1,
        "{mounts}"
    );
}

#[test]
fn no_thread_but_a_fresh_one_ever_changes_namespace() {
    let _host = TestHost::new();
    ip("netns add blue");
    let before = netns::own_identity().expect("an identity");
    let blue = netns::identity(dir(), &name("blue")).expect("an identity");
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..25 {
                    let seen =
                        netns::inside(dir(), &name("blue"), || netns::own_identity().expect("an identity"));
                    assert_eq!(seen.expect("entered"), blue);
                    assert_eq!(netns::own_identity().expect("an identity"), before);
                }
            });
        }
    });
    assert_eq!(netns::own_identity().expect("an identity"), before);
    // A panic inside is an error outside, and changes no namespace either.
    assert!(matches!(netns::inside(dir(), &name("blue"), || panic!("meant")), Err(NetnsError::Panicked)));
    assert_eq!(netns::own_identity().expect("an identity"), before);
}

#[test]
fn an_idle_agent_holds_no_namespace() {
    let _host = TestHost::new();
    netns::create(dir(), &records(), &name("blue")).expect("made");
    let inode = inode_of("blue");
    netns::inside(dir(), &name("blue"), || ()).expect("entered");
    netns::remove(dir(), &records(), &name("blue")).expect("removed");
    let holders = |inode: u64| {
        let tasks =
            fs::read_dir("/proc/self/task").expect("tasks").flatten().map(|task| task.path().join("ns/net"));
        let descriptors = fs::read_dir("/proc/self/fd").expect("descriptors").flatten().map(|fd| fd.path());
        tasks
            .chain(descriptors)
            .filter(|path| fs::metadata(path).is_ok_and(|meta| meta.ino() == inode))
            .count()
    };
    assert_eq!(holders(inode), 0);
    // Twin: a descriptor that is open shows.
    ip("netns add red");
    let inode = inode_of("red");
    let _open = fs::File::open("/run/netns/red").expect("open");
    assert_eq!(holders(inode), 1);
}

#[test]
fn the_limit_of_namespaces_is_named_and_nothing_is_left() {
    let _host = TestHost::new();
    // A user namespace of its own has a limit of its own; the library is asked by a child in it.
    let script = "echo 0 > /proc/sys/user/max_net_namespaces; ip netns add x 2>&1; ls /run/netns";
    let output = Command::new("unshare").args(["-Ur", "-m", "sh", "-c", script]).output().expect("unshare");
    let said = String::from_utf8_lossy(&output.stdout).to_string();
    assert!(said.contains("No space left on device"), "the kernel's answer changed: {said}");
    let error = NetnsError::Io {
        call: "unshare",
        path: "/run/netns/x".into(),
        source: std::io::Error::from_raw_os_error(libc::ENOSPC),
    };
    assert!(error.to_string().contains("user.max_net_namespaces"), "{error}");
}
