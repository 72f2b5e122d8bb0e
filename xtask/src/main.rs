//! `cargo xtask`: the project's chores, one file per verb.
//!
//! Depends on nothing but `anyhow`, so that it compiles in seconds on a new machine; deliberately absent is everything
//! that cargo does by itself (`cargo build` needs no verb of ours).

mod bench;
mod dashboards;
mod package;
mod previews;
mod run;
mod setup;
mod test;
mod tidy;
mod tools;

use std::{env, process::ExitCode};

use anyhow::Result;

use tools::Place;

/// What can be asked for.
struct Verb {
    name: &'static str,
    usage: &'static str,
    about: &'static str,
    run: fn(&Place, &[String]) -> Result<ExitCode>,
}

const VERBS: &[Verb] = &[
    Verb {
        name: "setup",
        usage: "setup",
        about: "find the tools that building and testing need, install only what is missing",
        run: setup::verb,
    },
    Verb {
        name: "run",
        usage: "run [-- ARGS]",
        about: "set up, build, and run the demonstration (or `netns-monitor ARGS`)",
        run: run::verb,
    },
    Verb {
        name: "test",
        usage: "test [--fast] [FILTER]",
        about: "set up, then formatting, lints, tidy and every test (--fast: those that need no root)",
        run: test::verb,
    },
    Verb { name: "tidy", usage: "tidy", about: "check the rules that no compiler checks", run: tidy::verb },
    Verb {
        name: "dashboards",
        usage: "dashboards",
        about: "write the Grafana dashboards from their definition",
        run: dashboards::verb,
    },
    Verb {
        name: "previews",
        usage: "previews",
        about: "draw the dashboards without Grafana, from a real Prometheus",
        run: previews::verb,
    },
    Verb {
        name: "bench",
        usage: "bench [NAME [ARGS]]",
        about: "run a benchmark; without a name, list them",
        run: bench::verb,
    },
    Verb {
        name: "package",
        usage: "package [--oci FILE | --rootfs DIR]",
        about: "make a Debian package (or an image) of the release build (--binary FILE: of that one)",
        run: package::verb,
    },
];

fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    let Some((name, rest)) = args.split_first() else {
        print!("{}", usage());
        return ExitCode::SUCCESS;
    };
    if ["-h", "--help", "help"].contains(&name.as_str()) {
        print!("{}", usage());
        return ExitCode::SUCCESS;
    }
    let Some(verb) = VERBS.iter().find(|verb| verb.name == name) else {
        return misused(&format!("no verb {name:?}"));
    };
    if matches!(rest.first().map(String::as_str), Some("-h" | "--help")) {
        println!("cargo xtask {}: {}", verb.usage, verb.about);
        return ExitCode::SUCCESS;
    }
    (verb.run)(&Place::new(), rest).unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

fn usage() -> String {
    let width = VERBS.iter().map(|verb| verb.usage.len()).max().unwrap_or_default();
    VERBS.iter().map(|verb| format!("cargo xtask {:width$}  {}\n", verb.usage, verb.about)).collect()
}

/// Bad usage: says what is wrong and what would be right. Exit code 2.
fn misused(what: &str) -> ExitCode {
    eprint!("error: {what}\n\n{}", usage());
    ExitCode::from(2)
}

/// A privilege is missing. Exit code 3.
fn unprivileged(what: &str) -> ExitCode {
    eprintln!("error: {what}");
    ExitCode::from(3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usage_has_one_line_for_each_verb() {
        assert_eq!(usage().lines().count(), VERBS.len());
        for (line, verb) in usage().lines().zip(VERBS) {
            assert!(line.starts_with(&format!("cargo xtask {}", verb.name)), "{line}");
        }
    }
}
