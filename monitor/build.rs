//! Builds the eBPF programs with the tools that `cargo xtask setup` found, and hands them to the agent.
//!
//! Cargo within cargo, as aya-build does it, with two differences: it needs no rustup toolchain, and every
//! profile shares one target directory, so the programs are compiled once and not for each of dev, test and release.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Written by `cargo xtask setup`. First line: the folder of a `cargo` and `rustc` that can build for the bpf
/// target. Second line: `core` when they bring that target's core library, `build-std` when it must be compiled.
const TOOLCHAIN_FILE: &str = "target/tools/ebpf-toolchain";
const PROGRAMS: [&str; 7] = ["shared", "inside", "drops", "tcp", "flows", "dns", "baseline"];

fn main() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the package stands in a workspace");
    println!("cargo:rerun-if-changed={}", root.join("monitor-ebpf").display());
    println!("cargo:rerun-if-changed={}", root.join(TOOLCHAIN_FILE).display());
    if let Err(why) = build(root, &PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"))) {
        eprintln!("{why}");
        std::process::exit(1);
    }
}

fn build(root: &Path, out: &Path) -> Result<(), String> {
    let missing =
        || format!("no tools for building eBPF programs ({TOOLCHAIN_FILE}): run `cargo xtask setup` once");
    let file =
        fs::read_to_string(root.join(TOOLCHAIN_FILE)).map_err(|error| format!("{}: {error}", missing()))?;
    let (bin, core) = file.trim_end().split_once('\n').ok_or_else(missing)?;
    let var = |name| env::var(name).map_err(|error| format!("{name}: {error}"));
    let target = match var("CARGO_CFG_TARGET_ENDIAN")?.as_str() {
        "big" => "bpfeb-unknown-none",
        _ => "bpfel-unknown-none",
    };
    let target_dir = root.join("target/ebpf");
    // The linker stands beside the toolchain file; the compiler looks for it on PATH.
    let path = format!("{}:{bin}:{}", root.join("target/tools/bin").display(), var("PATH")?);
    let flags = format!(
        "--cfg=bpf_target_arch=\"{}\"\x1f-Cdebuginfo=2\x1f-Clink-arg=--btf",
        var("CARGO_CFG_TARGET_ARCH")?
    );
    let mut cargo = Command::new(Path::new(bin).join("cargo"));
    cargo
        .current_dir(root)
        .args(["build", "--quiet", "--release", "--package", "monitor-ebpf", "--bins", "--target", target])
        .arg("--target-dir")
        .arg(&target_dir)
        .env("PATH", path)
        .env("RUSTC", Path::new(bin).join("rustc"))
        .env("CARGO_ENCODED_RUSTFLAGS", flags);
    // What the outer cargo (or clippy) set for its own compiler.
    for name in
        ["RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER", "RUSTUP_TOOLCHAIN", "CARGO_TARGET_DIR", "RUSTFLAGS"]
    {
        cargo.env_remove(name);
    }
    match core {
        "build-std" => cargo.args(["-Z", "build-std=core"]),
        // aya-ebpf uses one unstable feature; this lets it, on a stable compiler, and nothing else.
        _ => cargo.env("RUSTC_BOOTSTRAP", "aya_ebpf"),
    };
    let status = cargo.status().map_err(|error| format!("{cargo:?}: {error}"))?;
    if !status.success() {
        return Err(format!("the eBPF programs did not build ({status}); the messages are above"));
    }
    for program in PROGRAMS {
        let built = target_dir.join(target).join("release").join(program);
        fs::copy(&built, out.join(program)).map_err(|error| format!("{}: {error}", built.display()))?;
    }
    Ok(())
}
