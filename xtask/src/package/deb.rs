//! The Debian package.

use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, anyhow, bail};

use super::{Made, NAME, date, gzip, output, tree::Tree};
use crate::tools::{Place, ask, quietly};

/// Files that belong to the administrator once they are installed.
const CONFFILES: [(&str, &str); 2] = [
    ("deb/netns-monitor.toml", "etc/netns-monitor/netns-monitor.toml"),
    ("deb/default", "etc/default/netns-monitor"),
];
const SCRIPTS: [&str; 3] = ["postinst", "prerm", "postrm"];
/// Shells that are told how to complete a command, and where.
const SHELLS: [(&str, &str); 3] = [
    ("bash", "usr/share/bash-completion/completions/netns-monitor"),
    ("zsh", "usr/share/zsh/vendor-completions/_netns-monitor"),
    ("fish", "usr/share/fish/vendor_completions.d/netns-monitor.fish"),
];

/// Makes the package in a folder, and returns its path.
///
/// # Errors
/// A tool is missing, or a library that the program needs is of a package that is not known here.
pub(super) fn build(
    place: &Place,
    made: &Made,
    out: &Path,
    revision: &str,
    compress: &str,
) -> Result<PathBuf> {
    let architecture = ask("dpkg", ["--print-architecture"]).context("dpkg --print-architecture")?;
    let architecture = architecture.trim();
    let version = format!("{}-{revision}", debian_version(&made.version));
    let tree = Tree::new(&made.work.join("deb"))?;
    fill(place, made, &tree, &version)?;
    let sums = sums(tree.root())?;
    let control =
        control(&version, architecture, &depends_of(&made.binary)?.join(", "), installed_kb(tree.root())?);
    tree.write("DEBIAN/control", 0o644, control.as_bytes())?;
    tree.write("DEBIAN/md5sums", 0o644, &sums)?;
    let conffiles: String = CONFFILES.iter().map(|(_, path)| format!("/{path}\n")).collect();
    tree.write("DEBIAN/conffiles", 0o644, conffiles.as_bytes())?;
    for script in SCRIPTS {
        tree.copy(&own(place).join("deb").join(script), &format!("DEBIAN/{script}"), 0o755)?;
    }
    fs::create_dir_all(out).with_context(|| out.display().to_string())?;
    let package = out.join(format!("{NAME}_{version}_{architecture}.deb"));
    let mut dpkg = Command::new("dpkg-deb");
    // One thread: how many there are must not show in the bytes.
    dpkg.args(["--root-owner-group", "--threads-max=1", &format!("-Z{compress}"), "--build"]);
    quietly(dpkg.arg(tree.root()).arg(&package).env("SOURCE_DATE_EPOCH", made.epoch.to_string()))?;
    Ok(package)
}

/// Who answers for the package: whom Debian's own tools would name, or nobody who can be reached.
fn maintainer() -> String {
    let or = |name: &str, otherwise: &str| env::var(name).unwrap_or_else(|_| otherwise.to_owned());
    format!(
        "{} <{}>",
        or("DEBFULLNAME", "the netns-monitor authors"),
        or("DEBEMAIL", "netns-monitor@localhost")
    )
}

/// Where what belongs to packages alone stands.
pub(super) fn own(place: &Place) -> PathBuf {
    place.root.join("xtask/package")
}

fn fill(place: &Place, made: &Made, tree: &Tree, version: &str) -> Result<()> {
    let own = own(place);
    tree.copy(&made.stripped()?, "usr/sbin/netns-monitor", 0o755)?;
    tree.copy(&own.join("netns-monitor.service"), "usr/lib/systemd/system/netns-monitor.service", 0o644)?;
    for (from, to) in CONFFILES {
        tree.copy(&own.join(from), to, 0o644)?;
    }
    tree.copy_all(
        &place.root.join("dashboards"),
        "usr/share/netns-monitor/dashboards",
        &[".json", ".yml", ".md"],
    )?;
    tree.copy_all(&own.join("kubernetes"), "usr/share/netns-monitor/kubernetes", &[".yaml"])?;
    let doc = "usr/share/doc/netns-monitor";
    tree.copy(&own.join("copyright"), &format!("{doc}/copyright"), 0o644)?;
    tree.copy(&place.root.join("README.md"), &format!("{doc}/README.md"), 0o644)?;
    let changes = fs::read(place.root.join("CHANGELOG.md")).context("CHANGELOG.md")?;
    tree.write(&format!("{doc}/changelog.gz"), 0o644, &gzip(&changes, 9)?)?;
    let entry = format!(
        "{NAME} ({version}) unstable; urgency=medium\n\n  * Version {}; what changed is in changelog.gz.\n\n -- {}  {}\n",
        made.version,
        maintainer(),
        date(made.epoch, "--rfc-email")?
    );
    tree.write(&format!("{doc}/changelog.Debian.gz"), 0o644, &gzip(entry.as_bytes(), 9)?)?;
    manuals(made, tree)
}

