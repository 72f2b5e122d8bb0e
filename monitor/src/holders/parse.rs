//! What `/proc` says, as plain values. Pure: nothing here reads a file.

/// One line of a mountinfo, as far as it is needed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mount {
    id: u32,
    parent: u32,
    /// `major:minor` of the file system.
    device: String,
    /// What of the file system is mounted; `net:[INODE]` for a namespace.
    root: String,
    point: String,
    nsfs: bool,
}

/// The lines of a mountinfo (proc_pid_mountinfo(5)); what is none is left out.
pub(super) fn mounts(text: &str) -> Vec<Mount> {
    text.lines().filter_map(mount).collect()
}

fn mount(line: &str) -> Option<Mount> {
    let (before, after) = line.split_once(" - ")?;
    let mut fields = before.split(' ');
    let mut next = || fields.next();
    let (id, parent, device) = (next()?.parse().ok()?, next()?.parse().ok()?, next()?.to_owned());
    let (root, point) = (unescape(next()?), unescape(next()?));
    let nsfs = after.split(' ').next() == Some("nsfs");
    Some(Mount { id, parent, device, root, point, nsfs })
}

/// Space, tab, newline and backslash come as three octal digits.
pub(super) fn unescape(text: &str) -> String {
    let mut parts = text.split('\\');
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        match part.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                bytes.push(byte);
                bytes.extend(&part.as_bytes()[3..]);
            }
            None => bytes.extend([b"\\", part.as_bytes()].concat()),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Mounts of a namespace beside its name, with the number of the table each is in. The first table is that of the mount
/// namespace where the name is. Not among them: mounts on the very file that is the name, in whichever mount namespace.
/// The kernel takes them away with the file (most services that have a mount namespace of their own have such a copy).
pub(super) fn beside_name(tables: &[Vec<Mount>], inode: u64, name: Option<&str>) -> Vec<(usize, String)> {
    let here = tables.first().map_or(&[][..], Vec::as_slice);
    let is_name = |mount: &&Mount| Some(mount.point.as_str()) == name;
    let names: Vec<_> = here.iter().filter(is_name).filter_map(|mount| place(here, mount)).collect();
    let root = format!("net:[{inode}]");
    let mut found = Vec::new();
    for (number, table) in tables.iter().enumerate() {
        let mounts = table.iter().filter(|mount| mount.nsfs && mount.root == root);
        let beside = mounts.filter(|mount| {
            let named = number == 0 && is_name(mount);
            !named && place(table, mount).is_none_or(|place| !names.contains(&place))
        });
        found.extend(beside.map(|mount| (number, mount.point.clone())));
    }
    found
}

/// What a mount is on: a file system, and the path in it.
fn place<'a>(table: &'a [Mount], mount: &Mount) -> Option<(&'a str, String)> {
    let parent = table.iter().find(|other| other.id == mount.parent)?;
    let below = mount.point.strip_prefix(parent.point.trim_end_matches('/'))?;
    Some((&parent.device, format!("{}{below}", parent.root.trim_end_matches('/'))))
}

/// The effective user of `/proc/PID/status`.
pub(super) fn uid(status: &str) -> Option<u32> {
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

/// A command line for one line of a terminal; the name in brackets where there is none, as `ps` has it.
pub(super) fn command(cmdline: &[u8], comm: &str) -> String {
    let words = String::from_utf8_lossy(cmdline);
    let words = words.trim_end_matches('\0').replace('\0', " ");
    let text = if words.is_empty() { format!("[{}]", comm.trim_end()) } else { words };
    let safe = |char: char| {
        let escaped = char.is_control().then(|| char.escape_default().to_string());
        escaped.unwrap_or_else(|| char.to_string())
    };
    text.chars().map(safe).collect()
}

/// The inode that `/proc/PID/fdinfo/N` names (since kernel 5.14).
pub(super) fn inode_of_fdinfo(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix("ino:"))?.trim().parse().ok()
}

