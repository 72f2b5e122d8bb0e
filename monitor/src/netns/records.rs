//! Which namespaces are ours: one small file each in the run directory, since a namespace has nothing to tag.
//!
//! A record names the boot and the cookie, so a name that somebody else has taken since is never taken for ours.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

use super::{Befores, NetnsError, failed_io};
use crate::topology::names::{Cookie, NsName};

/// The records of one run directory.
#[derive(Clone, Debug)]
pub struct Records {
    folder: Folder,
    /// What namespaces were like before us; it goes with them.
    pub befores: Befores,
}

impl Records {
    /// Those below `<run-dir>/netns`; made when the first is written.
    pub fn new(run_dir: &Path) -> Self {
        Self { folder: Folder::new(run_dir.join("netns")), befores: Befores::new(run_dir) }
    }

    /// Whether the namespace of this name and cookie is ours, and of this boot.
    pub fn owns(&self, name: &NsName, cookie: Cookie) -> bool {
        let Ok(text) = fs::read_to_string(self.path(name)) else { return false };
        boot_id().is_ok_and(|boot| text == line(&boot, cookie))
    }

    /// Whether there is a record of this name, whatever it says.
    pub fn contains(&self, name: &NsName) -> bool {
        self.path(name).exists()
    }

    /// Names on record.
    ///
    /// # Errors
    /// The directory cannot be read; one that does not exist is empty.
    pub fn names(&self) -> Result<Vec<NsName>, NetnsError> {
        self.folder.names()
    }

    /// What a crash left while it wrote a record.
    pub(super) fn torn(&self) -> Result<Vec<PathBuf>, NetnsError> {
        let mut torn = self.folder.torn()?;
        torn.extend(self.befores.torn()?);
        Ok(torn)
    }

    /// Records a namespace, so that a crash leaves either no record or a whole one.
    pub(super) fn write(&self, name: &NsName, cookie: Cookie) -> Result<(), NetnsError> {
        self.folder.write(name, &line(&boot_id()?, cookie))
    }

    /// Removes a record, and what the namespace was like before; one that is gone is removed.
    pub(super) fn remove(&self, name: &NsName) -> Result<(), NetnsError> {
        self.befores.remove(name)?;
        self.folder.remove(name)
    }

    /// Removes the record alone: the namespace is not ours any more.
    pub(super) fn disown(&self, name: &NsName) -> Result<(), NetnsError> {
        self.folder.remove(name)
    }

    /// Removes what a crash in the middle of writing a record has left.
    pub(super) fn remove_unfinished(&self) -> Result<(), NetnsError> {
        for path in self.torn()? {
            fs::remove_file(&path).map_err(failed_io("unlink", &path))?;
        }
        Ok(())
    }

    pub(super) fn path(&self, name: &NsName) -> PathBuf {
        self.folder.path(name)
    }
}

/// A folder with a small file for each namespace.
#[derive(Clone, Debug)]
pub(super) struct Folder(PathBuf);

impl Folder {
    pub(super) fn new(dir: PathBuf) -> Self {
        Self(dir)
    }

    pub(super) fn path(&self, name: &NsName) -> PathBuf {
        self.0.join(name.as_str())
    }

    pub(super) fn names(&self) -> Result<Vec<NsName>, NetnsError> {
        Ok(self.files()?.iter().filter_map(|file| file.parse().ok()).collect())
    }

    /// What a crash left while it wrote one.
    pub(super) fn torn(&self) -> Result<Vec<PathBuf>, NetnsError> {
        let files = self.files()?.into_iter();
        let torn =
            files.filter(|file| file.strip_prefix('.').is_some_and(|name| name.parse::<NsName>().is_ok()));
        Ok(torn.map(|file| self.0.join(file)).collect())
    }

    fn files(&self) -> Result<Vec<String>, NetnsError> {
        let entries = match fs::read_dir(&self.0) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed_io("read", &self.0)(error)),
        };
        Ok(entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect())
    }

    /// A crash leaves either the file before or the whole new one.
    pub(super) fn write(&self, name: &NsName, text: &str) -> Result<(), NetnsError> {
        let Self(dir) = self;
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed_io("mkdir", dir))?;
        let path = self.path(name);
        // Namespace names never start with a dot.
        let temporary = dir.join(format!(".{name}"));
        File::create(&temporary)
            .and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()))
            .and_then(|()| fs::rename(&temporary, &path))
            .and_then(|()| File::open(dir)?.sync_all())
            .map_err(failed_io("write", &path))
    }

    /// One that is gone is removed.
    pub(super) fn remove(&self, name: &NsName) -> Result<(), NetnsError> {
        let path = self.path(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed_io("unlink", &path)(error)),
            _ => Ok(()),
        }
    }
}

fn line(boot: &str, cookie: Cookie) -> String {
    format!("boot {boot} cookie {cookie}\n")
}

pub(super) fn boot_id() -> Result<String, NetnsError> {
    let path = Path::new("/proc/sys/kernel/random/boot_id");
    Ok(fs::read_to_string(path).map_err(failed_io("read", path))?.trim().to_owned())
}
