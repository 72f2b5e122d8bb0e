//! Loads the eBPF objects. Attaches nothing.

use std::path::PathBuf;

use aya::{
    Ebpf, EbpfLoader,
    maps::{Map, MapError},
    programs::SchedClassifier,
};
use aya_log::EbpfLogger;
use log::{LevelFilter, Log};
use monitor_ebpf::{CHUNKS_MAP, OWN_MAP};

use super::{Hook, ProbeError, object, pins::Pins, table::Chunk};

/// Reads the program's log records; wait on its file descriptor, then call `flush`.
pub type Logger = EbpfLogger<&'static dyn Log>;

/// The two programs of an object.
pub(crate) struct Pair {
    ebpf: Ebpf,
    /// The kernel's ids, ingress first.
    pub(crate) ids: [u32; 2],
    /// The kernel's tags: equal for equal instructions.
    pub(crate) tags: [u64; 2],
}

impl Pair {
    pub(crate) fn load(
        loader: &mut EbpfLoader<'_>,
        name: &'static str,
        object: &[u8],
    ) -> Result<Self, ProbeError> {
        let ebpf =
            loader.load(object).map_err(|error| ProbeError::new("load the eBPF object", name, &error))?;
        let mut pair = Self { ebpf, ids: [0; 2], tags: [0; 2] };
        for hook in Hook::BOTH {
            let wrong = |error| ProbeError::new("load the eBPF program", hook.program(), &error);
            let program = pair.program(hook)?;
            program.load().map_err(wrong)?;
            let info = program.info().map_err(wrong)?;
            (pair.ids[hook as usize], pair.tags[hook as usize]) = (info.id(), info.tag());
        }
        Ok(pair)
    }

    pub(crate) fn program(&mut self, hook: Hook) -> Result<&mut SchedClassifier, ProbeError> {
        let name = hook.program();
        let program = self.ebpf.program_mut(name);
        let program =
            program.ok_or_else(|| ProbeError::failed("find the program", name, "not in the object"))?;
        program.try_into().map_err(|error| ProbeError::new("find the program", name, &error))
    }

    pub(crate) fn map<T: TryFrom<Map, Error = MapError>>(&mut self, name: &str) -> Result<T, ProbeError> {
        let map = self.ebpf.take_map(name);
        let map = map.ok_or_else(|| ProbeError::failed("find the map", name, "not in the object"))?;
        T::try_from(map).map_err(|error| ProbeError::new("find the map", name, &error))
    }
}

/// Values of the log level, for the loader to point to.
static LEVELS: [u8; 6] = [0, 1, 2, 3, 4, 5];

/// Loads objects, each with the pinned maps it is told of.
pub(super) struct Loader {
    loader: EbpfLoader<'static>,
    inside_tags: Option<[u64; 2]>,
}

impl Loader {
    /// A loader of programs that log up to a level.
    pub(super) fn new(level: LevelFilter) -> Self {
        let mut loader = EbpfLoader::new();
        // The programs need nothing of the kernel's types.
        loader.btf(None).override_global(aya_log::LEVEL, &LEVELS[level as usize], false);
        Self { loader, inside_tags: None }
    }

    /// Loads the shared programs around the pinned chunks, if there are any; also gives the reader of their log.
    pub(super) fn shared(&mut self, pins: Option<&Pins>) -> Result<(Pair, Map, Option<Logger>), ProbeError> {
        if let Some(pins) = pins {
            self.loader.map_pin_path(CHUNKS_MAP, pins.map(CHUNKS_MAP));
        }
        let mut pair = Pair::load(&mut self.loader, "shared", object::SHARED)?;
        let outer = pair.ebpf.take_map(CHUNKS_MAP);
        let outer =
            outer.ok_or_else(|| ProbeError::failed("find the map", CHUNKS_MAP, "not in the object"))?;
        let logger = match EbpfLogger::init(&mut pair.ebpf) {
            Ok(logger) => Some(logger),
            Err(error) => {
                log::debug!("the eBPF programs cannot log: {error}");
                None
            }
        };
        Ok((pair, outer, logger))
    }

    /// Loads a program instance for one interface around its map: the one pinned there, or a new one, pinned if told where.
    pub(super) fn inside(&mut self, pin: Option<PathBuf>) -> Result<Pair, ProbeError> {
        if let Some(pin) = pin {
            self.loader.map_pin_path(OWN_MAP, pin);
        }
        let pair = Pair::load(&mut self.loader, "inside", object::INSIDE)?;
        self.inside_tags = Some(pair.tags);
        Ok(pair)
    }

    /// The kernel's tags of the programs for one interface, of this build.
    pub(super) fn inside_tags(&mut self) -> Result<[u64; 2], ProbeError> {
        match self.inside_tags {
            Some(tags) => Ok(tags),
            None => Ok(self.inside(None)?.tags),
        }
    }
}

/// The map of a program instance; it can be taken once.
pub(super) fn own_map(pair: &mut Pair) -> Result<Chunk, ProbeError> {
    pair.map(OWN_MAP)
}
