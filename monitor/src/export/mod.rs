//! How the outside reads: HTTP, and nothing that changes anything.
//!
//! Deliberately absent: any handle to a map, a namespace or netlink. What is served comes from the closures of
//! [`App`], so that tests need no kernel.

mod api;
pub mod http;
mod page;
mod pages;
mod requests;
mod seats;
mod snapshot;
mod stream;

pub use self::{
    http::{App, Limits, Metrics, Ready, serve},
    requests::Requests,
    snapshot::{Hold, Holder, Holders, Read, Snapshot},
};
