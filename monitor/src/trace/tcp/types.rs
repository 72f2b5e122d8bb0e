//! Where TCP keeps what the programs read, by this kernel's own types, and which tracepoints it has.

use monitor_ebpf::{
    health::{
        CA_MASK, CA_SHIFT, CA_STATE, RTO_TIME, SEGS_OUT, SK_ERR, SK_PROTOCOL, SK_STATE, SKB_SEGS, SRTT,
        TRACEPOINTS, errno,
    },
    trace::{ABSENT, NET_COOKIE},
};

use crate::trace::{
    Btf, Missing,
    kernel::{self, offset, ours},
    object::Globals,
};

// The program knows error numbers by heart.
const _: () = {
    assert!(errno::REFUSED == libc::ECONNREFUSED && errno::TIMEOUT == libc::ETIMEDOUT);
    let [acces, nonet, down, net, host_down, host] = errno::UNREACHABLE;
    assert!(acces == libc::EACCES && nonet == libc::ENONET && down == libc::ENETDOWN);
    assert!(net == libc::ENETUNREACH && host_down == libc::EHOSTDOWN && host == libc::EHOSTUNREACH);
};

/// This kernel, as far as its types tell.
#[derive(Clone, Debug)]
pub(super) struct Types {
    /// Values of the programs' globals, by name.
    pub(super) globals: Globals,
    /// Which of [`TRACEPOINTS`] there are.
    pub(super) has: [bool; TRACEPOINTS.len()],
}

impl Types {
    pub(super) fn of(btf: &Btf) -> Result<Self, Missing> {
        let mut globals = ours(btf)?;
        for (global, path) in [
            (SK_PROTOCOL, "sock.sk_protocol"),
            (SK_ERR, "sock.sk_err"),
            (SK_STATE, "sock.__sk_common.skc_state"),
            (SRTT, "tcp_sock.srtt_us"),
            (SEGS_OUT, "tcp_sock.segs_out"),
        ] {
            globals.insert(global, offset(btf, path)?);
        }
        let segments = offset(btf, "sk_buff.cb")? + offset(btf, "tcp_skb_cb.tcp_gso_segs")?;
        globals.insert(SKB_SEGS, segments);
        globals.insert(RTO_TIME, btf.offset("tcp_sock.total_rto_time").unwrap_or(ABSENT));
        let state = "inet_connection_sock.icsk_ca_state";
        let (byte, shift, mask) = btf.bit_field(state).ok_or_else(|| kernel::lacks(state))?;
        globals.extend([(CA_STATE, byte), (CA_SHIFT, shift), (CA_MASK, mask)]);
        let has = TRACEPOINTS.map(|name| btf.tracepoint(name).is_some());
        if has == [false; TRACEPOINTS.len()] {
            return Err(Missing::new(format!("there is no tracepoint {}", TRACEPOINTS.join(", "))));
        }
        Ok(Self { globals, has })
    }

    pub(super) fn has_cookie(&self) -> bool {
        self.globals.get(NET_COOKIE).is_some_and(|&offset| offset != ABSENT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_kernels_types_have_all_that_is_needed() {
        let types = Types::of(&Btf::running().expect("a kernel with BTF")).expect("all of it");
        assert!(types.has_cookie());
        assert_eq!(types.has, [true; TRACEPOINTS.len()]);
        // A socket is the beginning of a TCP socket, and `srtt_us` is none of its own members.
        assert!(types.globals[SRTT] > types.globals[SK_ERR]);
        assert!(types.globals[CA_MASK] >= 7, "five states at least");
    }
}
