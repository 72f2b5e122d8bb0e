//! Loading the objects of tracing programs around the maps that are pinned, and attaching what only jumps.

use std::{
    collections::BTreeMap,
    fs,
    os::fd::{AsFd as _, AsRawFd as _},
};

use aya::{
    Ebpf, EbpfLoader,
    maps::{Map, MapData, MapError, ProgramArray},
    programs::{ProgramFd, ProgramInfo, RawTracePoint, links::FdLink},
};
use monitor_ebpf::trace::PROGRAMS_MAP;

use super::pins::Pins;
use crate::probe::ProbeError;

pub(super) type Globals = BTreeMap<&'static str, u32>;

/// Loads an object; maps that are pinned are the ones it uses, the others are pinned.
pub(super) fn load(
    object: &[u8],
    what: &'static str,
    globals: &Globals,
    pins: Option<&Pins>,
) -> Result<Ebpf, ProbeError> {
    let mut loader = EbpfLoader::new();
    // The offsets are all that is needed of the kernel's types.
    loader.btf(None);
    for (name, value) in globals {
        loader.override_global(name, value, true);
    }
    if let Some(pins) = pins {
        for name in pins.shared() {
            loader.map_pin_path(name, pins.path(name));
        }
    }
    loader.load(object).map_err(|error| ProbeError::new("load the eBPF object", what, &error))
}

/// Loads the programs that count, each at its number: what is attached jumps to those of this build from here on.
pub(super) fn put(
    ebpf: &mut Ebpf,
    counting: &[(u32, &'static str)],
) -> Result<ProgramArray<MapData>, ProbeError> {
    let mut programs: ProgramArray<MapData> = map(ebpf, PROGRAMS_MAP)?;
    for (number, name) in counting {
        let counting = program(ebpf, name)?;
        counting.load().map_err(|error| ProbeError::new("load the eBPF program", name, &error))?;
        let counting = counting.fd().map_err(|error| ProbeError::new("find the program", name, &error))?;
        programs.set(*number, counting, 0).map_err(|error| ProbeError::new("write", PROGRAMS_MAP, &error))?;
    }
    Ok(programs)
}

/// Attaches the program that has the name of a tracepoint, and pins it and its link; without pins the link is what keeps it.
pub(super) fn attach(
    ebpf: &mut Ebpf,
    tracepoint: &'static str,
    pins: Option<(&Pins, &str, &str)>,
) -> Result<Option<FdLink>, ProbeError> {
    let wrong = |error| ProbeError::new("attach the eBPF program", tracepoint, &error);
    let stub = program(ebpf, tracepoint)?;
    stub.load().map_err(wrong)?;
    let link = stub.attach(tracepoint).and_then(|id| stub.take_link(id)).map_err(wrong)?;
    let link = FdLink::from(link);
    let Some((pins, program, pinned)) = pins else { return Ok(Some(link)) };
    stub.pin(pins.path(program))
        .map_err(|error| ProbeError::new("pin", pins.path(program).display(), &error))?;
    link.pin(pins.path(pinned))
        .map_err(|error| ProbeError::new("pin", pins.path(pinned).display(), &error))?;
    Ok(None)
}

/// The program that is attached, for its statistics; absent where it cannot be had.
pub(super) fn attached(
    ebpf: &mut Ebpf,
    tracepoint: &'static str,
    pins: Option<(&Pins, &str)>,
) -> Option<ProgramFd> {
    match pins {
        Some((pins, program)) => pinned_program(pins, program),
        None => program(ebpf, tracepoint).ok()?.fd().ok()?.try_clone().ok(),
    }
}

pub(super) fn pinned_program(pins: &Pins, name: &str) -> Option<ProgramFd> {
    ProgramInfo::from_pin(pins.path(name)).and_then(|info| info.fd()).ok()
}

/// How often the kernel skipped a program because it was running on that CPU.
pub(super) fn missed(program: &ProgramFd) -> Option<u64> {
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", program.as_fd().as_raw_fd())).ok()?;
    info.lines().find_map(|line| line.strip_prefix("recursion_misses:")?.trim().parse().ok())
}

fn program<'a>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut RawTracePoint, ProbeError> {
    let found = ebpf.program_mut(name);
    let found = found.ok_or_else(|| ProbeError::failed("find the program", name, "not in the object"))?;
    found.try_into().map_err(|error| ProbeError::new("find the program", name, &error))
}

/// A map of an object.
pub(super) fn map<M: TryFrom<Map, Error = MapError>>(
    ebpf: &mut Ebpf,
    name: &'static str,
) -> Result<M, ProbeError> {
    let found = ebpf.take_map(name);
    let found = found.ok_or_else(|| ProbeError::failed("find the map", name, "not in the object"))?;
    M::try_from(found).map_err(|error| ProbeError::new("find the map", name, &error))
}

/// A map that is pinned.
pub(super) fn pinned<M: TryFrom<Map, Error = MapError>>(
    pins: &Pins,
    name: &'static str,
) -> Result<M, ProbeError> {
    let path = pins.path(name);
    MapData::from_pin(&path)
        .and_then(Map::from_map_data)
        .and_then(M::try_from)
        .map_err(|error| ProbeError::new("open the pinned map", path.display(), &error))
}
