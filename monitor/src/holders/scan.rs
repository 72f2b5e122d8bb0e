//! Reading `/proc`, process by process. One that ends meanwhile holds nothing.

use std::{
    collections::{BTreeSet, HashMap},
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use crate::netns::PidFd;

use super::{
    Descriptor, Inside, Mount, Process, Report, Target,
    parse::{self, beside_name},
};

/// The look so far.
struct Scan<'a> {
    target: &'a Target,
    report: Report,
    /// Whether a socket, by its inode, is in the namespace: one that many processes share is asked once.
    asked: HashMap<u64, bool>,
    /// The mount namespaces seen, and the tables of those that have a mount of the target.
    mount_namespaces: BTreeSet<u64>,
    tables: Vec<(Vec<parse::Mount>, Option<Whose>)>,
    /// Whether sockets of others can be asked at all.
    sockets: bool,
    /// Processes that could not be looked into, and those whose sockets could not be asked.
    closed: BTreeSet<u32>,
    mute: BTreeSet<u32>,
}

/// A mount namespace of others: its inode, and a process in it with its folder.
type Whose = (u64, PathBuf, u32);

/// See [`super::find`].
pub(super) fn find(target: &Target) -> io::Result<Report> {
    let own: u32 = fs::read_link("/proc/self")?.to_string_lossy().parse().unwrap_or_default();
    let mut scan = Scan {
        target,
        report: Report::default(),
        asked: HashMap::new(),
        mount_namespaces: BTreeSet::new(),
        tables: Vec::new(),
        sockets: own == std::process::id(),
        closed: BTreeSet::new(),
        mute: BTreeSet::new(),
    };
    if !scan.sockets {
        let note = "/proc is of another PID namespace: sockets of processes outside are not shown";
        scan.report.notes.push(note.to_owned());
    }
    let here = Path::new("/proc/thread-self");
    scan.mount_namespaces.extend(namespace_of_mounts(here));
    scan.tables.push((parse::mounts(&fs::read_to_string(here.join("mountinfo"))?), None));
    for pid in numbers(Path::new("/proc"))?.into_iter().filter(|&pid| pid != own) {
        scan.process(pid);
    }
    Ok(scan.finish())
}

