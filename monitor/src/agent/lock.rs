//! One agent for each run directory: a lock that the kernel lets go of when its holder dies.

use std::{
    fs::{self, File, OpenOptions},
    io::{Read as _, Seek as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use nix::fcntl::{Flock, FlockArg};

/// The lock on a run directory, held until dropped.
#[derive(Debug)]
pub struct RunLock {
    file: Flock<File>,
}

/// Why the lock was not had.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process holds it.
    #[error(
        "{run_dir} is held by process {holder}: one agent for each run directory; stop that one or give another --run-dir"
    )]
    Held {
        /// The run directory.
        run_dir: PathBuf,
        /// Pid of the holder as it wrote it, or what is known instead.
        holder: String,
    },
    /// The directory or file could not be made or opened.
    #[error("cannot lock the run directory: {call} {path}: {source}")]
    Io {
        /// What was tried.
        call: &'static str,
        /// On which path.
        path: PathBuf,
        /// What the kernel said.
        source: std::io::Error,
    },
}

impl RunLock {
    /// Makes the run directory (mode 0700) if needed and takes its lock without waiting.
    ///
    /// # Errors
    /// [`LockError::Held`] names the holder.
    pub fn take(run_dir: &Path) -> Result<Self, LockError> {
        let io = |call, path: &Path| {
            let path = path.to_owned();
            move |source| LockError::Io { call, path, source }
        };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(run_dir).map_err(io("mkdir", run_dir))?;
        let path = run_dir.join("lock");
        loop {
            let lock = Self::take_file(run_dir, &path)?;
            // An agent that cleans up removes the file while it holds it: a lock on a file that is no longer there
            // keeps nobody out.
            let held = lock.file.metadata().map(|meta| meta.ino()).ok();
            if held.is_some() && held == fs::metadata(&path).map(|meta| meta.ino()).ok() {
                return Ok(lock);
            }
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(run_dir)
                .map_err(io("mkdir", run_dir))?;
        }
    }

    fn take_file(run_dir: &Path, path: &Path) -> Result<Self, LockError> {
        let io = |call| {
            let path = path.to_owned();
            move |source| LockError::Io { call, path, source }
        };
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
            .map_err(io("open"))?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(mut file) => {
                file.set_len(0).and_then(|()| file.rewind()).map_err(io("truncate"))?;
                writeln!(file, "{}", std::process::id()).map_err(io("write"))?;
                Ok(Self { file })
            }
            Err((mut file, nix::Error::EWOULDBLOCK)) => {
                let mut holder = String::new();
                let known = file.read_to_string(&mut holder).is_ok() && !holder.trim().is_empty();
                let holder = if known { holder.trim().to_owned() } else { "(unknown)".to_owned() };
                Err(LockError::Held { run_dir: run_dir.to_owned(), holder })
            }
            Err((_, errno)) => Err(io("flock")(errno.into())),
        }
    }

    /// Pid of the process that holds the lock of this run directory, if one does. Changes nothing.
    pub fn holder(run_dir: &Path) -> Option<String> {
        let mut file = File::open(run_dir.join("lock")).ok()?;
        let mut pid = String::new();
        file.read_to_string(&mut pid).ok()?;
        match Flock::lock(file, FlockArg::LockSharedNonblock) {
            Ok(_) => None,
            Err(_) => Some(pid.trim().to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_lock_on_a_run_directory_names_the_holder_and_a_released_one_is_free() {
        let dir = std::env::temp_dir().join(format!("netns-monitor-lock-{}", std::process::id()));
        let first = RunLock::take(&dir).expect("free");
        let second = RunLock::take(&dir).expect_err("held");
        assert!(second.to_string().contains(&std::process::id().to_string()), "{second}");
        assert_eq!(RunLock::holder(&dir), Some(std::process::id().to_string()));
        drop(first);
        assert_eq!(RunLock::holder(&dir), None);
        // A file that was removed while it was locked keeps nobody out, and nobody is let in by it.
        let old = RunLock::take(&dir).expect("free");
        fs::remove_file(dir.join("lock")).expect("ours");
        let new = RunLock::take(&dir).expect("a new file");
        assert!(RunLock::take(&dir).is_err());
        drop(old);
        assert!(RunLock::take(&dir).is_err());
        drop(new);
        drop(RunLock::take(&dir).expect("free again"));
        fs::remove_dir_all(&dir).expect("ours");
    }
}
