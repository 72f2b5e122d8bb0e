//! Where pins go, and the bpffs they are on.

use std::path::{Path, PathBuf};
use std::{fs, io};

use tracing::{info, warn};

use super::Host;
use crate::probe::bpffs;

/// Whether a bpffs has nothing in it but what the kernel itself puts into each (`maps.debug`, `progs.debug`).
pub(super) fn is_unused(path: &Path) -> bool {
    let own = |entry: io::Result<fs::DirEntry>| {
        entry.is_ok_and(|entry| entry.path().extension().is_some_and(|extension| extension == "debug"))
    };
    fs::read_dir(path).is_ok_and(|mut entries| entries.all(own))
}

/// Where this run directory's pins are, if a bpffs is there.
pub(super) fn pins(host: &Host) -> Option<PathBuf> {
    let dir = host.bpffs.join(host.run_dir.file_name()?);
    (bpffs::is_bpffs(&host.bpffs) && dir.is_dir()).then_some(dir)
}

/// Where pins go: below the bpffs, in a folder named as the run directory is. Mounts a bpffs where a folder waits for one,
/// as systemd, `bpftool` and `tc` do. Absent where there is none: then counts start with the agent.
pub(super) fn pin_dir(host: &Host) -> (Option<PathBuf>, bool) {
    let Some(name) = host.run_dir.file_name() else { return (None, false) };
    if bpffs::is_bpffs(&host.bpffs) {
        return (Some(host.bpffs.join(name)), false);
    }
    match bpffs::mount(&host.bpffs) {
        Ok(()) => {
            info!("mounted a bpffs at {}", host.bpffs.display());
            (Some(host.bpffs.join(name)), true)
        }
        Err(error) => {
            let path = host.bpffs.display();
            warn!(
                "no bpffs at {path} and none could be mounted ({error}): counts start now and end with this process"
            );
            (None, false)
        }
    }
}
