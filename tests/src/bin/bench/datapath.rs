//! `bench datapath [--rounds N]`: what a packet costs in the real programs, beside an empty one and one that only adds.
//!
//! `BPF_PROG_TEST_RUN` repeats a program inside the kernel. In each round all cases take turns, ten times, so that
//! whatever else the machine does meets them alike; the best turn is a case's figure of the round, and the medians of
//! the rounds are compared. Caches are warm and branches are learnt: this is the cost of the instructions, not of a
//! cold packet.

use std::process::ExitCode;

use anyhow::{Result, bail};
use monitor_ebpf::{EGRESS, INGRESS};
use monitor_tests::{
    frames::{arp, ethernet, ipv4, ipv6, tag, tcp, udp},
    test_run::{Loaded, Skb},
};

const TURNS: u32 = 10;
/// Runs of the program in one turn.
const REPEAT: u32 = 100_000;
/// Nanoseconds above the empty program that a plain TCP or UDP packet may cost.
const TARGET: u64 = 7;

/// One row of the table.
struct Case<'a> {
    object: &'a Loaded,
    program: &'static str,
    name: String,
    frame: &'a [u8],
    skb: Skb,
    /// Whether the target applies.
    plain: bool,
    nanoseconds: Vec<u64>,
}

pub(crate) fn datapath(rounds: usize) -> Result<ExitCode> {
    if rounds == 0 {
        bail!("at least one round");
    }
    let (baseline, shared, inside) = (Loaded::baseline()?, Loaded::shared(1)?, Loaded::inside()?);
    // Opt-in: what they cost comes on top of the others.
    let (flows, dns) = (Loaded::flows()?, Loaded::dns()?);
    let segment = tcp(0x10, 0, &[0; 10]);
    let frames = [
        ("IPv4 TCP, 64 B", true, 0, ethernet(0x0800, &ipv4(6, &segment))),
        ("IPv4 UDP, 1500 B", true, 0, ethernet(0x0800, &ipv4(17, &udp(9, &[0; 1458])))),
        ("IPv6 TCP, 84 B", true, 0, ethernet(0x86dd, &ipv6(6, &segment))),
        ("IPv6 UDP, 1500 B", true, 0, ethernet(0x86dd, &ipv6(17, &udp(9, &[0; 1438])))),
        ("IPv4 TCP SYN, 64 B", false, 0, ethernet(0x0800, &ipv4(6, &tcp(0x02, 0, &[0; 10])))),
        ("ARP, 42 B", false, 0, ethernet(0x0806, &arp())),
        ("VLAN IPv4 TCP, 68 B", false, 0, ethernet(0x8100, &tag(0x0800, &ipv4(6, &segment)))),
        ("IPv4 TCP, GSO", false, 1400, ethernet(0x0800, &ipv4(6, &tcp(0x10, 0, &[0; 3000])))),
    ];
    let case = |object, program, name: &str, frame, gso_size, plain| Case {
        object,
        program,
        name: name.to_owned(),
        frame,
        skb: Skb { ifindex: 1, gso_size, gso_segs: gso_size / 466 },
        plain,
        nanoseconds: Vec::new(),
    };
    let mut cases = vec![
        case(&baseline, "empty", "empty program", frames[0].3.as_slice(), 0, false),
        case(&baseline, "one_slot", "one static slot, two additions", &frames[0].3, 0, false),
    ];
    for (object, program, label) in
        [(&shared, INGRESS, "shared"), (&shared, EGRESS, "shared"), (&inside, INGRESS, "inside")]
    {
        for (name, plain, gso_size, frame) in &frames {
            cases.push(case(
                object,
                program,
                &format!("{label} {program}: {name}"),
                frame,
                *gso_size,
                *plain,
            ));
        }
    }
    for (object, label) in [(&flows, "flows"), (&dns, "dns")] {
        for (name, _, gso_size, frame) in &frames {
            cases.push(case(object, INGRESS, &format!("{label} {INGRESS}: {name}"), frame, *gso_size, false));
        }
    }
    let (query, response) = (dns_message(53, 0x01), dns_message(4000, 0x81));
    cases.push(case(&dns, INGRESS, &format!("dns {INGRESS}: query, repeated"), &query, 0, false));
    cases.push(case(&dns, INGRESS, &format!("dns {INGRESS}: response to no query"), &response, 0, false));
    for _ in 0..rounds {
        cases.iter_mut().for_each(|case| case.nanoseconds.push(u64::MAX));
        for _ in 0..TURNS {
            for Case { object, program, frame, skb, nanoseconds, .. } in &mut cases {
                let run = object.run(program, frame, *skb, REPEAT)?;
                if let Some(best) = nanoseconds.last_mut() {
                    *best = run.nanoseconds.min(*best);
                }
            }
        }
    }
    let verdict = report(&mut cases, rounds);
    drop(cases);
    for (name, mut object) in [("shared", shared), ("inside", inside), ("flows", flows), ("dns", dns)] {
        let info = object.program(INGRESS)?.info()?;
        println!(
            "{name} {INGRESS}: {} instructions verified, {} bytes of machine code",
            info.verified_instruction_count().unwrap_or_default(),
            info.size_jitted()
        );
    }
    Ok(verdict)
}

/// A DNS message to a port; from port 53 where it is to another.
fn dns_message(port: u16, flags: u8) -> Vec<u8> {
    let mut datagram = udp(port, &[0, 7, flags, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, b'a', 0, 0, 1, 0, 1]);
    if port != 53 {
        datagram[..2].copy_from_slice(&53_u16.to_be_bytes());
    }
    ethernet(0x0800, &ipv4(17, &datagram))
}

/// Prints the table and the verdict.
fn report(cases: &mut [Case<'_>], rounds: usize) -> ExitCode {
    let medians: Vec<u64> = cases.iter_mut().map(|case| median(&mut case.nanoseconds)).collect();
    let empty = medians[0];
    println!("{:<44} {:>6} {:>12}   {:>9}", "program and frame", "ns", "above empty", "min..max");
    for (case, median) in cases.iter().zip(&medians) {
        let range = format!("{}..{}", case.nanoseconds[0], case.nanoseconds[rounds - 1]);
        println!("{:<44} {median:>6} {:>12}   {range:>9}", case.name, median.saturating_sub(empty));
    }
    let worst = cases
        .iter()
        .zip(&medians)
        .filter(|(case, _)| case.plain)
        .map(|(_, median)| median.saturating_sub(empty))
        .max();
    let worst = worst.unwrap_or(0);
    let verdict = if worst <= TARGET { "reached" } else { "MISSED" };
    println!(
        "target {verdict}: plain IPv4 and IPv6 TCP and UDP cost at most {worst} ns above the empty program \
         (to reach: {TARGET}); medians of {rounds} rounds, best of {TURNS} turns of {REPEAT} runs in each"
    );
    if worst <= TARGET { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Sorts, and takes the middle.
fn median(values: &mut [u64]) -> u64 {
    values.sort_unstable();
    values[values.len() / 2]
}
