//! The names an ELF program defines. 64 bits, either byte order; anything else, or a stripped program, has none.

use std::collections::BTreeSet;

/// Type of the section that is the symbol table (elf.h: SHT_SYMTAB).
const SYMBOL_TABLE: u32 = 2;
const HEADER_SIZE: usize = 64;
const SYMBOL_SIZE: usize = 24;

/// Names of the symbols that are defined in the program itself.
pub(super) fn defined_symbols(binary: &[u8]) -> BTreeSet<&str> {
    let elf = Elf { binary, little: binary.get(5) == Some(&1) };
    if !binary.starts_with(b"\x7fELF\x02") {
        return BTreeSet::new();
    }
    elf.symbols().unwrap_or_default()
}

struct Elf<'a> {
    binary: &'a [u8],
    little: bool,
}

impl<'a> Elf<'a> {
    /// `None` when an offset points outside the file.
    fn symbols(&self) -> Option<BTreeSet<&'a str>> {
        let mut names = BTreeSet::new();
        // Elf64_Ehdr: e_shoff at 40, e_shnum at 60.
        let (offset, count) = (self.number(40, 8)?, self.number(60, 2)?);
        let section = |index: usize| offset.checked_add(index.checked_mul(HEADER_SIZE)?);
        for index in 0..count {
            // Elf64_Shdr: sh_type at 4, sh_offset at 24, sh_size at 32, sh_link (the names' section) at 40.
            let header = section(index)?;
            if self.number(header + 4, 4)? != SYMBOL_TABLE as usize {
                continue;
            }
            let (start, size) = (self.number(header + 24, 8)?, self.number(header + 32, 8)?);
            let strings = self.number(section(self.number(header + 40, 4)?)? + 24, 8)?;
            for symbol in self.binary.get(start..start.checked_add(size)?)?.chunks_exact(SYMBOL_SIZE) {
                // Elf64_Sym: st_name at 0, st_shndx at 6; section 0 means undefined.
                let symbol = Elf { binary: symbol, little: self.little };
                if symbol.number(6, 2)? != 0 {
                    let name = self.binary.get(strings.checked_add(symbol.number(0, 4)?)?..)?;
                    let name = name.split(|byte| *byte == 0).next()?;
                    names.extend(str::from_utf8(name));
                }
            }
        }
        Some(names)
    }

    fn number(&self, offset: usize, size: usize) -> Option<usize> {
        let bytes = self.binary.get(offset..offset.checked_add(size)?)?;
        let add = |number: usize, byte: &u8| (number << 8) | usize::from(*byte);
        Some(if self.little { bytes.iter().rev().fold(0, add) } else { bytes.iter().fold(0, add) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A smallest program: a symbol table with `memcpy` in the given section, and the names.
    fn program(section_of_memcpy: u8) -> Vec<u8> {
        let mut binary = vec![0; 64];
        binary[..6].copy_from_slice(b"\x7fELF\x02\x01");
        binary[40] = 64;
        binary[60] = 2;
        let mut symbols = vec![0; 64];
        symbols[4] = 2;
        symbols[24] = 192;
        symbols[32] = 24;
        symbols[40] = 1;
        let mut names = vec![0; 64];
        names[4] = 3;
        names[24] = 216;
        let mut symbol = vec![0; 24];
        symbol[0] = 1;
        symbol[6] = section_of_memcpy;
        [binary, symbols, names, symbol, b"\0memcpy\0".to_vec()].concat()
    }

    #[test]
    fn a_defined_symbol_is_told_from_one_taken_from_a_library() {
        assert_eq!(defined_symbols(&program(1)), BTreeSet::from(["memcpy"]));
        assert_eq!(defined_symbols(&program(0)), BTreeSet::new());
    }

    #[test]
    fn what_is_no_program_or_cut_short_defines_nothing() {
        assert_eq!(defined_symbols(b"#!/bin/sh\n"), BTreeSet::new());
        for length in 0..program(1).len() - 8 {
            assert_eq!(defined_symbols(&program(1)[..length]), BTreeSet::new(), "cut at {length}");
        }
    }

    #[test]
    fn this_very_program_defines_its_main() {
        let own = std::fs::read(std::env::current_exe().expect("a path")).expect("this very program");
        assert!(defined_symbols(&own).contains("main"));
    }
}
