//! Namespaces that somebody else made: what the file says about them, and what they were like before us.

use std::collections::BTreeMap;

use super::names::SysctlKey;

/// What becomes of a namespace of a wanted name that was there before us.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Adopt {
    /// It stands in the way.
    Never,
    /// It is wired, and left as it was when the file no longer names it.
    #[default]
    Wire,
    /// It is ours from then on.
    Own,
}

/// What a namespace was like before it was changed, as far as that is put back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Before {
    /// Whether `lo` was up.
    pub lo_up: bool,
    /// Values of sysctls that were changed since.
    pub sysctls: BTreeMap<SysctlKey, String>,
}
