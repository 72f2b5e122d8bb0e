//! `package`: what the agent is installed as. A Debian package, a root file system, or an image for container engines, each from one
//! built binary, and each the same bytes from the same binary.
//!
//! Made with the machine's own `dpkg-deb`, `tar`, `gzip` and `sha256sum`: cargo-deb would compile two hundred packages to fill one
//! archive, and what it decides (dependencies, maintainer scripts) is a few lines here, where a test reads them.

mod deb;
mod image;
mod tree;

use std::{
    env, fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{self, Command, ExitCode, Stdio},
    thread,
};

use anyhow::{Context as _, Result, bail};

use crate::{
    misused, setup,
    tools::{Place, ask, line, quietly},
};

/// Name of the package, the program and the service.
const NAME: &str = "netns-monitor";

/// What is asked for.
#[derive(Debug, PartialEq, Eq)]
struct Options {
    /// A binary that is there; otherwise one is built.
    binary: Option<PathBuf>,
    /// With which of cargo's profiles.
    profile: String,
    /// Where the package goes.
    out: Option<PathBuf>,
    /// The part of the version that counts packages of one version.
    revision: String,
    /// How the package is compressed, in the words of `dpkg-deb -Z`.
    compress: String,
    /// Instead of a package: a folder for a root file system.
    rootfs: Option<PathBuf>,
    /// Instead of a package: a file for an image.
    oci: Option<PathBuf>,
}

/// `cargo xtask package [OPTIONS]`.
pub(crate) fn verb(place: &Place, args: &[String]) -> Result<ExitCode> {
    let options = match parse(args) {
        Ok(options) => options,
        Err(why) => return Ok(misused(&why)),
    };
    let binary = match &options.binary {
        Some(binary) => binary.clone(),
        None => build(place, &options.profile)?,
    };
    let work = place.package().join(format!("work-{}", process::id()));
    fs::create_dir_all(&work).with_context(|| work.display().to_string())?;
    let made = Made { version: version(place)?, epoch: epoch(place)?, binary, work };
    let done = make(place, &made, &options);
    fs::remove_dir_all(&made.work).with_context(|| made.work.display().to_string())?;
    done.map(|()| ExitCode::SUCCESS)
}

fn make(place: &Place, made: &Made, options: &Options) -> Result<()> {
    if let Some(folder) = &options.rootfs {
        image::rootfs(place, made, folder)?;
        println!("{}: {}", folder.display(), size(folder)?);
    }
    if let Some(file) = &options.oci {
        image::oci(place, made, file)?;
        println!("{}: {}", file.display(), size(file)?);
    }
    if options.rootfs.is_none() && options.oci.is_none() {
        let out = options.out.clone().unwrap_or_else(|| place.package());
        let package = deb::build(place, made, &out, &options.revision, &options.compress)?;
        println!("{}: {}", package.display(), size(&package)?);
    }
    Ok(())
}

fn parse(args: &[String]) -> Result<Options, String> {
    let mut options = Options {
        binary: None,
        profile: "release".to_owned(),
        out: None,
        revision: "1".to_owned(),
        compress: "xz".to_owned(),
        rootfs: None,
        oci: None,
    };
    let mut args = args.iter();
    while let Some(name) = args.next() {
        let known = ["--binary", "--profile", "--out", "--revision", "--compress", "--rootfs", "--oci"]
            .contains(&name.as_str());
        if !known {
            return Err(format!("package has no option {name:?}"));
        }
        let value = args.next().ok_or_else(|| format!("{name} wants a value"))?;
        match name.as_str() {
            "--binary" => options.binary = Some(value.into()),
            "--profile" => options.profile = value.clone(),
            "--out" => options.out = Some(value.into()),
            "--revision" => options.revision = value.clone(),
            "--compress" => options.compress = value.clone(),
            "--rootfs" => options.rootfs = Some(value.into()),
            _ => options.oci = Some(value.into()),
        }
    }
    if !options.revision.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".+~".contains(&byte)) {
        return Err(format!("--revision {:?}: letters, digits, and . + ~", options.revision));
    }
    Ok(options)
}

/// What every form is made from.
struct Made {
    /// As Cargo has it.
    version: String,
    /// The time that everything in it has, in seconds since 1970.
    epoch: u64,
    /// The program.
    binary: PathBuf,
    /// A folder for what is on the way, which goes at the end.
    work: PathBuf,
}

impl Made {
    /// The program without symbols, which only a debugger needs, in the folder for what is on the way.
    fn stripped(&self) -> Result<PathBuf> {
        let stripped = self.work.join("stripped");
        quietly(Command::new("strip").arg("-o").arg(&stripped).arg(&self.binary))?;
        Ok(stripped)
    }
}

