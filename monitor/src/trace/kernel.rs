//! What the programs must know of this kernel: where things lie in its structures, and what its reasons are called.

use std::{collections::BTreeMap, fs, path::Path};

use monitor_ebpf::trace::{ABSENT, DEV_NET, HAS_RX_SK, NET_COOKIE, NET_INUM, SKB_DEV, SKB_SK, SOCK_NET};

use super::{btf::Btf, object::Globals};

/// Where the kernel shows its type information.
const VMLINUX: &str = "/sys/kernel/btf/vmlinux";
/// Bits of a reason that name the subsystem: `SKB_DROP_REASON_SUBSYS_SHIFT`.
const SUBSYSTEM_SHIFT: u32 = 16;

/// Where a namespace's cookie may be: of its own, or the number that all kinds of namespaces have by now. Of two that are
/// there the first is meant, and they are equal.
const COOKIES: [&str; 2] = ["net.net_cookie", "net.ns.ns_id"];

/// What this kernel lacks for a feature: what is missing, and since when there is such.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct Missing {
    what: String,
}

/// This kernel, as far as its types tell.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// Values of the programs' globals, by name.
    pub(super) globals: Globals,
    reasons: Reasons,
}

/// Names of drop reasons.
#[derive(Clone, Debug, Default)]
pub struct Reasons {
    names: BTreeMap<u32, String>,
    subsystems: BTreeMap<u32, String>,
}

impl Kernel {
    /// Reads the running kernel's types.
    ///
    /// # Errors
    /// It has none to read, or they lack something.
    pub fn running() -> Result<Self, Missing> {
        Self::of(&Btf::running()?)
    }

    /// What is needed of types.
    ///
    /// # Errors
    /// They lack something.
    pub fn of(btf: &Btf) -> Result<Self, Missing> {
        let parameters = btf.tracepoint("kfree_skb");
        let Some(parameters) = parameters.filter(|parameters| parameters.len() > 2) else {
            return Err(Missing {
                what: "the tracepoint kfree_skb tells no reason (it does since 5.17)".to_owned(),
            });
        };
        let mut globals = ours(btf)?;
        globals.insert(SKB_SK, offset(btf, "sk_buff.sk")?);
        globals.insert(HAS_RX_SK, u32::from(parameters.get(3) == Some(&"sock")));
        Ok(Self { globals, reasons: Reasons::from_btf(btf)? })
    }

    /// Whether namespaces are told apart by their cookie; else only by their inode, which is used again.
    pub fn has_cookie(&self) -> bool {
        self.globals.get(NET_COOKIE).is_some_and(|&offset| offset != ABSENT)
    }

    /// Names of its reasons.
    pub fn reasons(&self) -> &Reasons {
        &self.reasons
    }
}

impl Btf {
    /// Reads the running kernel's types: some megabytes, so not more often than needed.
    ///
    /// # Errors
    /// It has none to read.
    pub fn running() -> Result<Self, Missing> {
        let data = fs::read(Path::new(VMLINUX)).map_err(|error| {
            Missing::new(format!("{VMLINUX}: {error} (a kernel with CONFIG_DEBUG_INFO_BTF has it)"))
        })?;
        Self::parse(data).map_err(|error| Missing::new(format!("{VMLINUX}: {error}")))
    }
}

/// What tells whose a structure is.
pub(super) fn ours(btf: &Btf) -> Result<Globals, Missing> {
    let mut globals = Globals::new();
    for (global, path) in [
        (SKB_DEV, "sk_buff.dev"),
        (DEV_NET, "net_device.nd_net.net"),
        (SOCK_NET, "sock.__sk_common.skc_net.net"),
        (NET_INUM, "net.ns.inum"),
    ] {
        globals.insert(global, offset(btf, path)?);
    }
    let cookie = COOKIES.iter().find_map(|path| btf.offset(path));
    globals.insert(NET_COOKIE, cookie.unwrap_or(ABSENT));
    Ok(globals)
}

