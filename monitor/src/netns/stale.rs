//! What is left of namespaces of ours: records of those that are gone, and what a crash left in the middle of making one.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
};

use super::{NetnsError, Records, clear_stale, failed_io, identity, is_placeholder, lock};
use crate::topology::names::{Cookie, NsName};

/// A file that is good for nothing any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stale {
    path: PathBuf,
    what: What,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum What {
    /// The file a namespace was to be mounted on.
    Placeholder(NsName),
    /// The record of a namespace, and why it is no longer true.
    Record(NsName, &'static str),
    /// What a namespace was like before us, and why that is no longer true.
    Before(NsName, &'static str),
    /// A record that was never put in its place.
    Torn,
}

/// The `rm` line it equals.
impl fmt::Display for Stale {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rm {}  # ", self.path.display())?;
        match &self.what {
            What::Placeholder(name) => write!(f, "left by a crash: {name} was never mounted on it"),
            What::Record(name, why) => write!(f, "the record of {name}, which {why}"),
            What::Before(name, why) => write!(f, "what {name} was like before, which {why}"),
            What::Torn => f.write_str("left by a crash: half of a record"),
        }
    }
}

/// What is stale in a directory of namespaces and the records of it. A namespace that cannot be looked into is not.
///
/// # Errors
/// The records cannot be read.
pub fn stale(dir: &Path, records: &Records) -> Result<Vec<Stale>, NetnsError> {
    let mut found: Vec<Stale> =
        records.torn()?.into_iter().map(|path| Stale { path, what: What::Torn }).collect();
    let mut names = records.names()?;
    names.sort();
    for name in names {
        let path = dir.join(name.as_str());
        if is_placeholder(&path) {
            found.push(Stale { path, what: What::Placeholder(name.clone()) });
        }
        if let Some(why) = untrue(dir, records, &name) {
            found.push(Stale { path: records.path(&name), what: What::Record(name, why) });
        }
    }
    let mut names = records.befores.names()?;
    names.sort();
    for name in names {
        if let Some(why) = changed(dir, &name, |cookie| records.befores.of(&name, cookie).is_some()) {
            found.push(Stale { path: records.befores.path(&name), what: What::Before(name, why) });
        }
    }
    Ok(found)
}

/// Why the record of a namespace is no longer true; absent where it is.
fn untrue(dir: &Path, records: &Records, name: &NsName) -> Option<&'static str> {
    changed(dir, name, |cookie| records.owns(name, cookie))
}

fn changed(dir: &Path, name: &NsName, is_so: impl FnOnce(Cookie) -> bool) -> Option<&'static str> {
    match identity(dir, name) {
        Ok(identity) if is_so(identity.cookie) => None,
        Ok(_) => Some("is another namespace by now"),
        Err(NetnsError::Missing { .. } | NetnsError::Junk { .. }) => Some("is gone"),
        Err(_) => None,
    }
}

/// Removes it, if it is still stale; what is gone is removed.
///
/// # Errors
/// The kernel refused.
pub fn clear(dir: &Path, records: &Records, Stale { path, what }: &Stale) -> Result<(), NetnsError> {
    // Under the lock of `ip netns add`, which has such files for a moment, too.
    let _lock = lock(dir)?;
    match what {
        What::Placeholder(name) => clear_stale(path, records, name),
        What::Record(name, _) if untrue(dir, records, name).is_some() => records.remove(name),
        What::Record(..) => Ok(()),
        What::Before(name, _) => {
            match changed(dir, name, |cookie| records.befores.of(name, cookie).is_some()) {
                Some(_) => records.befores.remove(name),
                None => Ok(()),
            }
        }
        What::Torn => match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed_io("unlink", path)(error)),
            _ => Ok(()),
        },
    }
}
