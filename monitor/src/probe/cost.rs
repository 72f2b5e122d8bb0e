//! What programs and maps that are pinned below a directory cost: run time as the kernel measures it, and memory.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use aya::{
    programs::loaded_programs,
    sys::{Stats, enable_stats},
};

use super::{ProbeError, sys};

/// Where the kernel says whether it measures run times.
const SWITCH: &str = "/proc/sys/kernel/bpf_stats_enabled";

/// What all of it costs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Costs {
    /// By name of the program: those of one name together.
    pub programs: BTreeMap<String, ProgramCost>,
    /// How many maps.
    pub maps: u64,
    /// Memory of the maps, in bytes.
    pub map_bytes: u64,
    /// Links that keep programs attached.
    pub links: u64,
    /// Whether run times are measured for everybody.
    pub measured: bool,
}

/// Programs of one name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProgramCost {
    /// How many are loaded.
    pub loaded: u64,
    /// By how many links they are attached.
    pub links: u64,
    /// Memory of their code, in bytes.
    pub bytes: u64,
    /// Runs that were measured.
    pub runs: u64,
    /// How long those took together.
    pub nanoseconds: u64,
}

/// Run times are measured while this lives, and no longer.
#[derive(Debug)]
pub struct Measuring(#[expect(dead_code, reason = "closing it ends the measuring")] OwnedFd);

impl Measuring {
    /// Begins.
    ///
    /// # Errors
    /// The kernel refused: before 5.8, or without `CAP_SYS_ADMIN`.
    pub fn begin() -> Result<Self, ProbeError> {
        let fd = enable_stats(Stats::RunTime);
        Ok(Self(fd.map_err(|error| ProbeError::new("enable the statistics of", "BPF", &error))?))
    }
}

/// Reads it. Changes nothing. Takes some system calls for each pin, and each program of the host.
///
/// # Errors
/// The directory, or a program, cannot be read.
pub fn costs(pin_dir: &Path) -> Result<Costs, ProbeError> {
    let wrong = |path: &Path, error: &io::Error| ProbeError::new("read", path.display(), error);
    let mut costs = Costs {
        measured: fs::read_to_string(SWITCH).is_ok_and(|text| text.trim() != "0"),
        ..Costs::default()
    };
    let mut attached: BTreeMap<u64, u64> = BTreeMap::new();
    let mut waiting: Vec<PathBuf> = vec![pin_dir.to_owned()];
    let mut pins = BTreeSet::new();
    while let Some(dir) = waiting.pop() {
        for entry in fs::read_dir(&dir).map_err(|error| wrong(&dir, &error))? {
            let entry = entry.map_err(|error| wrong(&dir, &error))?;
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => waiting.push(entry.path()),
                _ => _ = pins.insert(entry.path()),
            }
        }
    }
    for path in pins {
        // What goes meanwhile is no matter.
        let Ok(fd) = sys::open_pin(&path) else { continue };
        let info = FdInfo::read(fd.as_fd()).map_err(|error| wrong(&path, &error))?;
        if info.number("link_id").is_some() {
            costs.links += 1;
            if let Some(program) = info.number("prog_id") {
                *attached.entry(program).or_default() += 1;
            }
        } else if let Some(program) = info.number("prog_id") {
            attached.entry(program).or_default();
        } else if info.number("map_id").is_some() {
            costs.maps += 1;
            costs.map_bytes += info.number("memlock").unwrap_or(0);
        }
    }
    for program in loaded_programs() {
        // One that ended while they were listed ends the list, too.
        let Ok(program) = program else { break };
        let Some(&links) = attached.get(&u64::from(program.id())) else { continue };
        let name = program.name_as_str().unwrap_or("").to_owned();
        let Ok(fd) = program.fd() else { continue };
        let info = FdInfo::read(fd.as_fd()).map_err(|error| ProbeError::new("read", &name, &error))?;
        let number = |key| info.number(key).unwrap_or(0);
        let cost = costs.programs.entry(name).or_default();
        cost.loaded += 1;
        cost.links += links;
        cost.bytes += number("memlock");
        cost.runs += number("run_cnt");
        cost.nanoseconds += number("run_time_ns");
    }
    Ok(costs)
}

/// What the kernel says of an open object: `name:\tnumber`.
struct FdInfo(String);

impl FdInfo {
    fn read(fd: BorrowedFd<'_>) -> io::Result<Self> {
        fs::read_to_string(format!("/proc/thread-self/fdinfo/{}", fd.as_raw_fd())).map(Self)
    }

    fn number(&self, key: &str) -> Option<u64> {
        let value = self.0.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
        value?.trim().parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_lines_are_read_by_their_whole_name() {
        let info = FdInfo("prog_type:\t3\nprog_jited:\t1\nmemlock:\t4096\nrun_time_ns:\t12\n".to_owned());
        assert_eq!(info.number("memlock"), Some(4096));
        assert_eq!(info.number("run_time_ns"), Some(12));
        assert_eq!([info.number("run_time"), info.number("prog_id")], [None; 2]);
    }
}
