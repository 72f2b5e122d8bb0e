//! What every eBPF object needs besides its programs: a licence and a panic handler.

/// Never reached: the verifier refuses a program that could come here and not return.
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// The kernel lets only GPL-compatible programs call some helpers, and reads the licence from this section.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
