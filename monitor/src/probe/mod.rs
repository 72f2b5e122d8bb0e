//! (being built)
pub mod object;
