//! Counts what TCP meets with, by namespace: handshakes and how long they take, connects that fail, segments sent again,
//! resets, and the round-trip time of each connection at its end. Raw tracepoints.
//!
//! None of them is on the way of a packet that does as it should: a connection costs five runs at each end, from its
//! beginning to its end and however much it carries, and then each segment sent again and each reset costs one.
//!
//! Whose it is says the socket; of a reset that no socket sends, the device where the segment arrived that it answers.
//! The kernel runs one program never twice at once on one CPU, and no two of them write the same number: additions are
//! plain ones. What the kernel skips for that it counts itself (`recursion_misses`).
#![no_std]
#![no_main]

mod netns;
mod runtime;

use aya_ebpf::{
    Global,
    bindings::BPF_ANY,
    btf_maps::{HashMap, PerCpuArray, PerCpuHashMap, ProgramArray},
    helpers::bpf_ktime_get_ns,
    macros::{btf_map, raw_tracepoint},
    programs::RawTracePointContext,
};
use monitor_ebpf::{
    health::{
        self, FAILURES, KINDS, TIME_BOUNDS, TIMES, TRACEPOINTS, TcpCounts, Times, direction, errno, failure,
        kind, role,
    },
    trace::{self, ABSENT},
};
use netns::{NO_PREALLOC, read};

/// See [`trace::PROGRAMS_MAP`].
#[btf_map]
static PROGRAMS: ProgramArray<{ TRACEPOINTS.len() }> = ProgramArray::new();
/// See [`health::COUNTS_MAP`].
#[btf_map]
static COUNTS: PerCpuHashMap<u64, TcpCounts, { trace::WATCHED }, NO_PREALLOC> = PerCpuHashMap::new();
/// See [`health::UNWATCHED_MAP`].
#[btf_map]
static UNWATCHED: PerCpuArray<TcpCounts, 1> = PerCpuArray::new();
/// See [`health::CONNECTING_MAP`].
#[btf_map]
static CONNECTING: HashMap<u64, u64, { health::CONNECTING }> = HashMap::new();

#[unsafe(no_mangle)]
static SK_PROTOCOL: Global<u32> = Global::new(ABSENT);
#[unsafe(no_mangle)]
static SK_ERR: Global<u32> = Global::new(ABSENT);
#[unsafe(no_mangle)]
static SK_STATE: Global<u32> = Global::new(ABSENT);
#[unsafe(no_mangle)]
static SRTT: Global<u32> = Global::new(ABSENT);
#[unsafe(no_mangle)]
static SEGS_OUT: Global<u32> = Global::new(ABSENT);
#[unsafe(no_mangle)]
static RTO_TIME: Global<u32> = Global::new(ABSENT);
#[unsafe(no_mangle)]
static CA_STATE: Global<u32> = Global::new(ABSENT);
#[unsafe(no_mangle)]
static CA_SHIFT: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
static CA_MASK: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
static SKB_SEGS: Global<u32> = Global::new(ABSENT);

/// `IPPROTO_TCP`.
const TCP: u16 = 6;

/// `include/net/tcp_states.h`.
mod state {
    pub(crate) const ESTABLISHED: i32 = 1;
    pub(crate) const SYN_SENT: i32 = 2;
    pub(crate) const SYN_RECV: i32 = 3;
    pub(crate) const CLOSE: i32 = 7;
}

/// `enum tcp_ca_state`.
const RECOVERY: u8 = 3;
const LOSS: u8 = 4;

/// What is attached for good: each jumps to the program that counts.
macro_rules! attached {
    ($($name:ident: $number:literal),+) => {
        $(
            #[raw_tracepoint]
            fn $name(ctx: RawTracePointContext) -> i32 {
                // SAFETY: nothing here has a destructor that the jump would leave out.
                unsafe { PROGRAMS.tail_call(&ctx, $number) };
                0
            }
        )+
    };
}
attached! {
    inet_sock_set_state: 0,
    tcp_retransmit_skb: 1,
    tcp_retransmit_synack: 2,
    tcp_send_reset: 3,
    tcp_receive_reset: 4
}

/// A socket changes its state.
#[raw_tracepoint]
fn state_changed(ctx: RawTracePointContext) -> i32 {
    let (socket, old, new) = (ctx.arg::<u64>(0), ctx.arg::<i32>(1), ctx.arg::<i32>(2));
    let matters = matches!(old, state::SYN_SENT | state::SYN_RECV | state::ESTABLISHED);
    // The tracepoint is of MPTCP's own sockets, too.
    if (!matters && new != state::SYN_SENT) || read(socket, SK_PROTOCOL.load()) != Some(TCP) {
        return 0;
    }
    match (old, new) {
        (_, state::SYN_SENT) => begin(socket),
        // Both ends connected to each other at once: still connecting.
        (state::SYN_SENT, state::SYN_RECV) => {}
        (state::SYN_SENT, _) => {
            let since = since(socket);
            client(socket, since, new);
        }
        (state::SYN_RECV, _) => match since(socket) {
            None => server(socket, new),
            since => client(socket, since, new),
        },
        (state::ESTABLISHED, _) => end(socket),
        _ => {}
    }
    0
}

#[inline(always)]
fn begin(socket: u64) {
    // SAFETY: the helper asks for nothing.
    let now = unsafe { bpf_ktime_get_ns() };
    // Where there is no room, its time is not taken.
    let _inserted = CONNECTING.insert(socket, now, BPF_ANY.into());
}

/// Nanoseconds since it began to connect.
#[inline(always)]
fn since(socket: u64) -> Option<u64> {
    // SAFETY: the value is read once, and written by nobody while the socket is locked for this change.
    let began = CONNECTING.get_ptr(socket).map(|began| unsafe { *began })?;
    let _removed = CONNECTING.remove(socket);
    // SAFETY: the helper asks for nothing.
    Some(unsafe { bpf_ktime_get_ns() }.saturating_sub(began))
}

