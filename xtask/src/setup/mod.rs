//! `setup`: looks, decides, does the first thing, and looks again, until nothing is missing.
//!
//! It never installs what is there in another form, never starts a service, and keeps what it builds under
//! `target/tools`. Where it may not install, it prints the commands and fails.

mod bundle;
mod decide;
mod look;

use std::{
    fs,
    path::PathBuf,
    process::{Child, Command, ExitCode, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, bail};

use bundle::{BUNDLES, Bundle, pip};
pub(crate) use decide::Scope;
use decide::{
    Action, COMMANDS, COMPONENTS, LINKER_COMMANDS, LINKER_HEADERS, LINKER_VERSION, TEST_COMMANDS, choose,
    decide,
};
use look::{Core, Found, llvm_prefix, look};

use crate::{
    misused,
    tools::{BPF_TARGET, Place, find, is_root, line, quietly},
};

/// Rustup asks its server before it answers; this is how long it may think, in seconds.
const RUSTUP_DEADLINE: Duration = Duration::from_secs(90);

/// `cargo xtask setup`.
pub(crate) fn verb(place: &Place, args: &[String]) -> Result<ExitCode> {
    if let [first, ..] = args {
        return Ok(misused(&format!("setup takes no argument, not {first:?}")));
    }
    complete(place, Scope::Everything, true)?;
    println!("set-up is complete");
    Ok(ExitCode::SUCCESS)
}

/// Makes sure that everything in scope is there; says what it found only when asked, what it installs always.
///
/// # Errors
/// When something is missing and cannot be installed: why, and the commands to run by hand.
pub(crate) fn complete(place: &Place, scope: Scope, tell_all: bool) -> Result<()> {
    let (mut done, mut refused) = (Vec::new(), Vec::new());
    let mut found = look_for(place, scope);
    if tell_all {
        items(&found, scope).iter().for_each(|item| println!("{item}"));
    }
    let mut packages = Packages { updated: false };
    while let Some(action) = decide(&found, scope, &refused).into_iter().next() {
        let fail = |why: anyhow::Error| by_hand(place, &decide(&found, scope, &refused), why);
        if done.contains(&action) {
            return Err(fail(anyhow!("{}: was installed and is still not usable", action.what())));
        }
        if let Some(why) = obstacle(&action) {
            return Err(fail(anyhow!("{}: {why}", action.what())));
        }
        println!("installing {}: {}", action.what(), action.why());
        let start = Instant::now();
        match perform(place, &action, &mut packages) {
            Ok(()) => {
                println!("installed  in {:.1} s", start.elapsed().as_secs_f64());
                done.push(action);
            }
            Err(why) => {
                refused.push(action.clone());
                if decide(&found, scope, &refused).first() == Some(&action) {
                    return Err(by_hand(place, &decide(&found, scope, &refused), why));
                }
                println!("not so     {why:#}\n           (there is another way)");
            }
        }
        found = look_for(place, scope);
    }
    Ok(())
}

fn look_for(place: &Place, scope: Scope) -> Found {
    let commands: Vec<_> =
        COMMANDS.iter().chain(&LINKER_COMMANDS).chain(&TEST_COMMANDS).map(|(name, _)| *name).collect();
    let headers = LINKER_HEADERS.map(|(name, _)| name);
    let components = COMPONENTS.map(|(name, _)| name);
    look(place, &commands, &headers, if scope == Scope::Everything { &components } else { &[] })
}

/// One line for each thing that must be there.
fn items(found: &Found, scope: Scope) -> Vec<String> {
    let item = |name: &str, detail: Option<String>, need: &str| match detail {
        Some(detail) => format!("found      {name:15} {detail}"),
        None => format!("missing    {name:15} {need}"),
    };
    let compiler = choose(found, &[]).map(|compiler| {
        let how = match compiler.core {
            Core::Precompiled => "brings core for",
            Core::BuildStd => "compiles core from rust-src for",
        };
        format!(
            "{}/rustc {} (LLVM {}), {how} {BPF_TARGET}",
            compiler.bin.display(),
            compiler.release,
            compiler.llvm
        )
    });
    let linker = found.linker.as_ref().map(|linker| {
        let llvm = linker.llvm.map_or("an LLVM of its own".to_owned(), |major| format!("LLVM {major}"));
        format!("target/tools/bin/bpf-linker {} on {llvm}", linker.version)
    });
    let mut items = vec![
        item("eBPF compiler", compiler, &format!("a cargo and rustc with core for {BPF_TARGET}")),
        item("bpf-linker", linker, &format!("{LINKER_VERSION}, on the LLVM of the compiler")),
    ];
    let tests = if scope == Scope::Everything { &TEST_COMMANDS[..] } else { &[] };
    for &(name, package) in COMMANDS.iter().chain(tests) {
        let detail = found.commands.contains(name).then(|| find(name)).flatten();
        items.push(item(name, detail.map(|path| path.display().to_string()), package));
    }
    if scope == Scope::Everything {
        for (name, component) in COMPONENTS {
            let detail = found.components.contains(name).then(|| format!("cargo {name}"));
            items.push(item(component, detail, "checked by `cargo xtask test`"));
        }
        for Bundle { name, what, .. } in BUNDLES {
            let detail = found.bundles.contains(name).then(|| format!("{what} in target/tools/{name}"));
            items.push(item(name, detail, what));
        }
    }
    items
}

/// What forbids an action here, known without trying.
fn obstacle(action: &Action) -> Option<&'static str> {
    match action {
        Action::Install { .. } if find("apt-get").is_none() => Some("there is no apt-get here"),
        Action::Install { .. } if !is_root() => Some("installing packages needs root"),
        Action::Unpack(_) if find("apt-get").is_none() => Some("there is no apt-get here"),
        Action::AddComponents { .. } if find("rustup").is_none() => {
            Some("there is no rustup here; install them the way Rust was installed")
        }
        _ => None,
    }
}

