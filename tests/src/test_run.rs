//! The real programs on frames of our own, by `BPF_PROG_TEST_RUN`: nothing is attached and no packet travels.
//!
//! What the kernel does not let such a run do (frames beyond 3,712 bytes, IP headers cut short, tags in metadata,
//! data outside the linear part) needs a real veth.

use anyhow::{Context as _, Result};
use aya::{
    Ebpf, EbpfLoader, TestRun as _, TestRunOptions,
    maps::{ArrayOfMaps, HashMap, MapData, PerCpuArray, PerCpuHashMap, PerCpuValues},
    programs::{RawTracePoint, SchedClassifier},
};
use monitor_ebpf::{
    CHUNK_SLOTS, CHUNKS_MAP, ClassCounters, Counters, DirectionCounters, LOG_LEVEL, OWN_MAP,
    talk::{DNS_MAP, DnsRole, FLOWS_MAP, Flow, FlowKey, SLOTS_MAP, Slot},
};

/// One slot as the map holds it: [`Counters`] is nothing but 64-bit numbers.
const WORDS: usize = size_of::<Counters>() / 8;
type Slots = PerCpuArray<MapData, [u64; WORDS]>;

/// What the program sees besides the frame; the rest of its context is as the kernel makes it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Skb {
    /// An existing interface of the calling thread's namespace, or 0 for `lo`.
    pub ifindex: u32,
    /// Payload of one segment; 0 without GSO.
    pub gso_size: u32,
    /// Segments, if the sender's kernel knows.
    pub gso_segs: u32,
}

/// What a run gave.
#[derive(Debug)]
pub struct Run {
    /// The program's verdict.
    pub verdict: i32,
    /// The frame afterwards.
    pub frame: Vec<u8>,
    /// Mean time of one repetition, in whole nanoseconds.
    pub nanoseconds: u64,
}

/// A loaded object and the slot it counts into.
pub struct Loaded {
    ebpf: Ebpf,
    slots: Option<(Slots, u32)>,
}

impl Loaded {
    /// The `shared` object, with a chunk for `ifindex` (1 is `lo`).
    ///
    /// # Errors
    /// What the kernel or the verifier said.
    pub fn shared(ifindex: u32) -> Result<Self> {
        Self::shared_logging(ifindex, 0)
    }

    /// The same with diagnostics up to an `aya_log::Level`.
    ///
    /// # Errors
    /// What the kernel or the verifier said.
    pub fn shared_logging(ifindex: u32, level: u8) -> Result<Self> {
        let mut ebpf = load(monitor::probe::object::SHARED, level)?;
        let chunk = Slots::create(CHUNK_SLOTS, 0).context("create a chunk")?;
        let map = ebpf.map_mut(CHUNKS_MAP).context("no map of chunks")?;
        ArrayOfMaps::<_, Slots>::try_from(map)?.set(ifindex / CHUNK_SLOTS, &chunk, 0)?;
        Ok(Self { ebpf, slots: Some((chunk, ifindex % CHUNK_SLOTS)) })
    }

    /// The `inside` object.
    ///
    /// # Errors
    /// What the kernel or the verifier said.
    pub fn inside() -> Result<Self> {
        let mut ebpf = load(monitor::probe::object::INSIDE, 0)?;
        let own = Slots::try_from(ebpf.take_map(OWN_MAP).context("no map of its own")?)?;
        Ok(Self { ebpf, slots: Some((own, 0)) })
    }

    /// The `flows` object.
    ///
    /// # Errors
    /// What the kernel or the verifier said.
    pub fn flows() -> Result<Self> {
        Ok(Self { ebpf: load(monitor::probe::object::FLOWS, 0)?, slots: None })
    }

    /// The `dns` object, for `lo`.
    ///
    /// # Errors
    /// What the kernel or the verifier said.
    pub fn dns() -> Result<Self> {
        const COOKIE: u64 = 1;
        let mut ebpf = load(monitor::probe::object::DNS, 0)?;
        let slots = ebpf.map_mut(SLOTS_MAP).context("no map of slots")?;
        // `Slot`: the cookie, and what only user space reads.
        HashMap::<_, u64, [u64; size_of::<Slot>() / 8]>::try_from(slots)?.insert(
            1,
            [COOKIE, 0, 0, 0, 0, 0],
            0,
        )?;
        let counters = ebpf.map_mut(DNS_MAP).context("no map of counters")?;
        let zeros = [0; size_of::<DnsRole>() / 8];
        let cpus = aya::util::nr_cpus().map_err(|(path, error)| anyhow::anyhow!("{path}: {error}"))?;
        let mut counters = PerCpuHashMap::<_, [u64; 2], [u64; size_of::<DnsRole>() / 8]>::try_from(counters)?;
        for server in [0, 1] {
            // `RoleKey`
            counters.insert([COOKIE, server], PerCpuValues::try_from(vec![zeros; cpus])?, 0)?;
        }
        Ok(Self { ebpf, slots: None })
    }