impl Scan<'_> {
    fn process(&mut self, pid: u32) {
        let path = PathBuf::from(format!("/proc/{pid}"));
        // It ended, or /proc hides it.
        let Ok(tasks) = numbers(&path.join("task")) else { return };
        let mut threads = Vec::new();
        for &task in &tasks {
            let task_path = path.join("task").join(task.to_string());
            match fs::metadata(task_path.join("ns/net")) {
                Ok(meta) if self.target.is(&meta) => threads.push(task),
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                    self.closed.insert(pid);
                }
                _ => {}
            }
            self.mount_namespace(&task_path, pid);
        }
        let all = threads.len() == tasks.len();
        self.descriptors(&path, pid, !all && self.sockets);
        if !threads.is_empty() {
            self.report.processes.push(Inside { process: process(&path, pid), threads, all });
        }
    }

    /// The descriptors of a process: those of the namespace, and sockets in it where they are to be asked.
    fn descriptors(&mut self, path: &Path, pid: u32, ask: bool) {
        let fds = match numbers(&path.join("fd")) {
            Ok(fds) => fds,
            Err(error) => {
                if error.kind() == io::ErrorKind::PermissionDenied {
                    self.closed.insert(pid);
                }
                return;
            }
        };
        let mut pidfd = None;
        for fd in fds {
            let file = path.join("fd").join(fd.to_string());
            let Ok(link) = fs::read_link(&file) else { continue };
            let link = link.to_string_lossy();
            let Ok(fd) = i32::try_from(fd) else { continue };
            let socket = parse::number_of(&link, "socket");
            if socket.is_none() && link != "/dev/net/tun" {
                if self.is_target(path, &file, fd) {
                    self.report.descriptors.push(Descriptor { process: process(path, pid), fd });
                }
            } else if ask && self.is_inside(pid, fd, socket, &mut pidfd) {
                self.report.sockets.push(Descriptor { process: process(path, pid), fd });
            }
        }
    }

    /// Asks the kernel's own number first: to stat a file may wait for a dead file server.
    fn is_target(&self, path: &Path, file: &Path, fd: i32) -> bool {
        let info = fs::read_to_string(path.join("fdinfo").join(fd.to_string())).unwrap_or_default();
        parse::inode_of_fdinfo(&info) == Some(self.target.inode)
            && fs::metadata(file).is_ok_and(|meta| self.target.is(&meta))
    }

    fn is_inside(&mut self, pid: u32, fd: i32, socket: Option<u64>, pidfd: &mut Option<PidFd>) -> bool {
        if let Some(&known) = socket.and_then(|inode| self.asked.get(&inode)) {
            return known;
        }
        if self.mute.contains(&pid) || !self.sockets {
            return false;
        }
        let asked = match pidfd {
            Some(pidfd) => pidfd.netns_of_socket(fd),
            None => PidFd::open(pid).and_then(|opened| pidfd.insert(opened).netns_of_socket(fd)),
        };
        match asked.and_then(|netns| File::from(netns).metadata()) {
            Ok(found) => {
                let inside = (found.dev(), found.ino()) == (self.target.device, self.target.inode);
                self.asked.extend(socket.map(|inode| (inode, inside)));
                inside
            }
            Err(error) => {
                match error.raw_os_error() {
                    Some(libc::EPERM | libc::EACCES) => drop(self.mute.insert(pid)),
                    Some(libc::ENOSYS) => {
                        self.sockets = false;
                        let note = "this kernel lacks pidfd_getfd (since 5.6): sockets of processes outside are not shown";
                        self.report.notes.push(note.to_owned());
                    }
                    // Closed meanwhile, or the process ended; a tun that is attached to nothing.
                    _ => {}
                }
                false
            }
        }
    }

    /// The mounts of a mount namespace that was not seen yet.
    fn mount_namespace(&mut self, task: &Path, pid: u32) {
        let Some(namespace) = namespace_of_mounts(task) else { return };
        if !self.mount_namespaces.insert(namespace) {
            return;
        }
        match fs::read_to_string(task.join("mountinfo")) {
            Ok(text) => {
                let process = PathBuf::from(format!("/proc/{pid}"));
                self.tables.push((parse::mounts(&text), Some((namespace, process, pid))));
            }
            // Another process there may last longer.
            Err(_) => drop(self.mount_namespaces.remove(&namespace)),
        }
    }

    fn finish(self) -> Report {
        let Self { target, mut report, tables, closed, mute, .. } = self;
        let (tables, owners): (Vec<_>, Vec<_>) = tables.into_iter().unzip();
        let found = beside_name(&tables, target.inode, target.mounted.as_deref());
        report.mounts = found
            .into_iter()
            .map(|(number, path)| {
                let owner = owners[number].as_ref();
                let elsewhere = owner.map(|(namespace, proc, pid)| (*namespace, process(proc, *pid)));
                Mount { path, elsewhere }
            })
            .collect();
        let processes =
            |count: usize| if count == 1 { "1 process".to_owned() } else { format!("{count} processes") };
        if !closed.is_empty() {
            report.notes.push(format!(
                "{} could not be looked into (run it as root, with CAP_SYS_PTRACE)",
                processes(closed.len())
            ));
        }
        if !mute.is_empty() {
            report.notes.push(format!(
                "the sockets of {} could not be asked (CAP_SYS_PTRACE and CAP_NET_ADMIN are needed)",
                processes(mute.len())
            ));
        }
        report
    }
}

/// A process as it is shown.
fn process(path: &Path, pid: u32) -> Process {
    let text = |name: &str| fs::read_to_string(path.join(name)).unwrap_or_default();
    let cmdline = fs::read(path.join("cmdline")).unwrap_or_default();
    Process { pid, uid: parse::uid(&text("status")), command: parse::command(&cmdline, &text("comm")) }
}

fn namespace_of_mounts(task: &Path) -> Option<u64> {
    parse::number_of(&fs::read_link(task.join("ns/mnt")).ok()?.to_string_lossy(), "mnt")
}

/// The entries of a directory that are numbers, in order.
fn numbers(path: &Path) -> io::Result<Vec<u32>> {
    let entries = fs::read_dir(path)?;
    let mut found: Vec<u32> =
        entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect();
    found.sort_unstable();
    Ok(found)
}
