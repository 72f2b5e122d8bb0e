//! What to do about what was found, as a list of actions. Pure: nothing is looked at or done here.

use std::path::Path;

use super::{
    bundle::{BUNDLES, Bundle},
    look::{Compiler, Found},
};

/// The linker's version, and the LLVMs it can be built for.
pub(super) const LINKER_VERSION: &str = "0.13.0";
const LINKER_LLVMS: [u32; 3] = [21, 22, 23];

/// Debian 12's packages of a compiler that brings `core` for the bpf target, and the LLVM it is built on.
const COMPILER_PACKAGES: [&str; 3] = ["rustc-web", "cargo-web", "libstd-rust-web-dev-bpf"];
const COMPILER_LLVM: u32 = 22;

/// Commands needed by name, with the package that brings each.
pub(super) const COMMANDS: [(&str, &str); 3] = [("cc", "gcc"), ("ip", "iproute2"), ("tc", "iproute2")];
/// The same, needed by the tests alone.
pub(super) const TEST_COMMANDS: [(&str, &str); 7] = [
    ("conntrack", "conntrack"),
    ("ethtool", "ethtool"),
    ("iptables", "iptables"),
    ("nft", "nftables"),
    ("ping", "iputils-ping"),
    ("python3", "python3"),
    ("tmux", "tmux"),
];
/// The same, needed only while the linker is built.
pub(super) const LINKER_COMMANDS: [(&str, &str); 1] = [("c++", "g++")];
/// C headers needed while the linker is built.
pub(super) const LINKER_HEADERS: [(&str, &str); 2] = [("zlib.h", "zlib1g-dev"), ("zstd.h", "libzstd-dev")];
/// Cargo's subcommands that the checks need, with rustup's component that brings each.
pub(super) const COMPONENTS: [(&str, &str); 2] = [("fmt", "rustfmt"), ("clippy", "clippy")];

/// How much must be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    /// What building and running the agent needs.
    Build,
    /// What the tests need, too.
    Everything,
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Add `rust-src` to a nightly of rustup.
    AddRustSrc {
        /// The nightly's name.
        toolchain: String,
    },
    /// Install packages.
    Install {
        /// Their names.
        packages: Vec<String>,
    },
    /// Build the linker into `target/tools`.
    BuildLinker {
        /// For the LLVM of that major version.
        llvm: u32,
    },
    /// Write down the chosen compiler for the build script.
    Record {
        /// What the file shall say.
        text: String,
    },
    /// Add components to the toolchain of rustup in use.
    AddComponents {
        /// Their names.
        names: Vec<&'static str>,
    },
    /// Unpack packages into `target/tools`, without installing them.
    Unpack(&'static Bundle),
}

/// What is missing, in the order in which to do it; empty when nothing is. `refused` are actions that were tried
/// and failed. The later actions of a list rest on a guess of what the first will bring: do one, look, decide again.
pub(super) fn decide(found: &Found, scope: Scope, refused: &[Action]) -> Vec<Action> {
    let compiler = choose(found, refused);
    let rust_src = if compiler.is_some() { None } else { rust_src(found, refused) };
    let llvm = match (compiler, &rust_src) {
        (Some(compiler), _) => compiler.llvm,
        (None, Some((_, llvm))) => *llvm,
        (None, None) => COMPILER_LLVM,
    };
    let linker_fits = found
        .linker
        .as_ref()
        .is_some_and(|linker| linker.version == LINKER_VERSION && linker.llvm == Some(llvm));

    let mut packages: Vec<String> = Vec::new();
    if compiler.is_none() && rust_src.is_none() {
        packages.extend(COMPILER_PACKAGES.map(String::from));
    }
    if !linker_fits {
        if !found.llvms.contains(&llvm) {
            packages.push(llvm_package(llvm));
        }
        packages.extend(missing(&LINKER_COMMANDS, |name| found.commands.contains(name)));
        packages.extend(missing(&LINKER_HEADERS, |name| found.headers.contains(name)));
    }
    packages.extend(missing(&COMMANDS, |name| found.commands.contains(name)));
    if scope == Scope::Everything {
        packages.extend(missing(&TEST_COMMANDS, |name| found.commands.contains(name)));
    }
    packages.dedup();

    let mut actions = Vec::new();
    actions.extend(rust_src.map(|(toolchain, _)| Action::AddRustSrc { toolchain }));
    if !packages.is_empty() {
        actions.push(Action::Install { packages });
    }
    if !linker_fits {
        actions.push(Action::BuildLinker { llvm });
    }
    if let Some(text) = compiler.map(Compiler::record)
        && found.recorded.as_ref() != Some(&text)
    {
        actions.push(Action::Record { text });
    }
    if scope == Scope::Everything {
        let names: Vec<_> = COMPONENTS
            .iter()
            .filter(|(name, _)| !found.components.contains(name))
            .map(|(_, it)| *it)
            .collect();
        if !names.is_empty() {
            actions.push(Action::AddComponents { names });
        }
        let missing = BUNDLES.iter().filter(|bundle| !found.bundles.contains(bundle.name));
        actions.extend(missing.map(Action::Unpack));
    }
    actions
}

