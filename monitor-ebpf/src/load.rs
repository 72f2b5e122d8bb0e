//! Reading a packet wherever its bytes are.

use aya_ebpf::programs::TcContext;

/// A number in network order.
#[inline(always)]
pub(crate) fn load_u16(ctx: &TcContext, offset: u32) -> Option<u16> {
    ctx.load::<[u8; 2]>(offset as usize).ok().map(u16::from_be_bytes)
}