/// What the program itself writes: manual pages, and completions for shells; each where it has the subcommand for it.
fn manuals(made: &Made, tree: &Tree) -> Result<()> {
    let help = ask(&made.binary, ["--help"]).with_context(|| format!("{} --help", made.binary.display()))?;
    let can = |name: &str| help.lines().any(|line| line.trim_start().starts_with(&format!("{name} ")));
    if can("man") {
        let folder = made.work.join("man");
        fs::create_dir_all(&folder)?;
        quietly(Command::new(&made.binary).arg("man").arg(&folder))?;
        for entry in fs::read_dir(&folder)?.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let section = name.rsplit('.').next().unwrap_or_default().to_owned();
            let page = gzip(&fs::read(entry.path())?, 9)?;
            tree.write(&format!("usr/share/man/man{section}/{name}.gz"), 0o644, &page)?;
        }
        fs::remove_dir_all(&folder)?;
    }
    if can("completions") {
        for (shell, path) in SHELLS {
            let script = output(Command::new(&made.binary).args(["completions", shell]), b"")?;
            tree.write(path, 0o644, &script)?;
        }
    }
    Ok(())
}

/// Cargo's version as Debian orders it: what comes before a release has a tilde.
fn debian_version(cargo: &str) -> String {
    cargo.replacen('-', "~", 1)
}

fn control(version: &str, architecture: &str, depends: &str, installed_kb: u64) -> String {
    format!(
        "Package: {NAME}\nVersion: {version}\nArchitecture: {architecture}\nMaintainer: {}\n\
         Installed-Size: {installed_kb}\nDepends: {depends}\nRecommends: nftables\nSuggests: prometheus\n\
         Section: net\nPriority: optional\n\
         Description: builds, watches and explains network namespaces\n \
         A host agent that finds every network namespace, counts every packet of each\n \
         with eBPF, to the packet, says why packets are lost, and serves the counts to\n \
         Prometheus. From a file it makes namespaces, veth pairs and bridges, and keeps\n \
         them as the file says.\n .\n \
         Installing it starts nothing: systemctl enable --now netns-monitor\n",
        maintainer()
    )
}

/// Disk usage in KiB as Debian's policy counts it: each file rounded up, and each folder one.
fn installed_kb(root: &Path) -> Result<u64> {
    let mut sum = 0;
    for entry in fs::read_dir(root)? {
        let entry = entry?;
        sum += match entry.file_type()?.is_dir() {
            true => 1 + installed_kb(&entry.path())?,
            false => entry.metadata()?.len().div_ceil(1024),
        };
    }
    Ok(sum)
}

/// The check sums that `dpkg --verify` compares with, of everything but the administrator's files.
fn sums(root: &Path) -> Result<Vec<u8>> {
    let mut files = Vec::new();
    list(root, root, &mut files)?;
    files.retain(|file| !CONFFILES.iter().any(|(_, conffile)| Path::new(conffile) == file));
    files.sort();
    output(Command::new("md5sum").args(files).current_dir(root), b"")
}

fn list(root: &Path, folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        match path.is_dir() {
            true => list(root, &path, files)?,
            false => files.push(path.strip_prefix(root)?.to_owned()),
        }
    }
    Ok(())
}