/// The error with the commands that do by hand what is still missing.
fn by_hand(place: &Place, actions: &[Action], why: anyhow::Error) -> anyhow::Error {
    let sudo = if is_root() { "" } else { "sudo " };
    let mut text = format!("set-up is not complete: {why:#}\n\nOn Debian 12, run by hand:\n");
    for command in actions.iter().flat_map(|action| action.by_hand(&place.tools(), sudo)) {
        text += &format!("  {command}\n");
    }
    text += "  cargo xtask setup\n";
    if actions.iter().any(|action| matches!(action, Action::Install { .. })) {
        text += "\nElsewhere: a nightly with its sources, the development files of its LLVM (`rustc +nightly -vV`), a C++\n\
                 compiler, zlib, zstd and iproute2 by your distribution's means; then `cargo xtask setup` finds them:\n  \
                 rustup toolchain install nightly --component rust-src\n";
    }
    anyhow!(text)
}

fn perform(place: &Place, action: &Action, packages: &mut Packages) -> Result<()> {
    match action {
        Action::AddRustSrc { toolchain } => {
            let mut rustup = Command::new("rustup");
            rustup.args(["component", "add", "rust-src", "--toolchain", toolchain]);
            within(&mut rustup, RUSTUP_DEADLINE)
        }
        Action::AddComponents { names } => {
            let mut rustup = Command::new("rustup");
            rustup.args(["component", "add"]).args(names);
            within(&mut rustup, RUSTUP_DEADLINE)
        }
        Action::Install { packages: names } => packages.install(names),
        Action::BuildLinker { llvm } => build_linker(place, *llvm),
        Action::Record { text } => write(place.toolchain_file(), text),
        Action::Unpack(bundle) => unpack(place, bundle, packages),
    }
}

/// Debian's packages. The lists are brought up to date once, before the first use.
struct Packages {
    updated: bool,
}

impl Packages {
    fn update(&mut self) {
        // Without root the lists are as they are; `download` works with them.
        if !self.updated && is_root() {
            self.updated = true;
            // One source of many may be out of order, and not be needed: what follows finds out.
            if let Err(why) = quietly(&mut apt_get(&["update"])) {
                println!("{why:#}");
            }
        }
    }

    fn install(&mut self, names: &[String]) -> Result<()> {
        self.update();
        let options = ["install", "--yes", "--no-install-recommends", "--option", "DPkg::Lock::Timeout=120"];
        quietly(apt_get(&options).args(names))
    }
}