fn build(place: &Place, profile: &str) -> Result<PathBuf> {
    setup::complete(place, setup::Scope::Build, false)?;
    let mut cargo = place.cargo(&["build", "--profile", profile, "--package", "monitor", "--bin", NAME]);
    let status = cargo.status().with_context(|| line(&cargo))?;
    if !status.success() {
        bail!("`{}` failed ({status}); the messages are above", line(&cargo));
    }
    // Cargo's one profile whose folder has another name.
    Ok(place.agent(if profile == "dev" { "debug" } else { profile }))
}

/// The workspace's version.
fn version(place: &Place) -> Result<String> {
    let text = fs::read_to_string(place.root.join("Cargo.toml")).context("Cargo.toml")?;
    let (_, section) =
        text.split_once("[workspace.package]").context("Cargo.toml has no [workspace.package]")?;
    let value = section.lines().find_map(|line| line.strip_prefix("version = \"")?.strip_suffix('"'));
    Ok(value.context("Cargo.toml has no version")?.to_owned())
}

/// When the source was last changed: `SOURCE_DATE_EPOCH`, or the last commit.
fn epoch(place: &Place) -> Result<u64> {
    let text = match env::var("SOURCE_DATE_EPOCH") {
        Ok(text) => text,
        Err(_) => {
            let root = place.root.display().to_string();
            ask("git", ["-C", &root, "log", "-1", "--format=%ct"]).context(
                "this is no git checkout: say with SOURCE_DATE_EPOCH which time the files shall have",
            )?
        }
    };
    text.trim().parse().with_context(|| format!("SOURCE_DATE_EPOCH {text:?} is no number of seconds"))
}

/// A time as `date` writes it in that form, in UTC and English.
fn date(epoch: u64, form: &str) -> Result<String> {
    let mut date = Command::new("date");
    let text = output(date.env("LC_ALL", "C").args(["--utc", &format!("--date=@{epoch}"), form]), b"")?;
    Ok(String::from_utf8(text)?.trim_end().to_owned())
}

/// What a command prints when it is fed that.
fn output(command: &mut Command, input: &[u8]) -> Result<Vec<u8>> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().with_context(|| line(command))?;
    let mut pipe = child.stdin.take().context("a pipe")?;
    let output = thread::scope(|scope| {
        // A command that ends before it has read everything says so by its status.
        scope.spawn(move || pipe.write_all(input));
        child.wait_with_output()
    })?;
    if !output.status.success() {
        bail!("`{}` failed ({})", line(command), output.status);
    }
    Ok(output.stdout)
}

/// The same bytes for the same input, whenever and from wherever.
fn gzip(input: &[u8], level: u8) -> Result<Vec<u8>> {
    output(Command::new("gzip").args([&format!("-{level}"), "--no-name", "--stdout"]), input)
}

/// MB of a file, or of all files in a folder.
fn size(path: &Path) -> Result<String> {
    fn bytes(path: &Path) -> std::io::Result<u64> {
        let meta = fs::symlink_metadata(path)?;
        if !meta.is_dir() {
            return Ok(meta.len());
        }
        fs::read_dir(path)?.map(|entry| bytes(&entry?.path())).sum()
    }
    Ok(format!("{:.1} MB", bytes(path)? as f64 / 1e6))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn options_are_understood_or_refused_with_the_reason() {
        let options = parse(&words("--binary /x --revision 2~a --oci i.tar")).expect("they are fine");
        assert_eq!((options.binary, options.oci), (Some("/x".into()), Some("i.tar".into())));
        assert_eq!((options.revision.as_str(), options.profile.as_str()), ("2~a", "release"));
        for (wrong, why) in
            [("--what", "no option"), ("--oci", "wants a value"), ("--revision 1-2", "digits")]
        {
            let said = parse(&words(wrong)).expect_err(wrong);
            assert!(said.contains(why), "{wrong}: {said}");
        }
    }

    #[test]
    fn the_version_is_cargos() {
        assert_eq!(version(&Place::new()).expect("a version"), env!("CARGO_PKG_VERSION"));
    }

    #[test]
    fn a_time_is_written_in_utc_and_english() {
        assert_eq!(date(0, "--rfc-email").expect("date"), "Thu, 01 Jan 1970 00:00:00 +0000");
    }

    #[test]
    fn what_is_compressed_twice_is_the_same_and_comes_back() {
        let packed = gzip(b"some text", 9).expect("gzip");
        assert_eq!(packed, gzip(b"some text", 9).expect("gzip"));
        assert_eq!(output(Command::new("gzip").arg("-dc"), &packed).expect("gzip"), b"some text");
    }
}
