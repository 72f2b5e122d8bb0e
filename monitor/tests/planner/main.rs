//! The planner and its interpreter, on a model of the kernel: nothing here needs privileges.

mod model;
mod plan;
mod rollback;
