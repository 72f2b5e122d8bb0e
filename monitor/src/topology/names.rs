//! Names and identities, parsed once and never checked again.

use std::{fmt, str::FromStr};

/// Why a name or address was refused; the text says what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NameError(pub String);

/// Name of a network device: 1 to 15 bytes of `[A-Za-z0-9_.-]`, not `.` or `..`.
///
/// Narrower than the kernel's `dev_valid_name`, which takes any byte but `/`, `:` and white space.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IfName(String);

/// Name of a network namespace: 1 to 64 bytes of `[A-Za-z0-9_.-]`, the first a letter or a digit.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NsName(String);

/// Identity of a network namespace (`SO_NETNS_COOKIE`): never used twice within one boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cookie(pub u64);

/// An Ethernet address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MacAddr(pub [u8; 6]);

/// Name of a kernel setting of a network namespace, as its path below `/proc/sys`: `net/ipv4/ip_forward`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SysctlKey(String);

/// Where a link is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    /// In the host's namespace: the one the agent runs in.
    Host,
    /// In a named namespace.
    Netns(NsName),
}

/// A link by place and name; prints as `blue/eth0`, or `veth0` in the host's namespace.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId {
    /// Where it is.
    pub place: Place,
    /// Its name there.
    pub name: IfName,
}

impl IfName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl NsName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl SysctlKey {
    /// Its path below `/proc/sys`.
    pub fn path(&self) -> &str {
        &self.0
    }

    /// The interface it is about, where it is about one.
    pub fn interface(&self) -> Option<&str> {
        let mut parts = self.0.split('/');
        let (_net, _family, table, name) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        (matches!(table, "conf" | "neigh") && !matches!(name, "all" | "default")).then_some(name)
    }
}

impl LinkId {
    /// A link of the host's namespace.
    pub fn host(name: IfName) -> Self {
        Self { place: Place::Host, name }
    }

    /// A link of a named namespace.
    pub fn inside(netns: NsName, name: IfName) -> Self {
        Self { place: Place::Netns(netns), name }
    }
}

impl FromStr for IfName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        check(text, 15)
            .map_err(|why| NameError(format!("`{}` is no interface name: {why}", text.escape_debug())))?;
        Ok(Self(text.to_owned()))
    }
}

impl FromStr for NsName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        check(text, 64)
            .and_then(|()| match text.as_bytes()[0].is_ascii_alphanumeric() {
                true => Ok(()),
                false => Err("it starts with neither a letter nor a digit".to_owned()),
            })
            .map_err(|why| NameError(format!("`{}` is no namespace name: {why}", text.escape_debug())))?;
        Ok(Self(text.to_owned()))
    }
}

impl FromStr for SysctlKey {
    type Err = NameError;

    /// As sysctl(8): the first separator, `.` or `/`, is the one; the other then stands for it within names.
    fn from_str(text: &str) -> Result<Self, NameError> {
        let wrong =
            |why: &str| NameError(format!("`{}` is no sysctl of a namespace: {why}", text.escape_debug()));
        let path = match text.find(['.', '/']).map(|at| &text[at..=at]) {
            Some(".") => text
                .chars()
                .map(|c| {
                    if c == '.' {
                        '/'
                    } else if c == '/' {
                        '.'
                    } else {
                        c
                    }
                })
                .collect(),
            _ => text.to_owned(),
        };
        let mut parts = path.split('/');
        if parts.next() != Some("net") || parts.clone().count() == 0 {
            return Err(wrong("only those that begin with `net.` belong to one"));
        }
        if parts.any(|part| matches!(part, "" | "." | "..")) {
            return Err(wrong("a part of it is empty or names a directory"));
        }
        match path.len() <= 255 && path.bytes().all(|byte| byte.is_ascii_graphic()) {
            true => Ok(Self(path)),
            false => Err(wrong("it is longer than 255 bytes or has a character that none has")),
        }
    }
}

/// Longest name of an interface, in bytes (`IFNAMSIZ` less its end).
const LONGEST: usize = 15;

/// Names for the host's end of an interface, best first: `blue-eth0`, or where that is too long or taken, a name made of a
/// hash that is the same every time.
pub fn host_end(netns: &NsName, name: &IfName) -> impl Iterator<Item = IfName> + use<> {
    let plain = format!("{netns}-{name}");
    let hashed = format!("nm{:013x}", stable_hash(&format!("{netns}/{name}")) >> 12);
    let plain = Some(plain).filter(|plain| plain.len() <= LONGEST);
    plain.into_iter().chain([hashed]).filter_map(|name| name.parse().ok())
}

/// For names that are made up: FNV-1a, 64 bits (RFC 9923), the same over versions and machines.
pub fn stable_hash(text: &str) -> u64 {
    text.bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

fn check(text: &str, longest: usize) -> Result<(), String> {
    if text.is_empty() {
        return Err("it is empty".to_owned());
    }
    if text.len() > longest {
        return Err(format!("it has {} bytes, at most {longest} are allowed", text.len()));
    }
    if text == "." || text == ".." {
        return Err("it names a directory".to_owned());
    }
    match text.chars().find(|&c| !(c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'))) {
        Some(c) => Err(format!("`{}` is not one of A-Z a-z 0-9 _ . -", c.escape_debug())),
        None => Ok(()),
    }
}

impl FromStr for MacAddr {
    type Err = NameError;

    /// Six hexadecimal bytes joined by colons. Multicast addresses and all zeroes are refused, as by the kernel.
    fn from_str(text: &str) -> Result<Self, NameError> {
        let wrong = |why: &str| NameError(format!("`{}` is no MAC address: {why}", text.escape_debug()));
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part =
                parts.next().filter(|part| part.len() == 2 && part.bytes().all(|b| b.is_ascii_hexdigit()));
            let part = part.ok_or_else(|| wrong("it is not six bytes like 02:00:00:00:00:01"))?;
            *byte = u8::from_str_radix(part, 16).map_err(|error| wrong(&error.to_string()))?;
        }
        if parts.next().is_some() {
            return Err(wrong("it is not six bytes like 02:00:00:00:00:01"));
        }
        if bytes[0] & 1 == 1 {
            return Err(wrong("it is a multicast address (the first byte is odd)"));
        }
        if bytes == [0; 6] {
            return Err(wrong("it is all zeroes"));
        }
        Ok(Self(bytes))
    }
}

impl fmt::Display for IfName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Display for NsName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Display for Cookie {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// As sysctl(8) takes it: with dots, or with slashes where a name has a dot.
impl fmt::Display for SysctlKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.contains('.') {
            true => f.write_str(&self.0),
            false => f.write_str(&self.0.replace('/', ".")),
        }
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Display for LinkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Host => self.name.fmt(f),
            Place::Netns(netns) => write!(f, "{netns}/{}", self.name),
        }
    }
}
