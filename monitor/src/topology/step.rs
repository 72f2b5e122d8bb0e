//! One change of the kernel, as a value: prints the `ip` line it equals and knows its undo.

use std::fmt;

use ipnet::IpNet;

use super::{
    Route,
    adopt::Adopt,
    inner::MacvlanMode,
    names::{IfName, LinkId, MacAddr, NsName, Place, SysctlKey},
    outside::{Knob, Script, TableId},
    route::{Neighbour, Rule},
    tuning::Feature,
};

/// One change. Steps carry names, never handles or indexes, so a plan needs no result of an earlier step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Create a namespace, kept by its bind mount, and record that it is ours.
    CreateNetns {
        /// Its name.
        name: NsName,
    },
    /// Delete a namespace of ours: its mount and its record.
    DeleteNetns {
        /// Its name.
        name: NsName,
    },
    /// Create a bridge (down), tagged as ours.
    CreateBridge {
        /// Its name.
        name: IfName,
        /// MTU in bytes.
        mtu: Option<u32>,
        /// MAC address.
        mac: Option<MacAddr>,
    },
    /// Create a veth pair (both ends down), each end directly where it belongs, tagged as ours.
    CreateVeth {
        /// One end; the host's when exactly one is.
        a: NewEnd,
        /// The other end.
        b: NewEnd,
    },
    /// Create a macvlan (down) directly where it belongs, tagged as ours.
    CreateMacvlan {
        /// The device of the host it is on.
        parent: IfName,
        /// Who hears whom.
        mode: MacvlanMode,
        /// The interface.
        end: NewEnd,
    },
    /// Note what a device of the host is like, and move it into a namespace.
    Lend {
        /// The device.
        device: IfName,
        /// Where it goes, and its name there.
        link: LinkId,
    },
    /// Take a device back, and put it as it was.
    TakeBack {
        /// The device, by its name in the host's namespace.
        device: IfName,
        /// Where it was lent to.
        link: LinkId,
    },
    /// Change how many packets may wait to be sent.
    SetTxQueueLen {
        /// Of which link.
        link: LinkId,
        /// Before; absent where the link is new.
        from: Option<u32>,
        /// After.
        to: u32,
    },
    /// Have the device do something, or the CPU.
    SetOffload {
        /// Which link.
        link: LinkId,
        /// What.
        feature: Feature,
        /// Whether the device does it.
        on: bool,
    },
    /// Delete a link of ours (a veth goes with its peer).
    DeleteLink {
        /// Which.
        link: LinkId,
    },
    /// Make a host link a port of a bridge, or of none.
    SetBridge {
        /// The port.
        link: LinkId,
        /// The bridge it is a port of before.
        from: Option<IfName>,
        /// The bridge it is a port of after.
        to: Option<IfName>,
    },
    /// Change the MTU.
    SetMtu {
        /// Of which link.
        link: LinkId,
        /// Before, in bytes.
        from: u32,
        /// After, in bytes.
        to: u32,
    },
    /// Change the MAC address.
    SetMac {
        /// Of which link.
        link: LinkId,
        /// Before.
        from: MacAddr,
        /// After.
        to: MacAddr,
    },
    /// Count the link's packets: both programs, before the link is set up.
    Attach {
        /// Which.
        link: LinkId,
    },
    /// Add an address.
    AddAddress {
        /// To which link.
        link: LinkId,
        /// With prefix length.
        address: IpNet,
    },
    /// Remove an address.
    DeleteAddress {
        /// From which link.
        link: LinkId,
        /// With prefix length.
        address: IpNet,
    },
    /// Set a link up.
    SetUp {
        /// Which.
        link: LinkId,
    },
    /// Set a link down.
    SetDown {
        /// Which.
        link: LinkId,
    },
    /// Write down that a namespace somebody else made is wired, or owned, by us, and what it was like before.
    Adopt {
        /// Its name.
        name: NsName,
        /// Wired or owned.
        how: Adopt,
    },
    /// Forget that: nothing of ours is left in it, or it is owned no more.
    Leave {
        /// Its name.
        name: NsName,
        /// Wired or owned.
        how: Adopt,
    },
    /// Change a kernel setting of a namespace. What it was before us is written down first, and forgotten when it is that again.
    SetSysctl {
        /// In which namespace.
        netns: NsName,
        /// Which.
        key: SysctlKey,
        /// Before, where there was such.
        from: Option<String>,
        /// After.
        to: String,
    },
    /// Add a route.
    AddRoute {
        /// Where.
        place: Place,
        /// Which.
        route: Route,
    },
    /// Remove a route, of the protocol it says only.
    DeleteRoute {
        /// Where.
        place: Place,
        /// Which.
        route: Route,
    },
    /// Keep a port apart from the other isolated ports of its bridge, or not.
    SetIsolated {
        /// The port.
        link: LinkId,
        /// Whether.
        on: bool,
    },
    /// Make or replace a table of ours, as one transaction.
    SetTable {
        /// Which.
        id: TableId,
        /// Its name.
        name: String,
        /// What it shall say.
        script: Script,
        /// What of the one that is there is kept and what goes; absent where it is made anew.
        update: Option<Update>,
    },
    /// Delete a table of ours.
    DeleteTable {
        /// Which.
        id: TableId,
        /// Its name.
        name: String,
    },
    /// Turn a switch of a link of the host on, noting how it was.
    TurnOn {
        /// The link's name.
        link: IfName,
        /// The switch.
        knob: Knob,
    },
    /// Put a switch back as it was before us.
    PutBack {
        /// The link's name.
        link: IfName,
        /// The switch.
        knob: Knob,
        /// How it was.
        to: bool,
    },
    /// Add a policy rule, marked as ours.
    AddRule {
        /// Where.
        place: Place,
        /// Which.
        rule: Rule,
    },
    /// Remove a policy rule of ours.
    DeleteRule {
        /// Where.
        place: Place,
        /// Which.
        rule: Rule,
    },
    /// Add a permanent neighbour, instead of what was learnt about it.
    AddNeighbour {
        /// Where.
        place: Place,
        /// Which.
        neighbour: Neighbour,
    },
    /// Remove a permanent neighbour.
    DeleteNeighbour {
        /// Where.
        place: Place,
        /// Which.
        neighbour: Neighbour,
    },
}

