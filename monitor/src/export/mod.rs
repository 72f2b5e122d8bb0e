//! How the outside reads: HTTP, and nothing that changes anything.
//!
//! Deliberately absent: any handle to a map, a namespace or netlink. What is served comes from two closures of
//! [`App`], so that tests need no kernel.

pub mod http;
mod pages;
mod requests;
mod seats;
mod stream;

pub use self::{
    http::{App, Limits, Metrics, Ready, serve},
    requests::Requests,
};
