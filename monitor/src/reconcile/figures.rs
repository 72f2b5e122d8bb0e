//! Reads the kernel's own figures of a namespace, from a thread that is in it.

use std::{
    fs::File,
    io::{self, Read as _},
};

use super::connections::connections;
use crate::topology::figures::{FILES, Figures, Parts};

/// The figures of the calling thread's namespace, as far as they are wanted. What the kernel does not have is absent.
pub fn figures(parts: Parts) -> Figures {
    figures_by(parts, &mut read)
}

fn figures_by(parts: Parts, read: &mut dyn FnMut(&str) -> io::Result<String>) -> Figures {
    let mut texts = FILES.map(|_| String::new());
    for (at, (text, file)) in texts.iter_mut().zip(FILES).enumerate() {
        let wanted = if at + 1 == FILES.len() { parts.conntrack } else { parts.netstat };
        if wanted {
            *text = read(&format!("/proc/thread-self/net/{file}")).unwrap_or_default();
        }
    }
    let mut number = |name: &str| -> Option<u64> {
        read(&format!("/proc/sys/net/netfilter/nf_conntrack_{name}")).ok()?.trim().parse().ok()
    };
    let mut numbers = || Some((number("count")?, number("max")?));
    let conntrack = if parts.conntrack { numbers() } else { None };
    let connections = || {
        connections()
            .inspect_err(|error| log::debug!("TCP connections of a namespace cannot be told: {error}"))
            .ok()
    };
    let connections = if parts.netstat { connections() } else { None };
    Figures { connections, ..Figures::parse(&texts, conntrack) }
}

/// In one piece: these files are made anew for each reading, and have no length to go by.
pub(super) fn read(path: &str) -> io::Result<String> {
    let mut text = String::with_capacity(8192);
    File::open(path)?.read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(netstat: bool, conntrack: bool) -> (Vec<String>, Figures) {
        let mut asked = Vec::new();
        let mut read = |path: &str| {
            asked.push(path.rsplit('/').next().unwrap_or_default().to_owned());
            Ok("7".to_owned())
        };
        let figures = figures_by(Parts { netstat, conntrack }, &mut read);
        (asked, figures)
    }

    #[test]
    fn what_is_not_wanted_is_not_read() {
        assert_eq!(files(false, false), (Vec::new(), Figures::default()));
        assert_eq!(files(true, false).0, ["snmp", "netstat", "snmp6"]);
        let (asked, figures) = files(false, true);
        assert_eq!(asked, ["nf_conntrack", "nf_conntrack_count", "nf_conntrack_max"]);
        assert_eq!(figures.conntrack.map(|conntrack| conntrack.entries), Some(7));
        assert_eq!(files(true, true).0.len(), 6);
    }
}
