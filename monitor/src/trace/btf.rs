//! The running kernel's type information (BTF), as far as is needed here: where a member of a structure lies, the values
//! of an enumeration, the parameters of a tracepoint.
//!
//! A reader of our own, because the well-kept ones either keep these things to themselves (aya-obj) or have a licence
//! that does not allow linking them in. The format is that of `Documentation/bpf/btf.rst`. Nothing in the bytes is
//! trusted: every offset is checked, and what refers to itself ends.

use std::fmt;

/// `BTF_MAGIC` of `include/uapi/linux/btf.h`.
const MAGIC: u16 = 0xeb9f;
/// Bytes of `struct btf_type`, and of the numbers that follow it.
const TYPE: usize = 12;
const WORD: usize = 4;
/// How deep types may refer to types before they are taken for a circle.
const DEPTH: u32 = 32;

/// `BTF_KIND_*`.
mod kind {
    pub(super) const INT: u32 = 1;
    pub(super) const PTR: u32 = 2;
    pub(super) const ARRAY: u32 = 3;
    pub(super) const STRUCT: u32 = 4;
    pub(super) const UNION: u32 = 5;
    pub(super) const ENUM: u32 = 6;
    pub(super) const FWD: u32 = 7;
    pub(super) const TYPEDEF: u32 = 8;
    pub(super) const VOLATILE: u32 = 9;
    pub(super) const CONST: u32 = 10;
    pub(super) const RESTRICT: u32 = 11;
    pub(super) const FUNC: u32 = 12;
    pub(super) const FUNC_PROTO: u32 = 13;
    pub(super) const VAR: u32 = 14;
    pub(super) const DATASEC: u32 = 15;
    pub(super) const FLOAT: u32 = 16;
    pub(super) const DECL_TAG: u32 = 17;
    pub(super) const TYPE_TAG: u32 = 18;
    pub(super) const ENUM64: u32 = 19;
}

/// Why bytes are no type information.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no readable BTF: {what} at byte {at}")]
pub struct BtfError {
    what: &'static str,
    at: usize,
}

/// Type information, kept as its bytes.
pub struct Btf {
    data: Vec<u8>,
    /// Where each type begins; the type without a name or place, `void`, has number 0.
    types: Vec<usize>,
    /// Where the strings begin and end.
    strings: (usize, usize),
}

/// One type.
#[derive(Clone, Copy)]
struct Type {
    at: usize,
    name: u32,
    info: u32,
    /// Size in bytes, or the number of another type.
    size: u32,
}

impl Type {
    const fn kind(self) -> u32 {
        self.info >> 24 & 0x1f
    }

    const fn len(self) -> usize {
        (self.info & 0xffff) as usize
    }

    /// Whether member offsets are in the lower 24 bits, or enumerators signed.
    const fn flag(self) -> bool {
        self.info >> 31 == 1
    }

    const fn is_structure(self) -> bool {
        matches!(self.kind(), kind::STRUCT | kind::UNION)
    }
}

impl fmt::Debug for Btf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Btf({} types)", self.types.len())
    }
}

impl Btf {
    /// Reads type information of this machine's byte order.
    ///
    /// # Errors
    /// It is none, or cut short, or of a later format.
    pub fn parse(data: Vec<u8>) -> Result<Self, BtfError> {
        let wrong = |what, at| BtfError { what, at };
        let word = |at| word(&data, at).ok_or(wrong("a header that is too short", at));
        match data.get(..2).map(|magic| u16::from_ne_bytes([magic[0], magic[1]])) {
            Some(MAGIC) => {}
            Some(swapped) if swapped == MAGIC.swap_bytes() => {
                return Err(wrong("the other byte order", 0));
            }
            _ => return Err(wrong("no magic number", 0)),
        }
        let header = word(4)? as usize;
        let section = |offset: usize| {
            let (start, len) = (word(offset)? as usize, word(offset + WORD)? as usize);
            let start = header.checked_add(start).ok_or(wrong("a section that is too far", offset))?;
            let end = start.checked_add(len).filter(|&end| end <= data.len());
            Ok((start, end.ok_or(wrong("a section that is cut short", offset))?))
        };
        let (types, strings) = (section(8)?, section(16)?);
        let types = index(&data, types)?;
        Ok(Self { data, types, strings })
    }

    /// Byte offset of a member, named by the path to it: `net.ns.inum` is member `inum` of member `ns` of `struct net`.
    /// Members of nameless structures in it count as its own. Absent where the kernel has none, or it is a bit field.
    pub fn offset(&self, path: &str) -> Option<u32> {
        self.place(path).filter(|(bit, width)| bit % 8 == 0 && *width == 0).map(|(bit, _)| bit / 8)
    }

