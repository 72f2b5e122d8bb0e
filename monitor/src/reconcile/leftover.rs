//! What was ours and is needed no longer: what a crash left half made, and what outlived its namespace. For who holds the
//! lock of the run directory: then nobody else is in the middle of making something of that name.
//!
//! A link that was not claimed yet carries no tag. It is known as ours by all of this: the device group of this run
//! directory, no alias, down, no port of a bridge, a veth or a bridge.
//! Deliberately absent: links in namespaces that are not ours, and host ends whose other end is in a namespace without a
//! name, which lives as long as somebody holds it.

use std::{collections::BTreeSet, fmt, os::fd::AsRawFd as _};

use rtnetlink::packet_route::{
    RouteNetlinkMessage,
    link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage},
    nsid::{NsidAttribute, NsidMessage},
};

use super::{
    Kernel,
    session::{NetlinkError, Session},
};
use crate::{
    netns::{self, Stale},
    topology::{
        names::{IfName, LinkId, NsName, Place},
        step::Step,
    },
};

/// One thing that is needed no longer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Leftover {
    /// A file about a namespace.
    Stale(Stale),
    /// A link that a crash left before it was given its tag.
    Unclaimed {
        /// Where.
        place: Place,
        /// Its name.
        name: String,
    },
    /// A veth of ours in the host's namespace that was for a namespace which is gone.
    Strayed {
        /// Which.
        link: LinkId,
        /// What it was for.
        netns: NsName,
    },
}

/// The line it equals.
impl fmt::Display for Leftover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stale(stale) => stale.fmt(f),
            Self::Unclaimed { place: Place::Host, name } => {
                write!(f, "ip link delete {name}  # left by a crash before it had its tag")
            }
            Self::Unclaimed { place: Place::Netns(netns), name } => {
                write!(f, "ip -n {netns} link delete {name}  # left by a crash before it had its tag")
            }
            Self::Strayed { link, netns } => {
                write!(f, "{}  # was for {netns}, which is gone", Step::DeleteLink { link: link.clone() })
            }
        }
    }
}

/// A link as far as it matters here, whatever its name.
struct Seen {
    name: String,
    ifindex: u32,
    peer: Option<u32>,
    /// The namespace of the peer, as this namespace numbers it; absent where it is the same.
    peer_netns: Option<i32>,
    alias: Option<String>,
    group: u32,
    veth: bool,
    bridge: bool,
    /// Up, or a port.
    in_use: bool,
}

impl Kernel {
    /// What is needed no longer, links first.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn leftovers(&self) -> anyhow::Result<Vec<Leftover>> {
        let named = netns::list(&self.netns_dir)?;
        let ours = named.iter().filter(|(name, identity)| self.records.owns(name, identity.cookie));
        let ours: BTreeSet<&NsName> = ours.map(|(name, _)| name).collect();
        let host = self.at(&Place::Host, async |session| session.seen().await)?;
        let strayed = self.strayed(&host, &ours, named.iter().map(|(name, _)| name))?;

