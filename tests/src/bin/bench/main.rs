//! The benchmarks that `cargo xtask bench` runs.

mod bare;
mod datapath;
mod discover;
mod fleet;
mod page;
mod traced;
mod wiring;

use std::process::ExitCode;

use anyhow::{Result, bail};

fn main() -> Result<ExitCode> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match *arguments {
        ["datapath"] => datapath::datapath(9),
        ["datapath", "--rounds", rounds] => datapath::datapath(rounds.parse()?),
        ["traced"] => traced::traced(),
        ["wiring"] => wiring::wiring(1000),
        ["wiring", "--namespaces", namespaces] => wiring::wiring(namespaces.parse()?),
        ["discover"] => discover::discover(1000),
        ["discover", "--namespaces", namespaces] => discover::discover(namespaces.parse()?),
        ["fleet"] => fleet::fleet(180),
        ["fleet", "--seconds", seconds] => fleet::fleet(seconds.parse()?),
        ["page"] => page::page(1000),
        ["page", "--namespaces", namespaces] => page::page(namespaces.parse()?),
        _ => {
            bail!(
                "usage: bench datapath [--rounds N] | traced | wiring [--namespaces N] | discover [--namespaces N] | fleet [--seconds N] | page [--namespaces N]"
            )
        }
    }
}
