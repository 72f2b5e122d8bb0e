//! `netns-monitor exec NS -- CMD`.

use std::{
    ffi::{CString, OsString},
    io,
    process::{Command, ExitCode},
};

use anyhow::Context as _;
use clap::Args;
use nix::unistd::{Uid, User, initgroups, setgid, setuid};
use tracing::warn;

use super::Global;
use crate::{agent::Failure, netns, topology::names::NsName};

/// As a shell has it: there is no such program.
const NOT_FOUND: u8 = 127;
/// As a shell has it: the program may not be run.
const NOT_RUN: u8 = 126;

/// Options of `exec`.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// Name of the namespace
    netns: String,
    /// Run as this user: a name or a number of the host
    #[arg(long, value_name = "USER")]
    user: Option<String>,
    /// The command and its arguments, after `--`
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<OsString>,
}

/// Returns only when the command could not be run.
pub(super) fn run(global: &Global, Options { netns, user, command }: &Options) -> Result<ExitCode, Failure> {
    let name: NsName = netns.parse().map_err(|error| Failure::Usage(format!("{error}")))?;
    let user = user.as_deref().map(find).transpose()?;
    let host = global.host();
    let not_bound =
        netns::enter(&host.netns_dir, &name).map_err(|error| match nix::unistd::geteuid().is_root() {
            true => Failure::Failed(error.into()),
            false => Failure::Missing(format!("{error}; entering a namespace takes root")),
        })?;
    not_bound.iter().for_each(|why| warn!("{why}"));
    let mut program = program(command);
    if let Some(user) = &user {
        become_user(user)?;
        program
            .env("HOME", &user.dir)
            .env("USER", &user.name)
            .env("LOGNAME", &user.name)
            .env("SHELL", &user.shell);
    }
    let error = netns::become_program(&mut program);
    Ok(could_not(&program, &error))
}

/// The command that was asked for.
pub(super) fn program(command: &[OsString]) -> Command {
    let mut words = command.iter();
    let mut program = Command::new(words.next().map(OsString::as_os_str).unwrap_or_default());
    program.args(words);
    program
}

/// Says why a command was not run, and what a shell would return then.
pub(super) fn could_not(program: &Command, error: &io::Error) -> ExitCode {
    let name = program.get_program().display();
    eprintln!("netns-monitor: cannot run {name}: {error}");
    ExitCode::from(if error.kind() == io::ErrorKind::NotFound { NOT_FOUND } else { NOT_RUN })
}

fn find(user: &str) -> Result<User, Failure> {
    let found = match user.parse::<u32>() {
        Ok(number) => User::from_uid(Uid::from_raw(number)),
        Err(_) => User::from_name(user),
    };
    let found = found.with_context(|| format!("cannot look up user {}", user.escape_debug()))?;
    found.ok_or_else(|| {
        Failure::Usage(format!("--user: there is no user `{}` on this host", user.escape_debug()))
    })
}

/// All of its groups first: without privileges they could not be changed any more.
fn become_user(user: &User) -> anyhow::Result<()> {
    let name = CString::new(user.name.as_str())?;
    initgroups(&name, user.gid)
        .and_then(|()| setgid(user.gid))
        .and_then(|()| setuid(user.uid))
        .with_context(|| format!("cannot become user {}", user.name))
}
