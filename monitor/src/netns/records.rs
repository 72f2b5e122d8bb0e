//! Which namespaces are ours: one small file each in the run directory, since a namespace has nothing to tag.
//!
//! A record names the boot and the cookie, so a name that somebody else has taken since is never taken for ours.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

use super::{NetnsError, failed_io};
use crate::topology::names::{Cookie, NsName};

/// The records of one run directory.
#[derive(Clone, Debug)]
pub struct Records {
    dir: PathBuf,
}

impl Records {
    /// Those below `<run-dir>/netns`; made when the first is written.
    pub fn new(run_dir: &Path) -> Self {
        Self { dir: run_dir.join("netns") }
    }

    /// Whether the namespace of this name and cookie was made by us in this boot.
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
        Ok(self.files()?.iter().filter_map(|file| file.parse().ok()).collect())
    }

    /// What a crash left while it wrote a record.
    pub(super) fn torn(&self) -> Result<Vec<PathBuf>, NetnsError> {
        let files = self.files()?.into_iter();
        let torn =
            files.filter(|file| file.strip_prefix('.').is_some_and(|name| name.parse::<NsName>().is_ok()));
        Ok(torn.map(|file| self.dir.join(file)).collect())
    }

    fn files(&self) -> Result<Vec<String>, NetnsError> {
        let entries = match fs::read_dir(&self.dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed_io("read", &self.dir)(error)),
        };
        Ok(entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect())
    }

    /// Records a namespace, so that a crash leaves either no record or a whole one.
    pub(super) fn write(&self, name: &NsName, cookie: Cookie) -> Result<(), NetnsError> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.dir)
            .map_err(failed_io("mkdir", &self.dir))?;
        let path = self.path(name);
        // Namespace names never start with a dot.
        let temporary = self.dir.join(format!(".{name}"));
        let text = line(&boot_id()?, cookie);
        File::create(&temporary)
            .and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()))
            .and_then(|()| fs::rename(&temporary, &path))
            .and_then(|()| File::open(&self.dir)?.sync_all())
            .map_err(failed_io("write", &path))
    }

    /// Removes a record; one that is gone is removed.
    pub(super) fn remove(&self, name: &NsName) -> Result<(), NetnsError> {
        let path = self.path(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed_io("unlink", &path)(error)),
            _ => Ok(()),
        }
    }

    /// Removes what a crash in the middle of writing a record has left.
    pub(super) fn remove_unfinished(&self) -> Result<(), NetnsError> {
        let Ok(entries) = fs::read_dir(&self.dir) else { return Ok(()) };
        for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
            if path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b".")) {
                fs::remove_file(&path).map_err(failed_io("unlink", &path))?;
            }
        }
        Ok(())
    }

    pub(super) fn path(&self, name: &NsName) -> PathBuf {
        self.dir.join(name.as_str())
    }
}

fn line(boot: &str, cookie: Cookie) -> String {
    format!("boot {boot} cookie {cookie}\n")
}

fn boot_id() -> Result<String, NetnsError> {
    let path = Path::new("/proc/sys/kernel/random/boot_id");
    Ok(fs::read_to_string(path).map_err(failed_io("read", path))?.trim().to_owned())
}
