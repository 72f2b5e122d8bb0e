//! A folder that becomes an archive: every file and folder with the mode it shall have, whatever the umask says.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};

/// Such a folder.
pub(super) struct Tree(PathBuf);

impl Tree {
    /// One that is new, or was empty.
    pub(super) fn new(root: &Path) -> Result<Self> {
        fs::create_dir_all(root).with_context(|| root.display().to_string())?;
        if fs::read_dir(root)?.next().is_some() {
            bail!("{} has files in it: name a folder that is new or empty", root.display());
        }
        fs::set_permissions(root, Permissions::from_mode(0o755))?;
        Ok(Self(root.to_owned()))
    }

    /// The folder itself.
    pub(super) fn root(&self) -> &Path {
        &self.0
    }

    /// A folder in it, with those above.
    pub(super) fn folder(&self, path: &str) -> Result<()> {
        let mut folder = self.0.clone();
        for part in path.split('/') {
            folder.push(part);
            if !folder.exists() {
                fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
                fs::set_permissions(&folder, Permissions::from_mode(0o755))?;
            }
        }
        Ok(())
    }

    /// A file in it.
    pub(super) fn write(&self, path: &str, mode: u32, text: &[u8]) -> Result<()> {
        if let Some((folder, _)) = path.rsplit_once('/') {
            self.folder(folder)?;
        }
        let file = self.0.join(path);
        fs::write(&file, text).with_context(|| file.display().to_string())?;
        fs::set_permissions(&file, Permissions::from_mode(mode)).with_context(|| file.display().to_string())
    }

    /// A file in it that is elsewhere already.
    pub(super) fn copy(&self, from: &Path, path: &str, mode: u32) -> Result<()> {
        let text = fs::read(from).with_context(|| from.display().to_string())?;
        self.write(path, mode, &text)
    }

    /// The files of a folder and of those in it, of these kinds.
    pub(super) fn copy_all(&self, from: &Path, path: &str, kinds: &[&str]) -> Result<()> {
        for entry in fs::read_dir(from).with_context(|| from.display().to_string())? {
            let entry = entry?.path();
            let name = entry.file_name().and_then(|name| name.to_str()).context("a name")?;
            let to = format!("{path}/{name}");
            if entry.is_dir() {
                self.copy_all(&entry, &to, kinds)?;
            } else if kinds.iter().any(|kind| name.ends_with(kind)) {
                self.copy(&entry, &to, 0o644)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_as_said_and_a_folder_of_somebody_else_is_left_alone() {
        let root = std::env::temp_dir().join(format!("netns-monitor-tree-{}", std::process::id()));
        let tree = Tree::new(&root).expect("a new folder");
        tree.write("a/b/c", 0o640, b"text").expect("a file");
        let mode = |path: &str| fs::metadata(root.join(path)).expect(path).permissions().mode() & 0o7777;
        assert_eq!((mode("a"), mode("a/b"), mode("a/b/c")), (0o755, 0o755, 0o640));
        assert!(Tree::new(&root).is_err(), "it has files in it that may be wanted");
        assert!(root.join("a/b/c").exists());
        fs::remove_dir_all(&root).expect("removed");
    }
}
