//! What the TCP programs share with the agent: names, and what is counted of each namespace.
//!
//! Types and constants only, as in the rest of this library. Namespaces are watched as in [`crate::trace`].

/// Version of what the TCP programs' maps hold. Raise it whenever one of them changes shape or meaning.
pub const TCP_LAYOUT: u32 = 1;

/// The tracepoints, by the number of the program in [`crate::trace::PROGRAMS_MAP`] that counts for each. The program
/// that is attached has the tracepoint's name and only jumps, see [`crate::trace::KFREE_SKB`].
pub const TRACEPOINTS: [&str; 5] = [
    "inet_sock_set_state",
    "tcp_retransmit_skb",
    "tcp_retransmit_synack",
    "tcp_send_reset",
    "tcp_receive_reset",
];
/// The programs that count, in the same order.
pub const COUNTING: [&str; TRACEPOINTS.len()] =
    ["state_changed", "retransmitted", "synack_repeated", "reset_sent", "reset_received"];

/// Per-CPU hash from the number of a watched namespace to its [`TcpCounts`]; user space alone inserts.
pub const COUNTS_MAP: &str = "COUNTS";
/// Per-CPU array of one [`TcpCounts`]: what happened in no watched namespace.
pub const UNWATCHED_MAP: &str = "UNWATCHED";
/// Hash from the address of a socket to when it began to connect (ns of `CLOCK_MONOTONIC`).
pub const CONNECTING_MAP: &str = "CONNECTING";

/// Connects under way at one moment whose time is taken. The handshake of one beyond is not timed, but counted.
pub const CONNECTING: usize = 16_384;

/// Read-only globals (`u32`, bytes unless said otherwise): offset of the protocol in `struct sock`.
pub const SK_PROTOCOL: &str = "SK_PROTOCOL";
/// Of the error in `struct sock`.
pub const SK_ERR: &str = "SK_ERR";
/// Of the state in `struct sock`.
pub const SK_STATE: &str = "SK_STATE";
/// Of the smoothed round-trip time in `struct tcp_sock`.
pub const SRTT: &str = "SRTT";
/// Of the number of segments sent in `struct tcp_sock`.
pub const SEGS_OUT: &str = "SEGS_OUT";
/// Of the time spent after time-outs in `struct tcp_sock` (since 6.7), or [`crate::trace::ABSENT`].
pub const RTO_TIME: &str = "RTO_TIME";
/// Of the byte that holds the state of the congestion control in `struct inet_connection_sock`.
pub const CA_STATE: &str = "CA_STATE";
/// How many bits of that byte are to the right of it.
pub const CA_SHIFT: &str = "CA_SHIFT";
/// What is left of it after that.
pub const CA_MASK: &str = "CA_MASK";
/// Of the number of segments in `struct sk_buff`, where TCP keeps it.
pub const SKB_SEGS: &str = "SKB_SEGS";

/// Why segments were sent again, by position in [`TcpCounts::retransmits`].
pub mod kind {
    /// A SYN, by the time-out.
    pub const SYN: usize = 0;
    /// A SYN-ACK.
    pub const SYNACK: usize = 1;
    /// Acknowledgements told of the loss: fast retransmit.
    pub const FAST: usize = 2;
    /// The retransmission time-out.
    pub const TIMEOUT: usize = 3;
    /// Neither: a probe for the loss of the last segments, mostly.
    pub const PROBE: usize = 4;
}
/// Number of kinds.
pub const KINDS: usize = 5;

/// Why a connect failed, by position in [`TcpCounts::failures`].
pub mod failure {
    /// `ECONNREFUSED`: answered by a reset, or by ICMP that says there is no such port.
    pub const REFUSED: usize = 0;
    /// `ETIMEDOUT`: no answer.
    pub const TIMEOUT: usize = 1;
    /// `ENETUNREACH`, `EHOSTUNREACH` and the like: by ICMP, or nobody answers for the address.
    pub const UNREACHABLE: usize = 2;
    /// The program gave up before there was an answer.
    pub const ABANDONED: usize = 3;
    /// Nothing was sent: there was no free port, mostly.
    pub const UNSENT: usize = 4;
    /// Any other error.
    pub const OTHER: usize = 5;
}
/// Number of reasons.
pub const FAILURES: usize = 6;

/// Error numbers behind the reasons; those of most architectures. Whoever loads the programs checks that they are its own.
pub mod errno {
    /// `ECONNREFUSED`.
    pub const REFUSED: i32 = 111;
    /// `ETIMEDOUT`.
    pub const TIMEOUT: i32 = 110;
    /// `EACCES`, `ENONET`, `ENETDOWN`, `ENETUNREACH`, `EHOSTDOWN`, `EHOSTUNREACH`: what ICMP and ICMPv6 become.
    pub const UNREACHABLE: [i32; 6] = [13, 64, 100, 101, 112, 113];
}

/// By direction, as in [`TcpCounts::resets`].
pub mod direction {
    /// Towards the namespace.
    pub const RECEIVE: usize = 0;
    /// From the namespace.
    pub const TRANSMIT: usize = 1;
}

/// By role, as in [`TcpCounts::opened`].
pub mod role {
    /// It connected.
    pub const CLIENT: usize = 0;
    /// It was connected to.
    pub const SERVER: usize = 1;
}

/// Upper bounds (inclusive, µs) of the buckets of times; the last bucket is open.
pub const TIME_BOUNDS: [u32; 15] = [
    100, 250, 500, 1000, 2500, 5000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000,
    5_000_000,
];
/// Number of buckets of times.
pub const TIMES: usize = TIME_BOUNDS.len() + 1;

/// Times that were taken.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Times {
    /// By bucket, see [`TIME_BOUNDS`].
    pub buckets: [u64; TIMES],
    /// Their sum.
    pub nanoseconds: u64,
}

/// What TCP met with in one namespace. Every field only rises, and each is written by one of the programs alone, so that
/// one that interrupts another on its CPU disturbs no addition.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpCounts {
    /// Segments sent again, by [`kind`].
    pub retransmits: [u64; KINDS],
    /// Connects that failed, by [`failure`].
    pub failures: [u64; FAILURES],
    /// Resets, by [`direction`].
    pub resets: [u64; 2],
    /// Connections that came to be, by [`role`].
    pub opened: [u64; 2],
    /// Their handshakes, by [`role`].
    pub handshakes: [Times; 2],
    /// Smoothed round-trip time of connections at their end.
    pub rtt: Times,
}

const _: () = assert!(size_of::<Times>() == 136);
const _: () = assert!(size_of::<TcpCounts>() == 528);
