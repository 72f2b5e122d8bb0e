//! What namespaces were like before we changed them: one small file each in the run directory, for as long as there is
//! something to put back. A file of an adopted namespace is also the sign that it was adopted.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{
    NetnsError,
    records::{Folder, boot_id},
};
use crate::topology::{
    adopt::Before,
    names::{Cookie, NsName},
};

/// The files of one run directory.
#[derive(Clone, Debug)]
pub struct Befores {
    folder: Folder,
}

impl Befores {
    /// Those below `<run-dir>/before`; made when the first is written.
    pub fn new(run_dir: &Path) -> Self {
        Self { folder: Folder::new(run_dir.join("before")) }
    }

    /// What the namespace of this name and cookie was like; absent where it was not changed, or not in this boot.
    pub fn of(&self, name: &NsName, cookie: Cookie) -> Option<Before> {
        let text = fs::read_to_string(self.folder.path(name)).ok()?;
        let (first, rest) = text.split_once('\n')?;
        (first == head(&boot_id().ok()?, cookie)).then(|| parse(rest))
    }

    /// Names on file.
    ///
    /// # Errors
    /// The directory cannot be read; one that does not exist is empty.
    pub fn names(&self) -> Result<Vec<NsName>, NetnsError> {
        self.folder.names()
    }

    /// Writes it down, so that a crash leaves either the file before or the whole new one.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, name: &NsName, cookie: Cookie, before: &Before) -> Result<(), NetnsError> {
        let mut text =
            format!("{}\nlo {}\n", head(&boot_id()?, cookie), if before.lo_up { "up" } else { "down" });
        for (key, value) in &before.sysctls {
            text.push_str(&format!("sysctl {} {value}\n", key.path()));
        }
        self.folder.write(name, &text)
    }

    /// Forgets it; what is gone is forgotten.
    ///
    /// # Errors
    /// The file cannot be removed.
    pub fn remove(&self, name: &NsName) -> Result<(), NetnsError> {
        self.folder.remove(name)
    }

    pub(super) fn torn(&self) -> Result<Vec<PathBuf>, NetnsError> {
        self.folder.torn()
    }

    pub(super) fn path(&self, name: &NsName) -> PathBuf {
        self.folder.path(name)
    }
}

fn head(boot: &str, cookie: Cookie) -> String {
    format!("boot {boot} cookie {cookie}")
}

fn parse(text: &str) -> Before {
    let mut before = Before::default();
    for line in text.lines() {
        match line.split_once(' ') {
            Some(("lo", state)) => before.lo_up = state == "up",
            Some(("sysctl", rest)) => {
                if let Some((key, value)) = rest.split_once(' ')
                    && let Ok(key) = key.parse()
                {
                    before.sysctls.insert(key, value.to_owned());
                }
            }
            _ => {}
        }
    }
    before
}