/// What the program needs installed, asked of the program itself.
fn depends_of(binary: &Path) -> Result<Vec<String>> {
    let readelf = |what: &str| {
        let mut readelf = Command::new("readelf");
        let text = output(readelf.env("LC_ALL", "C").args(["--wide", what]).arg(binary), b"")?;
        Ok::<_, anyhow::Error>(String::from_utf8(text)?)
    };
    depends(&readelf("--dynamic")?, &readelf("--version-info")?)
}

/// Libraries, the package of each, and how its versions are called.
const LIBRARIES: [(&str, &str, &str); 5] = [
    ("ld-linux", "libc6", "GLIBC_"),
    ("libc.so.6", "libc6", "GLIBC_"),
    ("libm.so.6", "libc6", "GLIBC_"),
    ("libpthread.so.0", "libc6", "GLIBC_"),
    ("libgcc_s.so.1", "libgcc-s1", "GCC_"),
];

/// Packages with their least versions, from what readelf prints of libraries and of versions.
fn depends(dynamic: &str, versions: &str) -> Result<Vec<String>> {
    let needed = dynamic.lines().filter(|line| line.contains("(NEEDED)"));
    let needed = needed.filter_map(|line| line.split_once('[')?.1.strip_suffix(']'));
    let mut packages: BTreeMap<&str, Vec<u32>> = BTreeMap::new();
    for library in needed {
        let known = LIBRARIES.iter().find(|(name, ..)| library.starts_with(name));
        let (_, package, prefix) = known.ok_or_else(|| {
            anyhow!("{library}: which package brings it? add it to LIBRARIES in xtask/src/package/deb.rs")
        })?;
        let least = versions
            .split_whitespace()
            .filter_map(|word| word.strip_prefix(prefix))
            .filter_map(|text| text.split('.').map(|part| part.parse().ok()).collect::<Option<Vec<u32>>>())
            .max();
        let Some(least) = least else { bail!("{library}: no version of {prefix}* is asked for") };
        packages.insert(package, least);
    }
    let text = |(package, version): (&str, Vec<u32>)| {
        let version: Vec<_> = version.iter().map(u32::to_string).collect();
        format!("{package} (>= {})", version.join("."))
    };
    Ok(packages.into_iter().map(text).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const DYNAMIC: &str = " 0x0000000000000001 (NEEDED)             Shared library: [libgcc_s.so.1]\n \
                           0x0000000000000001 (NEEDED)             Shared library: [libc.so.6]\n \
                           0x000000000000000c (INIT)               0x4000\n";
    const VERSIONS: &str = "  0x0030:   Name: GLIBC_2.9  Flags: none  Version: 4\n  0x0040:   Name: GLIBC_2.34  Flags: none  Version: 3\n  \
                            0x0050:   Name: GLIBC_ABI_DT_RELR  Flags: none\n  0x0020:   Name: GCC_3.3  Flags: none  Version: 8\n  \
                            0x0060:   Name: GCC_4.2.0  Flags: none\n";

    #[test]
    fn the_least_versions_of_libraries_are_the_highest_that_are_asked_for() {
        assert_eq!(
            depends(DYNAMIC, VERSIONS).expect("both known"),
            ["libc6 (>= 2.34)", "libgcc-s1 (>= 4.2.0)"]
        );
    }

    #[test]
    fn a_library_of_an_unknown_package_is_an_error_that_says_what_to_do() {
        let said = depends(&DYNAMIC.replace("libgcc_s.so.1", "libz.so.1"), VERSIONS).expect_err("libz");
        assert!(said.to_string().contains("libz.so.1: which package"), "{said}");
        depends(DYNAMIC, "").expect_err("no versions");
    }

    #[test]
    fn a_version_before_a_release_is_ordered_before_it() {
        assert_eq!(debian_version("1.2.3"), "1.2.3");
        assert_eq!(debian_version("1.2.3-rc.1"), "1.2.3~rc.1");
    }

    #[test]
    fn the_control_file_has_no_empty_line_and_every_continuation_is_indented() {
        let text = control("0.1.0-1", "amd64", "libc6 (>= 2.34)", 7);
        let fields = text.lines().filter(|line| !line.starts_with(' '));
        assert!(fields.clone().all(|line| line.contains(": ")), "{text}");
        assert!(!text.contains("\n\n") && text.ends_with('\n'), "{text}");
    }
}