/// The compiler to use: the first whose LLVM the linker can be built for here.
pub(super) fn choose<'a>(found: &'a Found, refused: &[Action]) -> Option<&'a Compiler> {
    let refused = |llvm| {
        let package = llvm_package(llvm);
        refused
            .iter()
            .any(|action| matches!(action, Action::Install { packages } if packages.contains(&package)))
    };
    found.compilers.iter().find(|compiler| {
        LINKER_LLVMS.contains(&compiler.llvm)
            && (found.llvms.contains(&compiler.llvm) || !refused(compiler.llvm))
    })
}

/// The nightly worth asking rustup for `rust-src`, with its LLVM.
fn rust_src(found: &Found, refused: &[Action]) -> Option<(String, u32)> {
    let nightly = found.nightly.as_ref()?;
    let asked = refused.iter().any(|action| matches!(action, Action::AddRustSrc { .. }));
    (!asked && LINKER_LLVMS.contains(&nightly.llvm)).then(|| (nightly.name.clone(), nightly.llvm))
}

/// Why those packages are needed.
fn reasons(packages: &[String]) -> String {
    let mut reasons = Vec::new();
    for package in packages {
        let reason = match package.as_str() {
            name if COMPILER_PACKAGES.contains(&name) => "they compile the eBPF programs",
            "gcc" => "it links every Rust program",
            "iproute2" => "the tests compare with `ip` and `tc`",
            name if TEST_COMMANDS.iter().any(|(_, package)| *package == name) => "the tests use them",
            _ => "bpf-linker is built with them",
        };
        if !reasons.contains(&reason) {
            reasons.push(reason);
        }
    }
    reasons.join("; ")
}

fn llvm_package(major: u32) -> String {
    format!("llvm-{major}-dev")
}

fn missing(needed: &[(&str, &str)], is_there: impl Fn(&str) -> bool) -> Vec<String> {
    needed.iter().filter(|(name, _)| !is_there(name)).map(|(_, package)| (*package).to_owned()).collect()
}

impl Action {
    /// What is about to be there, in a few words.
    pub(super) fn what(&self) -> String {
        match self {
            Self::AddRustSrc { toolchain } => format!("rust-src for {toolchain}"),
            Self::Install { packages } => format!("packages {}", packages.join(" ")),
            Self::BuildLinker { llvm } => {
                format!("bpf-linker {LINKER_VERSION} for LLVM {llvm} (compiles for a minute or more)")
            }
            Self::Record { text } => {
                format!("target/tools/ebpf-toolchain: {}", text.trim_end().replace('\n', ", "))
            }
            Self::AddComponents { names } => format!("rustup components {}", names.join(" ")),
            Self::Unpack(Bundle { name, what, .. }) => format!("{what} in target/tools/{name}"),
        }
    }

    /// Why it is needed.
    pub(super) fn why(&self) -> String {
        match self {
            Self::AddRustSrc { .. } => "the nightly compiles the eBPF programs' core library from it",
            Self::Install { packages } => return reasons(packages),
            Self::BuildLinker { .. } => "links the eBPF programs; must be of the LLVM of the compiler",
            Self::Record { .. } => "tells the agent's build which compiler to use",
            Self::AddComponents { .. } => "`cargo xtask test` checks formatting and lints",
            Self::Unpack(bundle) => return format!("{}; unpacked only, no service starts", bundle.why),
        }
        .to_owned()
    }

