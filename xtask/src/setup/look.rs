//! What is there: compilers, the linker, LLVM, commands. Reads only; what to do about it is decided in `decide`.

use std::{
    collections::BTreeSet,
    env, fs,
    path::{Path, PathBuf},
};

use super::bundle::BUNDLES;
use crate::tools::{BPF_TARGET, Place, ask, find, is_program};

/// Everything the decision depends on.
#[derive(Clone, Debug, Default)]
pub(crate) struct Found {
    /// Compilers that can build for the bpf target, best first.
    pub(crate) compilers: Vec<Compiler>,
    /// A rustup nightly that could, if it had `rust-src`.
    pub(crate) nightly: Option<Nightly>,
    /// The linker under `target/tools`, if it runs.
    pub(crate) linker: Option<Linker>,
    /// Major versions of the LLVMs whose `llvm-config` is there.
    pub(crate) llvms: BTreeSet<u32>,
    /// Names of the commands that are there, of those asked for.
    pub(crate) commands: BTreeSet<&'static str>,
    /// Names of the C headers that are there, of those asked for.
    pub(crate) headers: BTreeSet<&'static str>,
    /// Cargo's own components that are there, of those asked for.
    pub(crate) components: BTreeSet<&'static str>,
    /// Names of the bundles that are whole.
    pub(crate) bundles: BTreeSet<&'static str>,
    /// What the toolchain file says now.
    pub(crate) recorded: Option<String>,
}

/// A folder with a `cargo` and a `rustc` that can build for the bpf target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Compiler {
    /// The folder.
    pub(crate) bin: PathBuf,
    /// Version of rustc.
    pub(crate) release: String,
    /// Major version of its LLVM.
    pub(crate) llvm: u32,
    /// How the target's core library comes.
    pub(crate) core: Core,
}

/// How the target's core library comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Core {
    /// The compiler brings it compiled.
    Precompiled,
    /// It is compiled from the compiler's `rust-src`, on nightly only.
    BuildStd,
}

/// A nightly toolchain of rustup without `rust-src`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Nightly {
    /// Its name, as rustup knows it.
    pub(crate) name: String,
    /// Major version of its LLVM.
    pub(crate) llvm: u32,
}

/// A bpf-linker that runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Linker {
    /// Its version.
    pub(crate) version: String,
    /// Major version of the LLVM it was built for, read from what it is linked with.
    pub(crate) llvm: Option<u32>,
}

impl Compiler {
    /// What the toolchain file says when this compiler is chosen.
    pub(crate) fn record(&self) -> String {
        let core = match self.core {
            Core::Precompiled => "core",
            Core::BuildStd => "build-std",
        };
        format!("{}\n{core}\n", self.bin.display())
    }
}

