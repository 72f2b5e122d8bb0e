//! The benchmarks that `cargo xtask bench` runs.

mod bare;
mod datapath;
mod discover;
mod page;
mod wiring;

use std::process::ExitCode;

use anyhow::{Result, bail};

fn main() -> Result<ExitCode> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match *arguments {
        ["datapath"] => datapath::datapath(9),
        ["datapath", "--rounds", rounds] => datapath::datapath(rounds.parse()?),
        ["wiring"] => wiring::wiring(1000),
        ["wiring", "--namespaces", namespaces] => wiring::wiring(namespaces.parse()?),
        ["discover"] => discover::discover(1000),
        ["discover", "--namespaces", namespaces] => discover::discover(namespaces.parse()?),
        ["page"] => page::page(1000),
        ["page", "--namespaces", namespaces] => page::page(namespaces.parse()?),
        _ => bail!(
            "usage: bench datapath [--rounds N] | wiring [--namespaces N] | discover [--namespaces N] | page [--namespaces N]"
        ),
    }
}