    /// The same of a bit field that lies within one byte: the byte, the bits of it to the right of the field, and those
    /// of the field as a mask. Absent also where the member is none, or is written down as older compilers do.
    pub fn bit_field(&self, path: &str) -> Option<(u32, u32, u32)> {
        let (bit, width) = self.place(path).filter(|(bit, width)| *width > 0 && bit % 8 + width <= 8)?;
        let shift = if cfg!(target_endian = "big") { 8 - bit % 8 - width } else { bit % 8 };
        Some((bit / 8, shift, (1 << width) - 1))
    }

    /// Bit offset and width of a member, the width being 0 where it is no bit field.
    fn place(&self, path: &str) -> Option<(u32, u32)> {
        let mut path = path.split('.');
        let name = path.next()?;
        let path: Vec<&str> = path.collect();
        self.named(name).filter(|found| found.kind() == kind::STRUCT).find_map(|found| {
            let (mut offset, mut width) = (0_u32, 0);
            let mut inside = Some(found);
            for member in &path {
                let (bit, bits, of) = self.member(inside?, member, DEPTH)?;
                (offset, width) = (offset.checked_add(bit)?, bits);
                inside = self.resolve(of).filter(|_| bits == 0);
            }
            Some((offset, width))
        })
    }

    /// Names and values of an enumeration.
    pub fn enumerators(&self, name: &str) -> Option<Vec<(&str, u64)>> {
        let found = self.named(name).find(|found| matches!(found.kind(), kind::ENUM | kind::ENUM64))?;
        let wide = found.kind() == kind::ENUM64;
        let words = if wide { 3 } else { 2 };
        let enumerator = |index| {
            let at = found.at + TYPE + index * words * WORD;
            let low = u64::from(word(&self.data, at + WORD)?);
            let high = if wide { u64::from(word(&self.data, at + 2 * WORD)?) } else { 0 };
            Some((self.string(word(&self.data, at)?)?, high << 32 | low))
        };
        (0..found.len()).map(enumerator).collect()
    }

    /// Names of the structures that the parameters of a tracepoint point to; empty for parameters of other types.
    pub fn tracepoint(&self, name: &str) -> Option<Vec<&str>> {
        let name = format!("btf_trace_{name}");
        let found = self.named(&name).find(|found| found.kind() == kind::TYPEDEF)?;
        let pointer = self.resolve(found.size)?;
        let function = self.get(pointer.size).filter(|_| pointer.kind() == kind::PTR)?;
        if function.kind() != kind::FUNC_PROTO {
            return None;
        }
        let parameter = |index| {
            let of = word(&self.data, function.at + TYPE + index * 2 * WORD + WORD)?;
            let Some(pointer) = self.resolve(of).filter(|of| of.kind() == kind::PTR) else { return Some("") };
            let Some(structure) = self.resolve(pointer.size).filter(|of| of.is_structure()) else {
                return Some("");
            };
            self.string(structure.name)
        };
        // The first one is the tracing program's own.
        (1..function.len()).map(parameter).collect()
    }

    /// Bit offset, width where it is a bit field (else 0), and type of a member.
    fn member(&self, of: Type, name: &str, depth: u32) -> Option<(u32, u32, u32)> {
        if !of.is_structure() || depth == 0 {
            return None;
        }
        (0..of.len()).find_map(|index| {
            let at = of.at + TYPE + index * 3 * WORD;
            let (found, kind, offset) =
                (word(&self.data, at)?, word(&self.data, at + WORD)?, word(&self.data, at + 2 * WORD)?);
            let (offset, bits) = if of.flag() { (offset & 0xff_ffff, offset >> 24) } else { (offset, 0) };
            match self.string(found)? {
                found if found == name => Some((offset, bits, kind)),
                "" => {
                    let (inner, bits, kind) = self.member(self.resolve(kind)?, name, depth - 1)?;
                    Some((offset.checked_add(inner)?, bits, kind))
                }
                _ => None,
            }
        })
    }

    /// The type behind other names of it and qualifiers.
    fn resolve(&self, number: u32) -> Option<Type> {
        let mut found = self.get(number)?;
        for _ in 0..DEPTH {
            match found.kind() {
                kind::TYPEDEF | kind::VOLATILE | kind::CONST | kind::RESTRICT | kind::TYPE_TAG => {
                    found = self.get(found.size)?;
                }
                _ => return Some(found),
            }
        }
        None
    }

