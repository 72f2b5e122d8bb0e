//! Requests answered, by handler and status code.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

/// Counts requests. Handlers are the paths served and `other`, so that no client can add a label value.
#[derive(Debug)]
pub struct Requests(Mutex<BTreeMap<(&'static str, u16), u64>>);

impl Requests {
    /// The counts as of now, for [`AgentSample::http_requests`](crate::sample::AgentSample::http_requests).
    pub fn counts(&self) -> BTreeMap<(&'static str, u16), u64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn count(&self, handler: &'static str, code: u16) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner).entry((handler, code)).or_default() += 1;
    }
}

impl Default for Requests {
    /// The usual ones start at 0, so that their first is seen as a rise.
    fn default() -> Self {
        let usual = [
            ("/", 200),
            ("/-/healthy", 200),
            ("/-/ready", 200),
            ("/-/ready", 503),
            ("/metrics", 200),
            ("/metrics", 500),
            ("/metrics", 503),
        ];
        Self(Mutex::new(usual.map(|key| (key, 0)).into()))
    }
}