fn apt_get(args: &[&str]) -> Command {
    let mut command = Command::new("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive").args(args);
    command
}

fn build_linker(place: &Place, llvm: u32) -> Result<()> {
    let prefix = llvm_prefix(llvm).with_context(|| format!("no llvm-config of LLVM {llvm} was found"))?;
    let package = format!("bpf-linker@{LINKER_VERSION}");
    let feature = format!("llvm-{llvm}");
    let build = |options: &[&str]| {
        let mut cargo = place.cargo(&["install", &package, "--force", "--no-default-features"]);
        cargo.args(["--features", &feature, "--root"]).arg(place.tools()).args(options);
        quietly(cargo.env("LLVM_PREFIX", &prefix))
    };
    build(&["--locked"])
}

/// Downloads packages and unpacks them beside their place, so that the place is never half filled.
fn unpack(place: &Place, bundle: &Bundle, packages: &mut Packages) -> Result<()> {
    let whole = place.tools().join(bundle.name);
    let part = whole.with_extension("part");
    for folder in [&part, &whole] {
        if folder.exists() {
            fs::remove_dir_all(folder).with_context(|| folder.display().to_string())?;
        }
    }
    let unpacked = part.join("unpacked");
    fs::create_dir_all(&unpacked).with_context(|| unpacked.display().to_string())?;
    packages.update();
    quietly(apt_get(&["download"]).args(bundle.packages).current_dir(&part))?;
    let archives = fs::read_dir(&part)?.flatten().map(|entry| entry.path());
    for archive in archives.filter(|path| path.extension().is_some_and(|extension| extension == "deb")) {
        quietly(Command::new("dpkg").arg("-x").arg(&archive).arg(&unpacked))?;
    }
    if let Some(wheel) = bundle.wheel() {
        let requirements = part.join("requirements");
        fs::write(&requirements, wheel).with_context(|| requirements.display().to_string())?;
        quietly(&mut pip(&unpacked, &requirements)?)?;
    }
    bundle.complete(&unpacked).with_context(|| unpacked.display().to_string())?;
    fs::rename(&unpacked, &whole).with_context(|| whole.display().to_string())?;
    fs::remove_dir_all(&part).with_context(|| part.display().to_string())
}

/// Replaces a file as a whole: a build that reads it meets the old text or the new.
fn write(file: PathBuf, text: &str) -> Result<()> {
    let part = file.with_extension("part");
    let folder = file.parent().context("a file in a folder")?;
    fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    fs::write(&part, text).with_context(|| part.display().to_string())?;
    fs::rename(&part, &file).with_context(|| file.display().to_string())
}

/// Runs a command that may never answer.
fn within(command: &mut Command, limit: Duration) -> Result<()> {
    let start = Instant::now();
    let mut child: Child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .with_context(|| line(command))?;
    loop {
        match child.try_wait()? {
            Some(status) if status.success() => return Ok(()),
            Some(status) => bail!("`{}` failed ({status})", line(command)),
            None if start.elapsed() > limit => {
                child.kill()?;
                child.wait()?;
                bail!("`{}` did not answer within {} s", line(command), limit.as_secs());
            }
            None => thread::sleep(Duration::from_millis(50)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_that_does_not_answer_is_ended_at_the_deadline() {
        let start = Instant::now();
        let error = within(Command::new("sleep").arg("60"), Duration::from_millis(100));
        assert!(error.expect_err("it sleeps").to_string().contains("did not answer"));
        assert!(start.elapsed() < Duration::from_secs(30));
        within(&mut Command::new("true"), Duration::from_secs(30)).expect("it answers at once");
        within(&mut Command::new("false"), Duration::from_secs(30)).expect_err("it fails");
    }

    #[test]
    fn what_is_missing_is_said_item_by_item() {
        let items = items(&Found::default(), Scope::Everything);
        assert_eq!(items.len(), 2 + COMMANDS.len() + TEST_COMMANDS.len() + COMPONENTS.len() + BUNDLES.len());
        assert!(items.iter().all(|item| item.starts_with("missing ")), "{items:#?}");
    }
}
