//! What goes wrong, in plain sentences, each with what to look at next. Words only: nothing is read here.

pub mod drops;
pub mod tcp;