/// Where a member lies that must be there.
pub(super) fn offset(btf: &Btf, path: &str) -> Result<u32, Missing> {
    btf.offset(path).ok_or_else(|| lacks(path))
}

/// A member that is not there.
pub(super) fn lacks(path: &str) -> Missing {
    Missing::new(format!("the kernel's types have no {path}"))
}

impl Missing {
    pub(super) fn new(what: String) -> Self {
        Self { what }
    }
}

impl Reasons {
    fn from_btf(btf: &Btf) -> Result<Self, Missing> {
        let of = |name| btf.enumerators(name);
        let Some(core) = of("skb_drop_reason") else {
            return Err(Missing {
                what: "the kernel's types have no enum skb_drop_reason (since 5.17)".to_owned(),
            });
        };
        let mut names = BTreeMap::new();
        for (name, value) in core {
            let Ok(value) = u32::try_from(value) else { continue };
            // The end of the list and the mask are no reasons; of two names of one value the first is the proper one.
            if let Some(name) = name.strip_prefix("SKB_DROP_REASON_")
                && !matches!(name, "MAX" | "SUBSYS_MASK")
            {
                names.entry(value).or_insert_with(|| name.to_owned());
            }
        }
        let mut subsystems = BTreeMap::new();
        for (name, value) in of("skb_drop_reason_subsys").unwrap_or_default() {
            let Ok(value) = u32::try_from(value) else { continue };
            if let Some(name) = name.strip_prefix("SKB_DROP_REASON_SUBSYS_")
                && !matches!(name, "CORE" | "NUM")
            {
                subsystems.insert(value, name.to_owned());
            }
        }
        // Reasons of subsystems, where they are built in: their values hold the subsystem's number.
        for (name, value) in ["ovs_drop_reason", "mac80211_drop_reason"].into_iter().filter_map(of).flatten()
        {
            if let Some(value) = u32::try_from(value).ok().filter(|value| value >> SUBSYSTEM_SHIFT != 0) {
                names.entry(value).or_insert_with(|| name.trim_start_matches('_').to_owned());
            }
        }
        Ok(Self { names, subsystems })
    }

    /// The kernel's own name of a reason, as `perf`, `dropwatch` and the kernel's sources have it, without the prefix that
    /// all share: `NO_SOCKET`. Reasons of a subsystem that cannot be named are `OPENVSWITCH_7`, or `SUBSYS_3_7`.
    pub fn name(&self, reason: u32) -> String {
        if let Some(name) = self.names.get(&reason) {
            return name.clone();
        }
        let (subsystem, number) = (reason >> SUBSYSTEM_SHIFT, reason & ((1 << SUBSYSTEM_SHIFT) - 1));
        match (subsystem, self.subsystems.get(&subsystem)) {
            (0, _) => format!("REASON_{number}"),
            (_, Some(name)) => format!("{name}_{number}"),
            (_, None) => format!("SUBSYS_{subsystem}_{number}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_kernels_types_have_all_that_is_needed() {
        let kernel = Kernel::running().expect("a kernel of 5.17 or later with BTF");
        assert!(kernel.has_cookie());
        let name = |reason| kernel.reasons().name(reason);
        assert_eq!((name(2), name(3)), ("NOT_SPECIFIED".to_owned(), "NO_SOCKET".to_owned()));
        assert!(kernel.reasons().names.values().any(|name| name == "NETFILTER_DROP"));
        let unlike = [kernel.globals[SKB_DEV], kernel.globals[SKB_SK]];
        assert_ne!(unlike[0], unlike[1]);
    }

    #[test]
    fn reasons_without_a_name_are_told_by_subsystem_and_number() {
        let reasons = Reasons {
            names: [(3, "NO_SOCKET".to_owned())].into(),
            subsystems: [(2, "OPENVSWITCH".to_owned())].into(),
        };
        let names = [3, 4, 2 << 16 | 7, 9 << 16 | 1].map(|reason| reasons.name(reason));
        assert_eq!(names, ["NO_SOCKET", "REASON_4", "OPENVSWITCH_7", "SUBSYS_9_1"]);
    }
}