/// What goes of a table that stays.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Update {
    /// Counters that nothing refers to any more.
    pub counters: Vec<String>,
    /// The set whose name holds the fingerprints.
    pub stamp: Option<String>,
}

/// One end of a veth pair to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewEnd {
    /// Where, and its name there.
    pub link: LinkId,
    /// MAC address; the kernel's choice when absent.
    pub mac: Option<MacAddr>,
    /// MTU in bytes; the kernel's default when absent.
    pub mtu: Option<u32>,
    /// Queues in each direction; the kernel's choice when absent.
    pub queues: Option<u32>,
}

impl Step {
    /// Its first line: a transaction of nft has many.
    pub fn title(&self) -> String {
        self.to_string().lines().next().unwrap_or_default().to_owned()
    }

    /// The step that takes this one back; absent where there is none: what is deleted cannot be brought back, and
    /// programs go with the link they are attached to.
    pub fn undo(&self) -> Option<Self> {
        Some(match self.clone() {
            Self::CreateNetns { name } => Self::DeleteNetns { name },
            Self::CreateBridge { name, .. } => Self::DeleteLink { link: LinkId::host(name) },
            Self::CreateMacvlan { end, .. } => Self::DeleteLink { link: end.link },
            Self::Lend { device, link } => Self::TakeBack { device, link },
            Self::SetTxQueueLen { link, from: Some(from), to } => {
                Self::SetTxQueueLen { link, from: Some(to), to: from }
            }
            Self::SetOffload { link, feature, on } => Self::SetOffload { link, feature, on: !on },
            Self::CreateVeth { a, .. } => Self::DeleteLink { link: a.link },
            Self::SetBridge { link, from, to } => Self::SetBridge { link, from: to, to: from },
            Self::SetMtu { link, from, to } => Self::SetMtu { link, from: to, to: from },
            Self::SetMac { link, from, to } => Self::SetMac { link, from: to, to: from },
            Self::AddAddress { link, address } => Self::DeleteAddress { link, address },
            Self::DeleteAddress { link, address } => Self::AddAddress { link, address },
            Self::SetUp { link } => Self::SetDown { link },
            Self::SetDown { link } => Self::SetUp { link },
            Self::AddRoute { place, route } => Self::DeleteRoute { place, route },
            Self::DeleteRoute { place, route } => Self::AddRoute { place, route },
            Self::SetIsolated { link, on } => Self::SetIsolated { link, on: !on },
            Self::SetTable { id, name, update: None, .. } => Self::DeleteTable { id, name },
            Self::TurnOn { link, knob } => Self::PutBack { link, knob, to: false },
            Self::Adopt { name, how } => Self::Leave { name, how },
            Self::Leave { name, how } => Self::Adopt { name, how },
            Self::SetSysctl { netns, key, from: Some(from), to } => {
                Self::SetSysctl { netns, key, from: Some(to), to: from }
            }
            // It came with an interface, and goes with it.
            Self::SetSysctl { from: None, .. } => return None,
            Self::AddRule { place, rule } => Self::DeleteRule { place, rule },
            Self::DeleteRule { place, rule } => Self::AddRule { place, rule },
            Self::AddNeighbour { place, neighbour } => Self::DeleteNeighbour { place, neighbour },
            Self::DeleteNeighbour { place, neighbour } => Self::AddNeighbour { place, neighbour },
            Self::DeleteNetns { .. }
            | Self::DeleteLink { .. }
            | Self::Attach { .. }
            | Self::SetTable { .. }
            | Self::DeleteTable { .. }
            | Self::PutBack { .. }
            | Self::TakeBack { .. }
            | Self::SetTxQueueLen { .. } => return None,
        })
    }
}