/// Looks for everything, asking for those commands, headers and components.
pub(crate) fn look(
    place: &Place,
    commands: &[&'static str],
    headers: &[&'static str],
    components: &[&'static str],
) -> Found {
    let recorded = fs::read_to_string(place.toolchain_file()).ok();
    let (compilers, nightly) = compilers(recorded.as_deref());
    let linker = linker(&place.linker());
    let component_is_there = |component: &&str| {
        let said = place.cargo(&[component, "--version"]).output();
        said.is_ok_and(|output| output.status.success())
    };
    Found {
        llvms: (20..40).filter(|major| llvm_prefix(*major).is_some()).collect(),
        commands: commands.iter().copied().filter(|name| find(name).is_some()).collect(),
        headers: headers
            .iter()
            .copied()
            .filter(|name| Path::new("/usr/include").join(name).exists())
            .collect(),
        components: components.iter().copied().filter(component_is_there).collect(),
        bundles: BUNDLES
            .iter()
            .filter(|bundle| bundle.is_in(&place.tools()))
            .map(|bundle| bundle.name)
            .collect(),
        recorded,
        compilers,
        nightly,
        linker,
    }
}

/// Where an LLVM of that major version is installed.
pub(crate) fn llvm_prefix(major: u32) -> Option<PathBuf> {
    // Debian's folder first: asking every `llvm-config` costs a process each.
    let debian = PathBuf::from(format!("/usr/lib/llvm-{major}"));
    if is_program(&debian.join("bin/llvm-config")) {
        return Some(debian);
    }
    let config = find(&format!("llvm-config-{major}"))?;
    Some(ask(config, ["--prefix"])?.trim().into())
}

/// The compilers that can build for the bpf target, and a nightly that nearly can. One that was chosen before and
/// still can is the only answer: the choice does not change under a user's feet, and nothing else is asked.
fn compilers(recorded: Option<&str>) -> (Vec<Compiler>, Option<Nightly>) {
    if let Some((bin, _)) = recorded.and_then(|text| text.split_once('\n'))
        && let Some(compiler) = rustc(Path::new(bin)).and_then(|rustc| rustc.for_bpf())
    {
        return (vec![compiler], None);
    }
    let mut compilers = Vec::new();
    let mut nightly = None;
    for (name, bin) in nightlies() {
        let Some(rustc) = rustc(&bin) else { continue };
        match rustc.for_bpf() {
            Some(compiler) => compilers.push(compiler),
            None => nightly = nightly.or(Some(Nightly { name, llvm: rustc.llvm })),
        }
    }
    let path = env::var_os("PATH").unwrap_or_default();
    let folders: Vec<_> = env::split_paths(&path).chain(["/usr/bin".into()]).collect();
    let mut seen = BTreeSet::new();
    for bin in folders.iter().filter_map(|folder| fs::canonicalize(folder).ok()) {
        if seen.insert(bin.clone()) && is_program(&bin.join("cargo")) {
            compilers.extend(rustc(&bin).and_then(|rustc| rustc.for_bpf()));
        }
    }
    (compilers, nightly)
}

/// The nightly toolchains of rustup, the undated one first.
fn nightlies() -> Vec<(String, PathBuf)> {
    let home = env::var_os("RUSTUP_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".rustup")));
    let entries = home.and_then(|home| fs::read_dir(home.join("toolchains")).ok());
    let mut found: Vec<_> = entries
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| (entry.file_name().to_string_lossy().into_owned(), entry.path().join("bin")))
        .filter(|(name, bin)| name.starts_with("nightly") && is_program(&bin.join("cargo")))
        .collect();
    found.sort_by_key(|(name, _)| (name.starts_with("nightly-2"), std::cmp::Reverse(name.clone())));
    found
}

/// A compiler as it describes itself.
struct Rustc {
    bin: PathBuf,
    release: String,
    llvm: u32,
    sysroot: PathBuf,
}

impl Rustc {
    fn for_bpf(&self) -> Option<Compiler> {
        let lib = self.sysroot.join("lib/rustlib");
        let precompiled = fs::read_dir(lib.join(BPF_TARGET).join("lib"))
            .is_ok_and(|files| files.flatten().any(|file| is_core(&file.file_name().to_string_lossy())));
        let core = if precompiled {
            Core::Precompiled
        } else if self.release.contains("nightly") && lib.join("src/rust/library/core").exists() {
            Core::BuildStd
        } else {
            return None;
        };
        let (bin, release) = (self.bin.clone(), self.release.clone());
        Some(Compiler { bin, release, llvm: self.llvm, core })
    }
}

fn is_core(name: &str) -> bool {
    name.starts_with("libcore-") && name.ends_with(".rlib")
}

fn rustc(bin: &Path) -> Option<Rustc> {
    let program = bin.join("rustc");
    if !is_program(&program) {
        return None;
    }
    let (release, llvm) = parse_rustc_version(&ask(&program, ["-vV"])?)?;
    let sysroot = ask(&program, ["--print", "sysroot"])?.trim().into();
    Some(Rustc { bin: bin.to_owned(), release, llvm, sysroot })
}

/// Release and LLVM's major version from what `rustc -vV` prints.
fn parse_rustc_version(said: &str) -> Option<(String, u32)> {
    let field = |name: &str| said.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    let llvm = field("LLVM version:")?.split('.').next()?.parse().ok()?;
    Some((field("release:")?.to_owned(), llvm))
}

fn linker(program: &Path) -> Option<Linker> {
    if !is_program(program) {
        return None;
    }
    let version = ask(program, ["--version"])?.trim().strip_prefix("bpf-linker ")?.to_owned();
    Some(Linker { version, llvm: ask("ldd", [program]).and_then(|said| parse_ldd(&said)) })
}

/// LLVM's major version from what `ldd` prints: `libLLVM.so.22.1` since LLVM 18, `libLLVM-17.so` before.
fn parse_ldd(said: &str) -> Option<u32> {
    let name = said.split_whitespace().find(|word| word.starts_with("libLLVM"))?;
    name.split(['.', '-']).find_map(|part| part.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUSTC: &str = "rustc 1.96.0 (ac68faa20 2026-05-25)\nbinary: rustc\nhost: x86_64-unknown-linux-gnu\n\
                         release: 1.96.0\nLLVM version: 22.1.8\n";

    #[test]
    fn a_compilers_release_and_llvm_are_read_from_its_own_words() {
        assert_eq!(parse_rustc_version(RUSTC), Some(("1.96.0".to_owned(), 22)));
        assert_eq!(parse_rustc_version("rustc 1.96.0\nrelease: 1.96.0\n"), None);
    }

    #[test]
    fn the_llvm_of_a_linker_is_read_from_what_it_is_linked_with() {
        assert_eq!(parse_ldd("\tlibLLVM.so.22.1 => /usr/lib/llvm-22/lib/libLLVM.so.22.1 (0x7)\n"), Some(22));
        assert_eq!(parse_ldd("\tlibLLVM-17.so.1 => /usr/lib/llvm-17/lib/libLLVM-17.so.1 (0x7)\n"), Some(17));
        assert_eq!(parse_ldd("\tlibc.so.6 => /lib/libc.so.6 (0x7)\n"), None);
    }

    #[test]
    fn the_toolchain_file_is_as_the_build_script_reads_it() {
        let mut compiler =
            Compiler { bin: "/usr/bin".into(), release: "1.96.0".into(), llvm: 22, core: Core::Precompiled };
        assert_eq!(compiler.record(), "/usr/bin\ncore\n");
        compiler.core = Core::BuildStd;
        assert_eq!(compiler.record(), "/usr/bin\nbuild-std\n");
    }

    #[test]
    fn only_the_core_library_itself_counts_as_core() {
        assert!(is_core("libcore-26cf2a22d7b31f71.rlib"));
        assert!(!is_core("libcore-26cf2a22d7b31f71.rmeta") && !is_core("liballoc-68cd5ef188c897f6.rlib"));
    }
}
