//! Switches of the host's links below `/proc/sys/net`, and the note of how they were before.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use nix::sys::statfs::{PROC_SUPER_MAGIC, fstatfs};

use crate::topology::{names::IfName, outside::Knob};

/// The switches of one link that exist.
pub(super) fn of(link: &IfName) -> impl Iterator<Item = ((IfName, Knob), bool)> {
    let read = |knob| Some(fs::read_to_string(path(link, knob)).ok()?.trim() != "0");
    Knob::ALL.into_iter().filter_map(move |knob| Some(((link.clone(), knob), read(knob)?)))
}

/// Whether the host forwards everything: IPv4, IPv6.
pub(super) fn routes() -> [bool; 2] {
    ["ipv4/ip_forward", "ipv6/conf/all/forwarding"].map(|name| {
        let value = fs::read_to_string(Path::new("/proc/sys/net").join(name));
        value.is_ok_and(|value| value.trim() != "0")
    })
}

fn path(link: &IfName, knob: Knob) -> PathBuf {
    let (family, name) = knob.path();
    Path::new("/proc/sys/net").join(family).join("conf").join(link.as_str()).join(name)
}

/// How switches were before they were changed: a file of lines.
#[derive(Clone, Debug)]
pub(super) struct Before(PathBuf);

impl Before {
    /// `<run-dir>/switches`.
    pub(super) fn new(run_dir: &Path) -> Self {
        Self(run_dir.join("switches"))
    }

    /// What is noted; nothing where nothing was changed.
    ///
    /// # Errors
    /// It cannot be read.
    pub(super) fn read(&self) -> anyhow::Result<BTreeMap<(IfName, Knob), bool>> {
        let Self(path) = self;
        let text = match fs::read_to_string(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
            text => text.with_context(|| format!("cannot read {}", path.display()))?,
        };
        Ok(text.lines().filter_map(entry).collect())
    }

    /// Turns a switch on. How it was is noted first: a crash in between leaves a note that says what is.
    ///
    /// # Errors
    /// It cannot be noted or written.
    pub(super) fn turn_on(&self, link: &IfName, knob: Knob) -> anyhow::Result<()> {
        let mut noted = self.read()?;
        let key = (link.clone(), knob);
        let was = of(link).find(|(found, _)| *found == key).map(|(_, was)| was);
        let was = was.with_context(|| format!("there is no {}", path(link, knob).display()))?;
        if let Entry::Vacant(entry) = noted.entry(key) {
            entry.insert(was);
            self.write(&noted)?;
        }
        write(link, knob, true)
    }

    /// Puts a switch back. That of a link which is gone is put back.
    ///
    /// # Errors
    /// It cannot be written.
    pub(super) fn put_back(&self, link: &IfName, knob: Knob, to: bool) -> anyhow::Result<()> {
        if path(link, knob).exists() {
            write(link, knob, to)?;
        }
        let mut noted = self.read()?;
        noted.remove(&(link.clone(), knob));
        self.write(&noted)
    }

    fn write(&self, noted: &BTreeMap<(IfName, Knob), bool>) -> anyhow::Result<()> {
        let Self(path) = self;
        let context = || format!("cannot write {}", path.display());
        if noted.is_empty() {
            return match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error).with_context(context),
                _ => Ok(()),
            };
        }
        let line = |((link, knob), was): (&(IfName, Knob), &bool)| {
            format!("{link} {} {}\n", knob.path().1, u8::from(*was))
        };
        let text: String = noted.iter().map(line).collect();
        let new = path.with_extension("new");
        File::create(&new)
            .and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()))
            .and_then(|()| fs::rename(&new, path))
            .with_context(context)
    }
}

fn entry(line: &str) -> Option<((IfName, Knob), bool)> {
    let mut words = line.split(' ');
    let (link, knob, was) = (words.next()?, words.next()?, words.next()?);
    let knob = Knob::ALL.into_iter().find(|known| known.path().1 == knob)?;
    Some(((link.parse().ok()?, knob), was == "1"))
}

/// Writes only to what is of procfs: a mount in its place would be told a secret, or lie.
fn write(link: &IfName, knob: Knob, on: bool) -> anyhow::Result<()> {
    let path = path(link, knob);
    let context = || format!("cannot set {}", path.display());
    let mut file = OpenOptions::new().read(true).write(true).open(&path).with_context(context)?;
    if fstatfs(&file).with_context(context)?.filesystem_type() != PROC_SUPER_MAGIC {
        bail!("cannot set {}: it is not of procfs", path.display());
    }
    file.write_all(if on { b"1\n" } else { b"0\n" }).with_context(context)?;
    let mut now = String::new();
    File::open(&path).and_then(|mut file| file.read_to_string(&mut now)).with_context(context)?;
    match (now.trim() != "0") == on {
        true => Ok(()),
        false => bail!("cannot set {}: the kernel keeps {}", path.display(), now.trim()),
    }
}