    /// The commands that do the same by hand.
    pub(super) fn by_hand(&self, tools: &Path, sudo: &str) -> Vec<String> {
        let tools = tools.display();
        match self {
            Self::AddRustSrc { toolchain } => {
                vec![format!("rustup component add rust-src --toolchain {toolchain}")]
            }
            Self::Install { packages } => vec![
                format!("{sudo}apt-get update"),
                format!("{sudo}apt-get install --yes --no-install-recommends {}", packages.join(" ")),
            ],
            Self::BuildLinker { llvm } => vec![format!(
                "LLVM_PREFIX=/usr/lib/llvm-{llvm} cargo install bpf-linker@{LINKER_VERSION} --locked \
                 --no-default-features --features llvm-{llvm} --root {tools}"
            )],
            Self::Record { .. } => Vec::new(),
            Self::AddComponents { names } => vec![format!("rustup component add {}", names.join(" "))],
            Self::Unpack(bundle) => {
                let Bundle { name, packages, .. } = bundle;
                let mut lines = vec![
                    format!(
                        "mkdir -p {tools}/{name} && cd {tools}/{name} && apt-get download {}",
                        packages.join(" ")
                    ),
                    "for deb in *.deb; do dpkg -x $deb . && rm $deb; done".to_owned(),
                ];
                lines.extend(bundle.wheel().map(|wheel| {
                    format!(
                        "echo '{wheel}' > /tmp/wheel && python3 usr/share/python-wheels/pip-*.whl/pip install --no-deps \
                         --require-hashes --target python --requirement /tmp/wheel"
                    )
                }));
                let all: Vec<_> = bundle.lines().map(|line| format!("'{line}'")).collect();
                lines.push(format!("printf '%s\\n' {} > packages", all.join(" ")));
                lines
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{
        super::look::{Core, Linker, Nightly},
        *,
    };

    fn debian() -> Compiler {
        Compiler { bin: "/usr/bin".into(), release: "1.96.0".into(), llvm: 22, core: Core::Precompiled }
    }

    /// A machine on which nothing is missing.
    fn complete() -> Found {
        Found {
            compilers: vec![debian()],
            nightly: None,
            linker: Some(Linker { version: LINKER_VERSION.to_owned(), llvm: Some(22) }),
            llvms: BTreeSet::from([22]),
            commands: COMMANDS
                .iter()
                .chain(&LINKER_COMMANDS)
                .chain(&TEST_COMMANDS)
                .map(|(name, _)| *name)
                .collect(),
            headers: BTreeSet::from(["zlib.h", "zstd.h"]),
            components: BTreeSet::from(["fmt", "clippy"]),
            bundles: BUNDLES.iter().map(|bundle| bundle.name).collect(),
            recorded: Some(debian().record()),
        }
    }

    /// A new Debian 12 with a stable Rust and its C compiler.
    fn bare() -> Found {
        Found {
            commands: BTreeSet::from(["cc"]),
            components: BTreeSet::from(["fmt", "clippy"]),
            ..Found::default()
        }
    }

    fn install(packages: &[&str]) -> Action {
        Action::Install { packages: packages.iter().map(|name| (*name).to_owned()).collect() }
    }

    #[test]
    fn nothing_is_done_where_nothing_is_missing() {
        assert_eq!(decide(&complete(), Scope::Everything, &[]), []);
    }

    #[test]
    fn a_new_machine_gets_the_packages_then_the_linker_then_what_is_unpacked() {
        let build = [
            "rustc-web",
            "cargo-web",
            "libstd-rust-web-dev-bpf",
            "llvm-22-dev",
            "g++",
            "zlib1g-dev",
            "libzstd-dev",
            "iproute2",
        ];
        let tests = TEST_COMMANDS.map(|(_, package)| package);
        let linker = Action::BuildLinker { llvm: 22 };
        assert_eq!(
            decide(&bare(), Scope::Everything, &[]),
            [install(&[&build[..], &tests[..]].concat()), linker.clone()]
                .into_iter()
                .chain(BUNDLES.iter().map(Action::Unpack))
                .collect::<Vec<_>>()
        );
        assert_eq!(decide(&bare(), Scope::Build, &[]), [install(&build), linker]);
    }

    #[test]
    fn after_the_packages_the_linker_is_built_and_the_compiler_recorded() {
        let found = Found { linker: None, recorded: None, ..complete() };
        let record = Action::Record { text: "/usr/bin\ncore\n".to_owned() };
        assert_eq!(decide(&found, Scope::Everything, &[]), [Action::BuildLinker { llvm: 22 }, record]);
    }

    #[test]
    fn a_linker_of_another_llvm_or_version_is_built_anew() {
        for linker in [
            Linker { version: LINKER_VERSION.to_owned(), llvm: Some(21) },
            Linker { version: LINKER_VERSION.to_owned(), llvm: None },
            Linker { version: "0.9.0".to_owned(), llvm: Some(22) },
        ] {
            let found = Found { linker: Some(linker), ..complete() };
            assert_eq!(decide(&found, Scope::Build, &[]), [Action::BuildLinker { llvm: 22 }]);
        }
    }

    #[test]
    fn a_nightly_with_rust_src_comes_before_a_precompiled_core() {
        let nightly = Compiler { bin: "/nightly/bin".into(), core: Core::BuildStd, ..debian() };
        let found = Found { compilers: vec![nightly.clone(), debian()], recorded: None, ..complete() };
        assert_eq!(decide(&found, Scope::Build, &[]), [Action::Record { text: nightly.record() }]);
    }

    #[test]
    fn a_nightly_whose_llvm_the_linker_does_not_know_is_passed_over() {
        let nightly = Compiler { bin: "/nightly/bin".into(), llvm: 99, core: Core::BuildStd, ..debian() };
        let found = Found { compilers: vec![nightly, debian()], ..complete() };
        assert_eq!(decide(&found, Scope::Build, &[]), []);
    }

    #[test]
    fn a_nightly_whose_llvm_cannot_be_installed_is_passed_over_once_that_is_known() {
        let nightly = Compiler { bin: "/nightly/bin".into(), llvm: 23, core: Core::BuildStd, ..debian() };
        let found = Found { compilers: vec![nightly, debian()], ..complete() };
        let first = decide(&found, Scope::Build, &[]);
        assert_eq!(first[0], install(&["llvm-23-dev"]));
        assert_eq!(decide(&found, Scope::Build, &first[..1]), []);
    }

    #[test]
    fn a_nightly_without_rust_src_is_asked_for_it_once_and_only_where_no_compiler_is_ready() {
        let nightly = Some(Nightly { name: "nightly-x86_64-unknown-linux-gnu".to_owned(), llvm: 22 });
        let ready = Found { nightly: nightly.clone(), ..complete() };
        assert_eq!(decide(&ready, Scope::Build, &[]), []);
        let found = Found { nightly, ..bare() };
        let first = decide(&found, Scope::Build, &[]);
        assert_eq!(first[0], Action::AddRustSrc { toolchain: "nightly-x86_64-unknown-linux-gnu".to_owned() });
        assert_eq!(decide(&found, Scope::Build, &first[..1]), decide(&bare(), Scope::Build, &[]));
    }

    #[test]
    fn each_missing_command_header_and_component_is_noticed() {
        let mut found = complete();
        found.commands.remove("tc");
        found.components.remove("clippy");
        assert_eq!(decide(&found, Scope::Build, &[]), [install(&["iproute2"])]);
        assert_eq!(
            decide(&found, Scope::Everything, &[]),
            [install(&["iproute2"]), Action::AddComponents { names: vec!["clippy"] }]
        );
        let headers = Found { linker: None, headers: BTreeSet::new(), ..complete() };
        assert_eq!(decide(&headers, Scope::Build, &[])[0], install(&["zlib1g-dev", "libzstd-dev"]));
    }

    #[test]
    fn each_kind_of_package_has_its_reason_once() {
        assert_eq!(
            decide(&bare(), Scope::Build, &[])[0].why(),
            "they compile the eBPF programs; bpf-linker is built with them; the tests compare with `ip` and `tc`"
        );
        assert_eq!(install(&["gcc"]).why(), "it links every Rust program");
    }

    #[test]
    fn the_commands_by_hand_are_whole() {
        let tools = Path::new("/w/target/tools");
        assert_eq!(
            install(&["iproute2"]).by_hand(tools, "sudo "),
            ["sudo apt-get update", "sudo apt-get install --yes --no-install-recommends iproute2"]
        );
        assert_eq!(
            Action::BuildLinker { llvm: 22 }.by_hand(tools, ""),
            ["LLVM_PREFIX=/usr/lib/llvm-22 cargo install bpf-linker@0.13.0 --locked --no-default-features \
              --features llvm-22 --root /w/target/tools"]
        );
    }
}