    /// A program that does nothing, on a tracepoint for as long as this lives.
    ///
    /// # Errors
    /// What the kernel or the verifier said.
    pub fn on_tracepoint(name: &str) -> Result<Self> {
        let mut loaded = Self::baseline()?;
        let program = loaded.ebpf.program_mut("empty_trace").context("no program for a tracepoint")?;
        let program: &mut RawTracePoint = program.try_into()?;
        program.load()?;
        program.attach(name)?;
        Ok(loaded)
    }

    /// The `baseline` object, which counts nothing of interest.
    ///
    /// # Errors
    /// What the kernel or the verifier said.
    pub fn baseline() -> Result<Self> {
        Ok(Self { ebpf: load(monitor::probe::object::BASELINE, 0)?, slots: None })
    }

    /// The program called `name`, loaded.
    ///
    /// # Errors
    /// When there is none.
    pub fn program(&mut self, name: &str) -> Result<&mut SchedClassifier> {
        Ok(self.ebpf.program_mut(name).with_context(|| format!("no program {name}"))?.try_into()?)
    }

    /// All of the object, for a logger.
    pub const fn ebpf(&mut self) -> &mut Ebpf {
        &mut self.ebpf
    }

    /// Runs a program `repeat` times on a frame.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn run(&self, name: &str, frame: &[u8], skb: Skb, repeat: u32) -> Result<Run> {
        let program: &SchedClassifier =
            self.ebpf.program(name).with_context(|| format!("no program {name}"))?.try_into()?;
        let mut out = vec![0; frame.len() + 64];
        let context = context(skb);
        let result = program
            .test_run(TestRunOptions {
                data_in: Some(frame),
                data_out: Some(&mut out),
                ctx_in: Some(&context),
                repeat,
                ..TestRunOptions::new()
            })
            .with_context(|| format!("{name} on a frame of {} bytes, {skb:?}", frame.len()))?;
        out.truncate(result.data_size_out as usize);
        Ok(Run {
            verdict: result.return_value.cast_signed(),
            frame: out,
            nanoseconds: u64::try_from(result.duration.as_nanos())?,
        })
    }

    /// Packets and bytes of all flows, in both directions together.
    ///
    /// # Errors
    /// When the map cannot be read, or the object has none.
    pub fn flows_total(&self) -> Result<[u64; 2]> {
        const WORDS: usize = size_of::<Flow>() / 8;
        let flows = self.ebpf.map(FLOWS_MAP).context("no map of flows")?;
        let flows = PerCpuHashMap::<_, [u64; size_of::<FlowKey>() / 8], [u64; WORDS]>::try_from(flows)?;
        let mut sum = [0; 2];
        for row in flows.iter() {
            let (_, values) = row?;
            for [rx_packets, rx_bytes, tx_packets, tx_bytes, ..] in values.iter() {
                sum = [sum[0] + rx_packets + tx_packets, sum[1] + rx_bytes + tx_bytes];
            }
        }
        Ok(sum)
    }

    /// What has been counted since the last call, over all CPUs; the slot is 0 afterwards.
    ///
    /// # Errors
    /// When the map cannot be read, or the object has no slot.
    pub fn take(&mut self) -> Result<Counters> {
        let (slots, index) = self.slots.as_mut().context("this object counts nothing")?;
        let values = slots.get(index, 0)?;
        let mut sum = [0; WORDS];
        for words in values.iter() {
            for (sum, word) in sum.iter_mut().zip(words) {
                *sum += word;
            }
        }
        slots.set(*index, PerCpuValues::try_from(vec![[0; WORDS]; values.len()])?, 0)?;
        Ok(counters(&sum))
    }
}

/// Loads an object and its classifiers.
fn load(object: &[u8], level: u8) -> Result<Ebpf> {
    let mut ebpf = EbpfLoader::new().override_global(LOG_LEVEL, &level, false).load(object)?;
    for (name, program) in ebpf.programs_mut() {
        // The baseline has one for a tracepoint, too.
        let Ok(program) = <&mut SchedClassifier>::try_from(program) else { continue };
        program.load().with_context(|| format!("load {name}"))?;
    }
    Ok(ebpf)
}

/// `struct __sk_buff` of `include/uapi/linux/bpf.h`, 0 but for the three fields.
fn context(skb: Skb) -> [u8; 192] {
    let Skb { ifindex, gso_size, gso_segs } = skb;
    let mut context = [0; 192];
    for (offset, value) in [(40, ifindex), (164, gso_segs), (176, gso_size)] {
        context[offset..offset + 4].copy_from_slice(&value.to_ne_bytes());
    }
    context
}

fn counters(words: &[u64; WORDS]) -> Counters {
    let (ingress, egress) = words.split_at(WORDS / 2);
    Counters { ingress: direction(ingress), egress: direction(egress) }
}

fn direction(words: &[u64]) -> DirectionCounters {
    let mut words = words.iter().copied();
    let mut next = || words.next().expect("as many words as the type has");
    let mut counters = DirectionCounters::default();
    let DirectionCounters { classes, sizes, tcp_flags, reserved } = &mut counters;
    for ClassCounters { skbs, skb_bytes, extra_packets, extra_bytes } in classes {
        *skbs = next();
        *skb_bytes = next();
        *extra_packets = next();
        *extra_bytes = next();
    }
    for word in sizes.iter_mut().chain(tcp_flags).chain([reserved]) {
        *word = next();
    }
    counters
}
