//! Names of namespaces, from a table of mounts: the kernel says there which namespace is mounted where. Pure.

use std::path::{Path, PathBuf};

use super::{Group, Sighting, Source};
use crate::{holders::unescape, netns::Way};

/// The network namespaces of a mountinfo (proc_pid_mountinfo(5)); `dirs` are the directories of names.
pub(super) fn names(mountinfo: &str, dirs: &[PathBuf]) -> Vec<Sighting> {
    let mut seen: Vec<Sighting> = Vec::new();
    for line in mountinfo.lines() {
        let Some((inode, point)) = mount(line) else { continue };
        let path = PathBuf::from(&point);
        // What is mounted later on one point hides what was there.
        seen.retain(|before| before.way != Way::Path(path.clone()));
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let place = dirs.iter().position(|dir| path.parent() == Some(dir));
        seen.push(Sighting {
            inode,
            source: if place.is_some() { Source::Named } else { Source::Mount },
            name: if place == Some(0) { name } else { point },
            is_main: place == Some(0),
            way: Way::Path(path),
            group: Group::default(),
        });
    }
    seen
}

/// Inode and mount point of a line that is of a network namespace.
fn mount(line: &str) -> Option<(u64, String)> {
    let (before, after) = line.split_once(" - ")?;
    if after.split(' ').next() != Some("nsfs") {
        return None;
    }
    let mut fields = before.split(' ').skip(3);
    let inode = fields.next()?.strip_prefix("net:[")?.strip_suffix(']')?.parse().ok()?;
    Some((inode, unescape(fields.next()?)))
}

/// The last part of a path.
pub(super) fn base(path: &str) -> &str {
    Path::new(path).file_name().and_then(|name| name.to_str()).unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "\
22 1 0:20 / / rw,relatime shared:1 - ext4 /dev/vda rw
31 30 0:25 /netns /run/netns rw,nosuid shared:7 - tmpfs tmpfs rw
32 31 0:4 net:[4026532001] /run/netns/blue rw shared:9 - nsfs nsfs rw
33 31 0:4 mnt:[4026532002] /run/netns/other rw shared:9 - nsfs nsfs rw
34 30 0:4 net:[4026532003] /run/docker/netns/0a\\040b rw - nsfs nsfs rw
35 31 0:4 net:[4026532001] /run/netns/azure rw shared:9 - nsfs nsfs rw
36 31 0:4 net:[4026532009] /run/netns/azure rw shared:9 - nsfs nsfs rw
a line that is none
";

    #[test]
    fn network_namespaces_are_found_by_where_they_are_mounted_and_others_are_not() {
        let found = names(TABLE, &["/run/netns".into()]);
        let brief: Vec<_> =
            found.iter().map(|seen| (seen.inode, seen.name.as_str(), seen.source, seen.is_main)).collect();
        assert_eq!(
            brief,
            [
                (4026532001, "blue", Source::Named, true),
                (4026532003, "/run/docker/netns/0a b", Source::Mount, false),
                (4026532009, "azure", Source::Named, true),
            ]
        );
    }

    #[test]
    fn a_further_directory_has_names_too_that_are_whole_paths() {
        let found = names(TABLE, &["/elsewhere".into(), "/run/netns".into()]);
        assert_eq!((found[0].source, found[0].name.as_str()), (Source::Named, "/run/netns/blue"));
        assert!(!found[0].is_main);
    }
}