/// A socket that connected has its answer, or gives up.
#[inline(always)]
fn client(socket: u64, since: Option<u64>, new: i32) {
    let Some(counts) = counts(netns::of_socket(socket)) else { return };
    match new {
        state::ESTABLISHED => {
            counts.opened[role::CLIENT] += 1;
            if let Some(since) = since {
                add(&mut counts.handshakes[role::CLIENT], since);
            }
        }
        state::CLOSE => {
            let reason = why(socket);
            if reason < FAILURES {
                counts.failures[reason] += 1;
            }
        }
        _ => {}
    }
}

/// Why a connect failed.
#[inline(always)]
fn why(socket: u64) -> usize {
    match read::<i32>(socket, SK_ERR.load()).unwrap_or(0) {
        // The program closes the socket, or connect() itself did not come as far as the first segment.
        0 if read::<u32>(socket, SEGS_OUT.load()) == Some(0) => failure::UNSENT,
        0 => failure::ABANDONED,
        errno::REFUSED => failure::REFUSED,
        errno::TIMEOUT => failure::TIMEOUT,
        error if errno::UNREACHABLE.contains(&error) => failure::UNREACHABLE,
        _ => failure::OTHER,
    }
}

/// A socket that was made for a connection request is connected: from SYN-ACK to ACK is its first round trip. Where the
/// SYN-ACK was repeated the kernel takes that for no measure, but says how long it took since the first one, in ms.
#[inline(always)]
fn server(socket: u64, new: i32) {
    if new != state::ESTABLISHED {
        return;
    }
    let Some(counts) = counts(netns::of_socket(socket)) else { return };
    counts.opened[role::SERVER] += 1;
    let repeated = match RTO_TIME.load() {
        ABSENT => 0,
        offset => read::<u32>(socket, offset).unwrap_or(0),
    };
    let nanoseconds = match round_trip(socket) {
        0 => u64::from(repeated) * 1_000_000,
        round_trip => round_trip,
    };
    if nanoseconds != 0 {
        add(&mut counts.handshakes[role::SERVER], nanoseconds);
    }
}

/// A connection begins to end.
#[inline(always)]
fn end(socket: u64) {
    let nanoseconds = round_trip(socket);
    if nanoseconds == 0 {
        return;
    }
    if let Some(counts) = counts(netns::of_socket(socket)) {
        add(&mut counts.rtt, nanoseconds);
    }
}

/// The smoothed round-trip time in nanoseconds, 0 where there is none: the kernel keeps eighths of a microsecond.
#[inline(always)]
fn round_trip(socket: u64) -> u64 {
    u64::from(read::<u32>(socket, SRTT.load()).unwrap_or(0)) * 125
}

/// A buffer of one or more segments is sent again.
#[raw_tracepoint]
fn retransmitted(ctx: RawTracePointContext) -> i32 {
    let (socket, skb) = (ctx.arg::<u64>(0), ctx.arg::<u64>(1));
    let state = read::<u8>(socket, SK_STATE.load()).unwrap_or(0);
    let byte = read::<u8>(socket, CA_STATE.load()).unwrap_or(0);
    let congestion = byte >> (CA_SHIFT.load() & 7) & CA_MASK.load() as u8;
    let kind = match (i32::from(state), congestion) {
        (state::SYN_SENT, _) => kind::SYN,
        (_, LOSS) => kind::TIMEOUT,
        (_, RECOVERY) => kind::FAST,
        _ => kind::PROBE,
    };
    let segments = u64::from(read::<u16>(skb, SKB_SEGS.load()).unwrap_or(1));
    if let Some(counts) = counts(netns::of_socket(socket))
        && kind < KINDS
    {
        counts.retransmits[kind] += segments;
    }
    0
}

#[raw_tracepoint]
fn synack_repeated(ctx: RawTracePointContext) -> i32 {
    if let Some(counts) = counts(netns::of_socket(ctx.arg(0))) {
        counts.retransmits[kind::SYNACK] += 1;
    }
    0
}

#[raw_tracepoint]
fn reset_sent(ctx: RawTracePointContext) -> i32 {
    let net = match ctx.arg::<u64>(0) {
        0 => netns::of_packet(ctx.arg(1)),
        socket => netns::of_socket(socket),
    };
    if let Some(counts) = counts(net) {
        counts.resets[direction::TRANSMIT] += 1;
    }
    0
}

#[raw_tracepoint]
fn reset_received(ctx: RawTracePointContext) -> i32 {
    if let Some(counts) = counts(netns::of_socket(ctx.arg(0))) {
        counts.resets[direction::RECEIVE] += 1;
    }
    0
}

/// Where it is counted.
#[inline(always)]
fn counts(net: u64) -> Option<&'static mut TcpCounts> {
    let own = netns::watched(net).and_then(|number| COUNTS.get_ptr_mut(number));
    let counts = own.or_else(|| UNWATCHED.get_ptr_mut(0))?;
    // SAFETY: the value is this CPU's own and lives as long as the program runs; see the file's comment.
    Some(unsafe { &mut *counts })
}

#[inline(always)]
fn add(times: &mut Times, nanoseconds: u64) {
    let mut bucket = TIMES - 1;
    // From above, so that the last one that holds it is the lowest.
    for index in (0..TIME_BOUNDS.len()).rev() {
        if nanoseconds <= u64::from(TIME_BOUNDS[index]) * 1000 {
            bucket = index;
        }
    }
    if bucket < TIMES {
        times.buckets[bucket] += 1;
    }
    times.nanoseconds += nanoseconds;
}