    fn get(&self, number: u32) -> Option<Type> {
        // Number 0 is void, which is not written down.
        let at = *self.types.get((number as usize).checked_sub(1)?)?;
        header(&self.data, at)
    }

    fn named<'a>(&'a self, name: &'a str) -> impl Iterator<Item = Type> + 'a {
        let all = self.types.iter().filter_map(|&at| header(&self.data, at));
        all.filter(move |found| found.name != 0 && self.is_named(*found, name))
    }

    /// Without looking for the end of its name: a kernel has a hundred thousand types.
    fn is_named(&self, of: Type, name: &str) -> bool {
        let (start, end) = self.strings;
        let start = start.checked_add(of.name as usize);
        let rest = start.and_then(|start| self.data.get(start..end)?.strip_prefix(name.as_bytes()));
        rest.is_some_and(|rest| rest.first() == Some(&0))
    }

    fn string(&self, offset: u32) -> Option<&str> {
        let (start, end) = self.strings;
        let bytes = self.data.get(start.checked_add(offset as usize)?..end)?;
        let end = bytes.iter().position(|&byte| byte == 0)?;
        str::from_utf8(&bytes[..end]).ok()
    }
}

/// Where each type begins, all of them wholly within the section.
fn index(data: &[u8], (start, end): (usize, usize)) -> Result<Vec<usize>, BtfError> {
    let (mut types, mut at) = (Vec::new(), start);
    while at < end {
        let found = header(data, at).ok_or(BtfError { what: "a type that is cut short", at })?;
        let words = match found.kind() {
            kind::INT | kind::VAR | kind::DECL_TAG => 1,
            kind::ARRAY => 3,
            kind::STRUCT | kind::UNION | kind::DATASEC | kind::ENUM64 => 3 * found.len(),
            kind::ENUM | kind::FUNC_PROTO => 2 * found.len(),
            kind::PTR
            | kind::FWD
            | kind::TYPEDEF
            | kind::VOLATILE
            | kind::CONST
            | kind::RESTRICT
            | kind::FUNC
            | kind::FLOAT
            | kind::TYPE_TAG => 0,
            _ => return Err(BtfError { what: "a type of a kind that is not known", at }),
        };
        types.push(at);
        at += TYPE + words * WORD;
    }
    match at == end {
        true => Ok(types),
        false => Err(BtfError { what: "a type that is cut short", at }),
    }
}

fn header(data: &[u8], at: usize) -> Option<Type> {
    let (name, info, size) = (word(data, at)?, word(data, at + WORD)?, word(data, at + 2 * WORD)?);
    Some(Type { at, name, info, size })
}

