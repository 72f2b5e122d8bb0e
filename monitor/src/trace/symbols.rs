//! Names of kernel functions by address, from `/proc/kallsyms`.

use std::{fs, io};

/// The kernel's functions, sorted by address.
#[derive(Clone, Debug, Default)]
pub struct Symbols(Vec<(u64, String)>);

impl Symbols {
    /// Reads the kernel's list. Empty where the kernel hides the addresses from us (`kernel.kptr_restrict = 2`, or
    /// without CAP_SYSLOG).
    ///
    /// # Errors
    /// There is no list (a kernel without CONFIG_KALLSYMS).
    pub fn running() -> io::Result<Self> {
        Ok(Self::parse(&fs::read_to_string("/proc/kallsyms")?))
    }

    /// The same of a list like the kernel's.
    pub(crate) fn parse(text: &str) -> Self {
        let mut found: Vec<_> = text.lines().filter_map(function).collect();
        // Of several names of one address the first in the list stays, as in the kernel's own traces.
        found.sort_by_key(|(address, _)| *address);
        found.dedup_by_key(|(address, _)| *address);
        Self(found)
    }

    /// Whether the kernel hides the addresses.
    pub fn is_hidden(&self) -> bool {
        self.0.is_empty()
    }

    /// The function an address is in.
    pub fn function(&self, address: u64) -> Option<&str> {
        let after = self.0.partition_point(|(start, _)| *start <= address);
        Some(self.0.get(after.checked_sub(1)?)?.1.as_str())
    }
}

/// A function's address and name out of a line like `ffffffff81a3c2f0 T ip_forward` or `… t nft_do_chain [nf_tables]`.
fn function(line: &str) -> Option<(u64, String)> {
    let mut words = line.split_whitespace();
    let (address, kind, name) = (words.next()?, words.next()?, words.next()?);
    let address = u64::from_str_radix(address, 16).ok().filter(|&address| address != 0)?;
    matches!(kind, "t" | "T" | "w" | "W").then(|| (address, name.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "ffffffff81000200 T later\nffffffff81000100 t first\nffffffff81000150 d data\n\
                        ffffffff81000200 T twin\nffffffffc0000000 t inner\t[module]\n";

    #[test]
    fn an_address_is_in_the_function_that_starts_before_it() {
        let symbols = Symbols::parse(TEXT);
        let at = |address| symbols.function(address);
        assert_eq!(at(0xffff_ffff_8100_0100), Some("first"));
        assert_eq!(at(0xffff_ffff_8100_0160), Some("first"), "data is no function");
        assert_eq!((at(0xffff_ffff_8100_0201), at(0xffff_ffff_c000_0010)), (Some("later"), Some("inner")));
        assert_eq!(at(5), None);
    }

    #[test]
    fn hidden_addresses_are_noticed() {
        let hidden = Symbols::parse("0000000000000000 T first\n0000000000000000 T later\n");
        assert!(hidden.is_hidden() && hidden.function(7).is_none());
        assert!(!Symbols::parse(TEXT).is_hidden());
    }
}
