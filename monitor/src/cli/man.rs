//! `netns-monitor man DIR`: the manual, from the same definitions as the help and the schema of the file.

mod examples;
mod file;

use std::{fs, io, path::PathBuf};

use clap::{Args, Command, CommandFactory as _};
use clap_mangen::{
    Man,
    roff::{Roff, bold, roman},
};

use super::{Cli, EXIT_CODES, print};
use crate::agent::Failure;

const NAME: &str = "netns-monitor";
const SOURCE: &str = concat!("netns-monitor ", env!("CARGO_PKG_VERSION"));
const MANUAL: &str = "netns-monitor manual";
/// None, so that the same version writes the same pages; quoted, as an empty word would be taken for none.
const DATE: &str = "\"\"";

/// Options of `man`.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// Folder to write the pages into; it is made where it is missing
    dir: PathBuf,
}

/// A page of the manual.
struct Page {
    /// Name of its file.
    file: String,
    text: Vec<u8>,
}

pub(super) fn run(Options { dir }: &Options) -> Result<(), Failure> {
    let written = pages().and_then(|pages| {
        fs::create_dir_all(dir)?;
        pages.iter().try_for_each(|page| fs::write(dir.join(&page.file), &page.text))?;
        Ok(pages.len())
    });
    let written =
        written.map_err(|error| anyhow::anyhow!("cannot write the manual to {}: {error}", dir.display()))?;
    print(&format!("{written} pages written to {}\n", dir.display()))
}

/// The whole manual.
fn pages() -> io::Result<Vec<Page>> {
    let mut command = Cli::command().disable_help_subcommand(true);
    command.build();
    let mut pages = vec![file::page()?];
    collect(&command, &mut pages)?;
    Ok(pages)
}

fn collect(command: &Command, pages: &mut Vec<Page>) -> io::Result<()> {
    pages.push(page(command)?);
    let subcommands = command.get_subcommands().filter(|sub| !sub.is_hide_set());
    subcommands.into_iter().try_for_each(|sub| collect(sub, pages))
}

fn page(command: &Command) -> io::Result<Page> {
    let is_root = command.get_name() == NAME;
    let name = command.get_display_name().unwrap_or(NAME).to_owned();
    // What every command takes is told once.
    let shown = match is_root {
        true => command.clone(),
        false => command.clone().mut_args(|arg| match arg.is_global_set() {
            true => arg.hide(true),
            false => arg,
        }),
    };
    let usage = command.clone().render_usage().to_string();
    let man = Man::new(shown).title(name.to_uppercase()).date(DATE).source(SOURCE).manual(MANUAL);
    let mut text = Vec::new();
    man.render_title(&mut text)?;
    man.render_name_section(&mut text)?;
    // As the help has it: every option by its name is no summary.
    let mut synopsis = Roff::new();
    synopsis.control("SH", ["SYNOPSIS"]);
    for (at, line) in usage.trim_start_matches("Usage:").lines().enumerate() {
        if at > 0 {
            synopsis.control("br", []);
        }
        synopsis.text([roman(line.trim())]);
    }
    synopsis.to_writer(&mut text)?;
    man.render_description_section(&mut text)?;
    man.render_options_section(&mut text)?;
    if command.has_subcommands() {
        man.render_subcommands_section(&mut text)?;
    }
    let mut roff = Roff::new();
    let examples = examples::of(&name);
    if !examples.is_empty() {
        roff.control("SH", ["EXAMPLES"]);
        for (what, line) in examples {
            roff.control("TP", []).text([bold(*line)]).text([roman(*what)]);
        }
    }
    if is_root {
        roff.control("SH", ["FILES"]);
        for (path, what) in FILES {
            roff.control("TP", []).text([bold(*path)]).text([roman(*what)]);
        }
        roff.control("SH", ["ENVIRONMENT"]);
        for (name, what) in ENVIRONMENT {
            roff.control("TP", []).text([bold(*name)]).text([roman(*what)]);
        }
    } else {
        roff.control("SH", ["OTHER OPTIONS"]);
        roff.text([roman("Options that every command takes are in "), bold(NAME), roman("(1).")]);
    }
    roff.control("SH", ["EXIT STATUS"]).text([roman(EXIT_CODES)]);
    roff.control("SH", ["SEE ALSO"]).text(see_also(command, is_root));
    roff.to_writer(&mut text)?;
    Ok(Page { file: format!("{name}.1"), text: once(&text) })
}

