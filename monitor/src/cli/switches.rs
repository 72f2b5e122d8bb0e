//! A switch for each collector, as node_exporter has them.

use clap::{
    Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches,
    error::{ContextKind, ContextValue, ErrorKind},
};

use crate::metrics::{COLLECTORS, Collectors, OPT_IN};

/// Collectors that are on.
#[derive(Debug)]
pub(super) struct Switches(pub(super) Collectors);

const NONE: &str = "collector.disable-defaults";

fn on(name: &str) -> String {
    format!("collector.{name}")
}

fn off(name: &str) -> String {
    format!("no-collector.{name}")
}

impl Args for Switches {
    fn augment_args(command: Command) -> Command {
        let flag = |id: String, other: String, help: String| {
            let arg = Arg::new(id.clone()).long(id).overrides_with(other).help(help);
            arg.action(ArgAction::SetTrue).help_heading("Collectors")
        };
        let each = COLLECTORS.iter().flat_map(|collector| {
            let (on, off) = (on(collector.name), off(collector.name));
            let help = match OPT_IN.contains(&collector.name) {
                true => format!("{} [off: costs for each packet]", collector.help),
                false => format!("{} [on unless --{off}]", collector.help),
            };
            [flag(on.clone(), off.clone(), help), flag(off, on, String::new()).hide(true)]
        });
        let none = "Switch every collector off that is not switched on by its name".to_owned();
        command.args(each).arg(flag(NONE.to_owned(), NONE.to_owned(), none))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Switches {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let default = |name: &str| !matches.get_flag(NONE) && !OPT_IN.contains(&name);
        let is_on = |name: &str| match (matches.get_flag(&on(name)), matches.get_flag(&off(name))) {
            (false, false) => default(name),
            (on, _) => on,
        };
        Ok(Self(Collectors::new(is_on)))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// What to say of an option that would be a collector's, were there one of that name.
pub(super) fn unknown(error: &clap::Error) -> Option<String> {
    let (ErrorKind::UnknownArgument, Some(ContextValue::String(option))) =
        (error.kind(), error.get(ContextKind::InvalidArg))
    else {
        return None;
    };
    let is_switch = ["--collector.", "--no-collector."].iter().any(|prefix| option.starts_with(prefix));
    let names = COLLECTORS.iter().map(|collector| collector.name);
    // No metrics: that is what `netns-monitor flows` shows.
    let names: Vec<&str> = names.chain(["flows"]).collect();
    is_switch.then(|| format!("{option}: no such collector; there are: {}", names.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Result<Collectors, String> {
        let command = Switches::augment_args(Command::new("agent").no_binary_name(true));
        let matches =
            command.try_get_matches_from(args).map_err(|error| unknown(&error).unwrap_or_default())?;
        Switches::from_arg_matches(&matches).map(|Switches(on)| on).map_err(|error| error.to_string())
    }

    #[test]
    fn switches_add_to_the_defaults_or_to_nothing_and_the_last_word_counts() {
        let but = |names: &[&str]| Collectors::new(|name| !names.contains(&name) && !OPT_IN.contains(&name));
        assert_eq!(parse(&[]), Ok(Collectors::defaults()));
        assert_eq!(parse(&["--collector.dns"]), Ok(Collectors::all()));
        assert_eq!(parse(&["--no-collector.drops", "--no-collector.tcp"]), Ok(but(&["drops", "tcp"])));
        let only = Collectors::new(|name| name == "tcp");
        assert_eq!(parse(&["--collector.disable-defaults", "--collector.tcp"]), Ok(only));
        assert_eq!(parse(&["--no-collector.tcp", "--collector.tcp"]), Ok(Collectors::defaults()));
        assert_eq!(parse(&["--collector.tcp", "--no-collector.tcp"]), Ok(but(&["tcp"])));
    }

    #[test]
    fn an_unknown_one_is_told_with_those_there_are() {
        let said = parse(&["--no-collector.dropps"]).expect_err("refused");
        assert!(said.starts_with("--no-collector.dropps: no such collector; there are: traffic, "), "{said}");
        assert_eq!(parse(&["--colour"]), Err(String::new()), "that is not ours to explain");
    }
}