/// The line of `ip` that the step equals.
impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CreateNetns { name } => write!(f, "ip netns add {name}"),
            Self::DeleteNetns { name } => write!(f, "ip netns delete {name}"),
            Self::CreateBridge { name, mtu, mac } => {
                write!(
                    f,
                    "ip link add {name}{} type bridge",
                    Properties { mtu: *mtu, mac: *mac, queues: None }
                )
            }
            Self::CreateMacvlan { parent, mode, end: NewEnd { link, mac, mtu, queues } } => {
                write!(f, "ip link add link {parent} name {}", link.name)?;
                if let Place::Netns(netns) = &link.place {
                    write!(f, " netns {netns}")?;
                }
                let properties = Properties { mtu: *mtu, mac: *mac, queues: *queues };
                write!(f, "{properties} type macvlan mode {mode}")
            }
            Self::Lend { device, link } => match &link.place {
                Place::Netns(netns) => write!(f, "ip link set {device} netns {netns} name {}", link.name),
                Place::Host => write!(f, "ip link set {device} name {}", link.name),
            },
            Self::TakeBack { device, link } => {
                let (at, name) = (At(&link.place), &link.name);
                write!(f, "{at} link set {name} netns 1 name {device}  # and as it was before")
            }
            Self::SetTxQueueLen { link, from: _, to } => {
                write!(f, "{} link set {} txqueuelen {to}", At(&link.place), link.name)
            }
            Self::SetOffload { link, feature, on } => {
                let on = if *on { "on" } else { "off" };
                write!(f, "{}ethtool -K {} {feature} {on}", In(&link.place), link.name)
            }
            Self::CreateVeth { a, b } => {
                let NewEnd { link, mac, mtu, queues } = a;
                write!(
                    f,
                    "{} link add {}{}",
                    At(&link.place),
                    link.name,
                    Properties { mtu: *mtu, mac: *mac, queues: *queues }
                )?;
                let NewEnd { link, mac, mtu, queues } = b;
                write!(f, " type veth peer name {}", link.name)?;
                if let (Place::Netns(netns), true) = (&link.place, link.place != a.link.place) {
                    write!(f, " netns {netns}")?;
                }
                write!(f, "{}", Properties { mtu: *mtu, mac: *mac, queues: *queues })
            }
            Self::DeleteLink { link } => write!(f, "{} link delete {}", At(&link.place), link.name),
            Self::SetBridge { link, from: _, to: Some(bridge) } => {
                write!(f, "{} link set {} master {bridge}", At(&link.place), link.name)
            }
            Self::SetBridge { link, from: _, to: None } => {
                write!(f, "{} link set {} nomaster", At(&link.place), link.name)
            }
            Self::SetMtu { link, from: _, to } => {
                write!(f, "{} link set {} mtu {to}", At(&link.place), link.name)
            }
            Self::SetMac { link, from: _, to } => {
                write!(f, "{} link set {} address {to}", At(&link.place), link.name)
            }
            Self::Attach { link } => {
                write!(f, "# count {link}: attach eBPF to its tcx_ingress and tcx_egress (no ip equivalent)")
            }
            Self::AddAddress { link, address } => {
                // IPv6 addresses are usable at once: nobody else is given the same.
                let nodad = if matches!(address, IpNet::V6(_)) { " nodad" } else { "" };
                write!(f, "{} address add {address} dev {}{nodad}", At(&link.place), link.name)
            }
            Self::DeleteAddress { link, address } => {
                write!(f, "{} address delete {address} dev {}", At(&link.place), link.name)
            }
            Self::SetUp { link } => write!(f, "{} link set {} up", At(&link.place), link.name),
            Self::SetDown { link } => write!(f, "{} link set {} down", At(&link.place), link.name),
            Self::Adopt { name, how: Adopt::Own } => {
                write!(f, "# {name} exists: it is ours from now on (no ip equivalent)")
            }
            Self::Adopt { name, how: _ } => {
                write!(f, "# {name} exists: it is wired, and stays when it is left (no ip equivalent)")
            }
            Self::Leave { name, how: Adopt::Own } => {
                write!(f, "# {name} is not ours any more (no ip equivalent)")
            }
            Self::Leave { name, how: _ } => {
                write!(f, "# {name} is left as it was before (no ip equivalent)")
            }
            Self::SetSysctl { netns, key, from: _, to } => {
                let quote = if to.contains(char::is_whitespace) { "'" } else { "" };
                write!(f, "ip netns exec {netns} sysctl -w {quote}{key}={to}{quote}")
            }
            Self::AddRoute { place, route } => write!(f, "{} route add {route}", At(place)),
            Self::DeleteRoute { place, route } => write!(f, "{} route delete {route}", At(place)),
            Self::SetIsolated { link, on } => {
                let on = if *on { "on" } else { "off" };
                write!(f, "{} link set {} type bridge_slave isolated {on}", At(&link.place), link.name)
            }
            Self::SetTable { id, name, script, update } => {
                let script = transaction(id, name, script, update.as_ref(), "");
                write!(f, "{}nft -f - <<'END' # table {} {name}\n{script}END", In(&id.place), id.family)
            }
            Self::DeleteTable { id: TableId { place, family }, name } => {
                write!(f, "{}nft delete table {family} {name}", In(place))
            }
            Self::TurnOn { link, knob } => write!(f, "sysctl -w {}=1", Sysctl(link, *knob)),
            Self::PutBack { link, knob, to } => {
                write!(f, "sysctl -w {}={}", Sysctl(link, *knob), u8::from(*to))
            }
            Self::AddRule { place, rule } => write!(f, "{}{} rule add {rule}", At(place), family(rule)),
            Self::DeleteRule { place, rule } => write!(f, "{}{} rule delete {rule}", At(place), family(rule)),
            Self::AddNeighbour { place, neighbour } => {
                write!(f, "{} neighbour replace {neighbour}", At(place))
            }
            Self::DeleteNeighbour { place, neighbour } => {
                let Neighbour { dev, address, .. } = neighbour;
                write!(f, "{} neighbour delete {address} dev {dev}", At(place))
            }
        }
    }
}