/// Each part begins with the definition of the apostrophe; one will do.
fn once(text: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(text);
    let preamble = [".ie \\n(.g .ds Aq \\(aq", ".el .ds Aq '"];
    let lines = text.lines().filter(|line| !preamble.contains(line));
    let body: String = lines.map(|line| format!("{line}\n")).collect();
    format!("{}\n{}\n{body}", preamble[0], preamble[1]).into_bytes()
}

fn see_also(command: &Command, is_root: bool) -> Vec<clap_mangen::roff::Inline> {
    let mut names: Vec<(String, &str)> = Vec::new();
    if !is_root {
        names.push((NAME.to_owned(), "1"));
    }
    let subcommands = command.get_subcommands().filter(|sub| !sub.is_hide_set());
    names.extend(subcommands.filter_map(|sub| Some((sub.get_display_name()?.to_owned(), "1"))));
    names.push((format!("{NAME}.toml"), "5"));
    names.extend([("ip-netns".to_owned(), "8"), ("network_namespaces".to_owned(), "7")]);
    let last = names.len() - 1;
    let each = names.into_iter().enumerate().flat_map(|(at, (name, section))| {
        let end = if at == last { "" } else { ", " };
        [bold(name), roman(format!("({section}){end}"))]
    });
    each.collect()
}

const FILES: &[(&str, &str)] = &[
    ("/run/netns", "Named namespaces, as ip-netns(8) has them (--netns-dir)."),
    ("/run/netns-monitor", "Lock of the agent, and records of what it made (--run-dir)."),
    ("/sys/fs/bpf/netns-monitor", "Programs, maps and counts, which outlive the agent (--bpffs)."),
];

const ENVIRONMENT: &[(&str, &str)] = &[
    ("NO_COLOR", "Set and not empty: no colour."),
    ("CLICOLOR_FORCE", "Set and neither empty nor 0: colour also where the output is no terminal."),
];

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    fn commands(command: &Command, all: &mut Vec<String>) {
        all.push(command.get_display_name().unwrap_or(NAME).to_owned());
        command.get_subcommands().for_each(|sub| commands(sub, all));
    }

    #[test]
    fn every_command_has_a_page_and_an_example_that_it_takes() {
        let mut command = Cli::command().disable_help_subcommand(true);
        command.build();
        let mut names = Vec::new();
        commands(&command, &mut names);
        let files: Vec<String> = pages().expect("pages").into_iter().map(|page| page.file).collect();
        let mut expected: Vec<String> = names.iter().map(|name| format!("{name}.1")).collect();
        expected.insert(0, "netns-monitor.toml.5".to_owned());
        assert_eq!(files, expected);
        for name in &names {
            let examples = examples::of(name);
            assert!(!examples.is_empty(), "{name}");
            for (_, line) in examples {
                let words = line.split('|').next().unwrap_or_default().split_whitespace();
                let words = words.take_while(|word| *word != ">");
                Cli::try_parse_from(words).unwrap_or_else(|error| panic!("{line}: {error}"));
            }
        }
    }

    #[test]
    fn a_page_of_a_command_has_its_own_options_and_not_those_of_all() {
        let pages = pages().expect("pages");
        let text = |file: &str| {
            let page = pages.iter().find(|page| page.file == file).expect(file);
            String::from_utf8(page.text.clone()).expect("text")
        };
        let (root, show) = (text("netns-monitor.1"), text("netns-monitor-show.1"));
        assert!(root.contains("\\-\\-run\\-dir") && !show.contains("\\-\\-run\\-dir"), "{show}");
        assert!(show.contains("\\-\\-json"), "{show}");
        assert_eq!(show.matches(".ie ").count(), 1);
        assert!(show.contains(".SH \"SEE ALSO\"\n\\fBnetns\\-monitor\\fR(1), "), "{show}");
    }
}