/// The number in `socket:[N]`, `mnt:[N]` and the like.
pub(super) fn number_of(link: &str, kind: &str) -> Option<u64> {
    link.strip_prefix(kind)?.strip_prefix(":[")?.strip_suffix(']')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: &str = "\
22 1 0:20 / / rw,relatime shared:1 - ext4 /dev/vda rw
30 22 0:25 / /run rw,nosuid shared:7 - tmpfs tmpfs rw
31 30 0:25 /netns /run/netns rw,nosuid shared:7 - tmpfs tmpfs rw
32 31 0:4 net:[4026532001] /run/netns/blue rw shared:9 - nsfs nsfs rw
33 30 0:4 net:[4026532001] /run/netns/blue rw shared:9 - nsfs nsfs rw
34 31 0:4 net:[4026532002] /run/netns/red rw - nsfs nsfs rw
";

    fn found(tables: &[&str], name: Option<&str>) -> Vec<(usize, String)> {
        let tables: Vec<_> = tables.iter().map(|text| mounts(text)).collect();
        beside_name(&tables, 4_026_532_001, name)
    }

    #[test]
    fn the_name_is_not_beside_itself_however_often_it_is_stacked() {
        assert_eq!(found(&[HOST], Some("/run/netns/blue")), []);
        assert_eq!(found(&[HOST], None).len(), 2);
        let blue = "/run/netns/blue".to_owned();
        // Twin: under another name, both are beside it.
        assert_eq!(found(&[HOST], Some("/run/netns/green")), [(0, blue.clone()), (0, blue)]);
    }

    #[test]
    fn a_mount_elsewhere_is_found_with_the_blanks_in_its_path() {
        let more = "35 30 0:4 net:[4026532001] /run/a\\040b\\134c rw - nsfs nsfs rw\n";
        let host = format!("{HOST}{more}");
        assert_eq!(found(&[&host], Some("/run/netns/blue")), [(0, "/run/a b\\c".to_owned())]);
        // Not a namespace, though it looks like one.
        let fake = more.replace("nsfs nsfs", "tmpfs tmpfs");
        assert_eq!(found(&[&format!("{HOST}{fake}")], Some("/run/netns/blue")), []);
    }

    #[test]
    fn copies_that_go_with_the_name_are_told_from_those_that_stay() {
        let copy = "\
50 40 0:25 /netns /elsewhere rw master:7 - tmpfs tmpfs rw
51 50 0:4 net:[4026532001] /elsewhere/blue rw - nsfs nsfs rw
";
        let with = |copy: &str| found(&[HOST, copy], Some("/run/netns/blue"));
        assert_eq!(with(copy), []);
        assert_eq!(with(&copy.replace("master:7 ", "")), []);
        // The same place of another file system, and another place of the same one.
        assert_eq!(with(&copy.replace("0:25", "0:26")), [(1, "/elsewhere/blue".to_owned())]);
        assert_eq!(with(&copy.replace("e/blue", "e/azure")), [(1, "/elsewhere/azure".to_owned())]);
        // What a mount is on may be out of sight for who is in a chroot.
        assert_eq!(with(&copy.replace("51 50", "51 49")), [(1, "/elsewhere/blue".to_owned())]);
        assert_eq!(found(&[HOST, copy], None).len(), 3);
    }

    #[test]
    fn what_is_torn_or_strange_is_left_out() {
        for end in 0..HOST.len() {
            mounts(&HOST[..end]);
        }
        assert_eq!(mounts("\n1 2\nx 2 0:1 / / rw - tmpfs t rw\n"), []);
        assert_eq!(unescape("a\\04"), "a\\04");
        assert_eq!(unescape("\\é"), "\\é");
    }

    #[test]
    fn commands_are_one_line_and_never_empty() {
        assert_eq!(command(b"sleep\0infinity\0", "sleep\n"), "sleep infinity");
        assert_eq!(command(b"", "kworker/0:1\n"), "[kworker/0:1]");
        assert_eq!(command(b"a\x1b[2Jb\nc\0", "x"), "a\\u{1b}[2Jb\\nc");
    }

    #[test]
    fn users_and_inodes_are_read() {
        assert_eq!(uid("Name:\tx\nUid:\t1000\t0\t1000\t1000\nGid:\t1\t2\t3\t4\n"), Some(0));
        assert_eq!(uid("Name:\tx\n"), None);
        let fdinfo = "pos:\t0\nflags:\t02\nmnt_id:\t4\nino:\t4026532001\n";
        assert_eq!(inode_of_fdinfo(fdinfo), Some(4_026_532_001));
        assert_eq!(inode_of_fdinfo("pos:\t0\n"), None);
        assert_eq!(number_of("socket:[17]", "socket"), Some(17));
        assert_eq!(number_of("mnt:[17]", "socket"), None);
        assert_eq!(number_of("/run/socket:[17]", "socket"), None);
    }
}