        let mut found = Vec::new();
        let mut pairs = BTreeSet::new();
        let mut unclaimed = |place: Place, links: &[Seen]| {
            for link in links.iter().filter(|link| self.is_leftover(link)) {
                // The other end of one that is listed goes with it.
                if link.peer.is_some_and(|peer| {
                    !pairs.insert((link.ifindex, peer)) || pairs.contains(&(peer, link.ifindex))
                }) {
                    continue;
                }
                found.push(Leftover::Unclaimed { place: place.clone(), name: link.name.clone() });
            }
        };
        unclaimed(Place::Host, &host);
        for name in ours {
            let place = Place::Netns(name.clone());
            let links = self.at(&place, async |session| session.seen().await)?;
            unclaimed(place, &links);
        }
        found.extend(strayed);
        found.extend(netns::stale(&self.netns_dir, &self.records)?.into_iter().map(Leftover::Stale));
        Ok(found)
    }

    /// Removes one; what is gone is removed.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn clear(&self, leftover: &Leftover) -> anyhow::Result<()> {
        match leftover {
            Leftover::Stale(stale) => Ok(netns::clear(&self.netns_dir, &self.records, stale)?),
            Leftover::Unclaimed { place, name } => self.at(place, async |session| {
                let seen = session.seen().await?;
                if let Some(link) = seen.iter().find(|link| link.name == *name && self.is_leftover(link)) {
                    session.delete_link(link.ifindex).await?;
                }
                Ok::<_, NetlinkError>(())
            }),
            Leftover::Strayed { link, netns: _ } => self.perform(&Step::DeleteLink { link: link.clone() }),
        }
    }

    fn is_leftover(&self, link: &Seen) -> bool {
        link.group == self.group && link.alias.is_none() && !link.in_use && (link.veth || link.bridge)
    }

    /// Veths of ours in the host's namespace that were for a namespace which is gone.
    fn strayed<'a>(
        &self,
        host: &[Seen],
        ours: &BTreeSet<&NsName>,
        named: impl Iterator<Item = &'a NsName>,
    ) -> anyhow::Result<Vec<Leftover>> {
        let serves = |link: &Seen| -> Option<(LinkId, NsName)> {
            let (netns, _) = link.alias.as_ref()?.strip_prefix(&self.tag)?.split_once('/')?;
            Some((LinkId::host(link.name.parse::<IfName>().ok()?), netns.parse().ok()?))
        };
        let orphans: Vec<_> = host
            .iter()
            .filter(|link| link.veth)
            .filter_map(|link| serves(link).map(|(id, netns)| (link, id, netns)))
            .filter(|(_, _, netns)| !ours.contains(netns))
            .collect();
        if orphans.is_empty() {
            return Ok(Vec::new());
        }
        let mut numbers = Vec::new();
        for name in named {
            let file = netns::file(&self.netns_dir, name)?;
            let number = self.at(&Place::Host, async |session| session.number_of(file.as_raw_fd()).await)?;
            numbers.extend(number.map(|number| (number, name)));
        }
        let mut found = Vec::new();
        let mut pairs = BTreeSet::new();
        for (link, id, netns) in orphans {
            let strayed = match link.peer_netns {
                // Both ends are here.
                None => link.peer.is_none_or(|peer| {
                    pairs.insert((link.ifindex, peer));
                    !pairs.contains(&(peer, link.ifindex))
                }),
                Some(number) => match numbers.iter().find(|(other, _)| *other == number) {
                    // In a namespace of the name it is for: live, though its record is lost.
                    Some((_, name)) => **name != netns,
                    None => {
                        tracing::info!(
                            "{id} stays: {netns} has lost its name and lives on (see `netns-monitor holders`)"
                        );
                        false
                    }
                },
            };
            if strayed {
                found.push(Leftover::Strayed { link: id, netns });
            }
        }
        Ok(found)
    }
}

impl Session {
    /// Every link of this namespace.
    async fn seen(&mut self) -> Result<Vec<Seen>, NetlinkError> {
        self.dump(&RouteNetlinkMessage::GetLink(LinkMessage::default()), |message| match message {
            RouteNetlinkMessage::NewLink(link) => Some(seen(link)),
            _ => None,
        })
        .await
    }

    /// How this namespace numbers another one, where it does.
    async fn number_of(&mut self, file: i32) -> Result<Option<i32>, NetlinkError> {
        let mut asked = NsidMessage::default();
        asked.attributes.push(NsidAttribute::Fd(file.cast_unsigned()));
        let Some(RouteNetlinkMessage::NewNsId(answer)) =
            self.get(RouteNetlinkMessage::GetNsId(asked)).await?
        else {
            return Ok(None);
        };
        Ok(answer.attributes.iter().find_map(|attribute| match attribute {
            NsidAttribute::Id(number) if *number >= 0 => Some(*number),
            _ => None,
        }))
    }
}

fn seen(message: LinkMessage) -> Seen {
    let mut seen = Seen {
        name: String::new(),
        ifindex: message.header.index,
        peer: None,
        peer_netns: None,
        alias: None,
        group: 0,
        veth: false,
        bridge: false,
        in_use: message.header.flags.contains(LinkFlags::Up),
    };
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => seen.name = name,
            LinkAttribute::IfAlias(alias) => seen.alias = Some(alias),
            LinkAttribute::Group(group) => seen.group = group,
            LinkAttribute::Link(ifindex) => seen.peer = Some(ifindex),
            LinkAttribute::LinkNetNsId(number) => seen.peer_netns = Some(number),
            LinkAttribute::Controller(_) => seen.in_use = true,
            LinkAttribute::LinkInfo(infos) => {
                seen.veth = infos.contains(&LinkInfo::Kind(InfoKind::Veth));
                seen.bridge = infos.contains(&LinkInfo::Kind(InfoKind::Bridge));
            }
            _ => {}
        }
    }
    seen
}