fn word(data: &[u8], at: usize) -> Option<u32> {
    let bytes = data.get(at..at.checked_add(WORD)?)?;
    Some(u32::from_ne_bytes(bytes.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes type information by hand.
    #[derive(Default)]
    struct Writer {
        types: Vec<u8>,
        strings: Vec<u8>,
        count: u32,
    }

    impl Writer {
        fn new() -> Self {
            Self { strings: vec![0], ..Self::default() }
        }

        fn name(&mut self, name: &str) -> u32 {
            if name.is_empty() {
                return 0;
            }
            let at = self.strings.len() as u32;
            self.strings.extend(name.as_bytes());
            self.strings.push(0);
            at
        }

        /// Adds a type and returns its number.
        fn add(&mut self, name: &str, info: u32, size: u32, words: &[u32]) -> u32 {
            let name = self.name(name);
            for word in [name, info, size].iter().chain(words) {
                self.types.extend(word.to_ne_bytes());
            }
            self.count += 1;
            self.count
        }

        fn bytes(&self) -> Vec<u8> {
            let (types, strings) = (self.types.len() as u32, self.strings.len() as u32);
            let mut bytes = MAGIC.to_ne_bytes().to_vec();
            bytes.extend([1, 0]);
            for word in [24, 0, types, types, strings] {
                bytes.extend(u32::to_ne_bytes(word));
            }
            bytes.extend(&self.types);
            bytes.extend(&self.strings);
            bytes
        }
    }

    /// What the kernel's structures look like, made small.
    fn small() -> Vec<u8> {
        let mut writer = Writer::new();
        let number = writer.add("unsigned int", 1 << 24, 4, &[32]);
        let (inum, id, name, ns) =
            (writer.name("inum"), writer.name("ns_id"), writer.name("name"), writer.name("ns"));
        let inner = writer.add("", 4 << 24 | 1, 8, &[id, number, 0]);
        let either = writer.add("", 5 << 24 | 1, 8, &[0, inner, 0]);
        let common = writer.add("ns_common", 4 << 24 | 2, 16, &[inum, number, 32, 0, either, 64]);
        let renamed = writer.add("ns_t", 8 << 24, common, &[]);
        let constant = writer.add("", 10 << 24, renamed, &[]);
        // With the flag, offsets share their word with the width of a bit field.
        writer.add("net", 1 << 31 | 4 << 24 | 2, 40, &[name, number, 3 << 24 | 5, ns, constant, 128]);
        let (a, b) = (writer.name("REASON_A"), writer.name("REASON_B"));
        writer.add("reason", 6 << 24 | 2, 4, &[a, 2, b, u32::MAX]);
        let big = writer.name("BIG");
        writer.add("wide", 19 << 24 | 1, 8, &[big, 1, 7]);
        let net = writer.add("", 2 << 24, 7, &[]);
        let function = writer.add("", 13 << 24 | 4, 0, &[0, net, 0, net, 0, 0, 0, number]);
        let pointer = writer.add("", 2 << 24, function, &[]);
        writer.add("btf_trace_drop", 8 << 24, pointer, &[]);
        writer.bytes()
    }

    #[test]
    fn members_are_found_through_names_qualifiers_and_nameless_structures() {
        let btf = Btf::parse(small()).expect("well-formed");
        assert_eq!(btf.offset("net.ns"), Some(16));
        assert_eq!(btf.offset("net.ns.inum"), Some(20));
        assert_eq!(btf.offset("net.ns.ns_id"), Some(24), "through a nameless union");
        assert_eq!(btf.offset("net.name"), None, "a bit field has no byte offset");
        let shift = if cfg!(target_endian = "big") { 0 } else { 5 };
        assert_eq!(btf.bit_field("net.name"), Some((0, shift, 7)));
        assert_eq!((btf.bit_field("net.ns"), btf.bit_field("net.name.more")), (None, None));
        assert_eq!((btf.offset("net.ns.other"), btf.offset("other.ns")), (None, None));
        assert_eq!(btf.offset("net.ns.inum.more"), None, "a number has no members");
    }

    #[test]
    fn enumerators_and_parameters_are_read() {
        let btf = Btf::parse(small()).expect("well-formed");
        let reasons = vec![("REASON_A", 2), ("REASON_B", u64::from(u32::MAX))];
        assert_eq!(btf.enumerators("reason"), Some(reasons));
        assert_eq!(btf.enumerators("wide"), Some(vec![("BIG", 7 << 32 | 1)]));
        assert_eq!(btf.enumerators("net"), None);
        assert_eq!(btf.tracepoint("drop"), Some(vec!["net", "", ""]));
        assert_eq!(btf.tracepoint("other"), None);
    }

    #[test]
    fn cut_short_anywhere_it_is_an_error_and_no_panic() {
        let whole = small();
        for length in 0..whole.len() {
            assert!(Btf::parse(whole[..length].to_vec()).is_err(), "{length} bytes");
        }
    }

    #[test]
    fn whatever_a_word_is_replaced_with_nothing_panics() {
        let whole = small();
        for at in 0..whole.len() - WORD {
            for value in [0, 1, 7, 0x7fff_ffff, u32::MAX, 0x0800_0000, 0x0400_ffff, 0x8400_ffff] {
                let mut broken = whole.clone();
                broken[at..at + WORD].copy_from_slice(&u32::to_ne_bytes(value));
                let Ok(btf) = Btf::parse(broken) else { continue };
                for path in ["net.ns.inum", "net.ns.ns_id", "ns_common.ns_id", "net"] {
                    let _found = btf.offset(path);
                }
                let _found = (btf.enumerators("reason"), btf.enumerators("wide"), btf.tracepoint("drop"));
            }
        }
    }

    #[test]
    fn types_that_contain_themselves_end() {
        let mut writer = Writer::new();
        let x = writer.name("x");
        // A structure whose nameless member is itself, and a name for itself.
        writer.add("circle", 4 << 24 | 1, 8, &[0, 1, 0]);
        writer.add("alias", 8 << 24, 2, &[]);
        writer.add("holder", 4 << 24 | 1, 8, &[x, 2, 0]);
        let btf = Btf::parse(writer.bytes()).expect("well-formed");
        assert_eq!((btf.offset("circle.x"), btf.offset("holder.x.y")), (None, None));
    }

    #[test]
    fn the_other_byte_order_is_named() {
        let mut bytes = small();
        bytes.swap(0, 1);
        assert!(Btf::parse(bytes).expect_err("swapped").to_string().contains("byte order"));
    }
}
