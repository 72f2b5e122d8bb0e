//! Reads the kernel's own figures of a namespace, from a thread that is in it.

use std::{
    fs::File,
    io::{self, Read as _},
};

use super::connections::connections;
use crate::topology::figures::{FILES, Figures};

/// The figures of the calling thread's namespace. What the kernel does not have is absent.
pub fn figures() -> Figures {
    let texts = FILES.map(|file| read(&format!("/proc/thread-self/net/{file}")).unwrap_or_default());
    let number = |name: &str| -> Option<u64> {
        read(&format!("/proc/sys/net/netfilter/nf_conntrack_{name}")).ok()?.trim().parse().ok()
    };
    let conntrack = number("count").and_then(|count| Some((count, number("max")?)));
    let connections = connections()
        .inspect_err(|error| log::debug!("TCP connections of a namespace cannot be told: {error}"))
        .ok();
    Figures { connections, ..Figures::parse(&texts, conntrack) }
}

/// In one piece: these files are made anew for each reading, and have no length to go by.
pub(super) fn read(path: &str) -> io::Result<String> {
    let mut text = String::with_capacity(8192);
    File::open(path)?.read_to_string(&mut text)?;
    Ok(text)
}