fn family(rule: &Rule) -> &'static str {
    if rule.ipv6 { " -6" } else { "" }
}

/// `ip`, or `ip -n NETNS`.
pub struct At<'a>(pub &'a Place);

impl fmt::Display for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Place::Host => f.write_str("ip"),
            Place::Netns(netns) => write!(f, "ip -n {netns}"),
        }
    }
}

/// Nothing, or `ip netns exec NETNS `.
pub struct In<'a>(pub &'a Place);

impl fmt::Display for In<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Place::Host => Ok(()),
            Place::Netns(netns) => write!(f, "ip netns exec {netns} "),
        }
    }
}

/// A switch as sysctl(8) takes it: with slashes, since names of links may have dots.
struct Sysctl<'a>(&'a IfName, Knob);

impl fmt::Display for Sysctl<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(link, knob) = self;
        let (family, name) = knob.path();
        match link.as_str().contains('.') {
            true => write!(f, "net/{family}/conf/{link}/{name}"),
            false => write!(f, "net.{family}.conf.{link}.{name}"),
        }
    }
}

/// What `nft -f` takes to make a table say this, counters of the one that stays kept. `stamp` is a set's name.
pub fn transaction(
    TableId { place: _, family }: &TableId,
    name: &str,
    script: &Script,
    update: Option<&Update>,
    stamp: &str,
) -> String {
    let table = format!("{family} {name}");
    let mut text = match update {
        // So that there is one to delete, in any case.
        None => format!("table {table}\ndelete table {table}\n"),
        Some(Update { counters, stamp }) => {
            let mut text = format!("flush table {table}\n");
            for counter in counters {
                text.push_str(&format!("delete counter {table} {counter}\n"));
            }
            if let Some(stamp) = stamp {
                text.push_str(&format!("delete set {table} {stamp}\n"));
            }
            text
        }
    };
    text.push_str(&format!("table {table} {{\n"));
    if !stamp.is_empty() {
        text.push_str(&format!("\tset {stamp} {{ type mark; }}\n"));
    }
    text.push_str(&format!("{script}}}\n"));
    text
}

/// What may be given when a link is made.
struct Properties {
    mtu: Option<u32>,
    mac: Option<MacAddr>,
    queues: Option<u32>,
}

impl fmt::Display for Properties {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(mtu) = self.mtu {
            write!(f, " mtu {mtu}")?;
        }
        if let Some(mac) = self.mac {
            write!(f, " address {mac}")?;
        }
        match self.queues {
            Some(queues) => write!(f, " numtxqueues {queues} numrxqueues {queues}"),
            None => Ok(()),
        }
    }
}
