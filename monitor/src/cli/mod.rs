//! The command line: one file for each subcommand, the exit codes, and what all subcommands share.

mod agent;
mod apply;
mod check;
mod completions;
mod config;
mod demo;
mod destroy;
mod doctor;
mod exec;
mod flows;
mod gc;
mod graph;
mod holders;
mod ls;
mod man;
mod plan;
mod progress;
mod run;
mod show;
mod switches;
mod table;
mod top;
mod watch;
mod why;

use std::{
    io::{IsTerminal as _, Write as _},
    path::PathBuf,
    process::ExitCode,
};

use clap::{Args, Parser, Subcommand, ValueEnum};
use tracing_subscriber::{EnvFilter, filter::LevelFilter};

use crate::{
    agent::{Failure, engine::Host},
    discover::{
        SOURCES, Source,
        choice::{Choice, Pattern},
    },
    probe::AttachChoice,
    sample::AttachMode,
    topology::figures::Parts,
};

/// What the exit codes mean.
const EXIT_CODES: &str = "0 done; 1 failed; 2 bad usage or file, nothing touched; 3 a privilege or kernel feature is missing. \
     exec and run return what the command returns.";

/// Builds, watches and explains network namespaces.
///
/// Creates namespaces and veth pairs from one file, counts every packet of each namespace with eBPF, and serves the
/// counts to Prometheus.
#[derive(Debug, Parser)]
#[command(
    name = "netns-monitor",
    version,
    after_help = format!("Exit codes: {EXIT_CODES}")
)]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// What every subcommand takes.
#[derive(Clone, Debug, Args)]
pub struct Global {
    /// Where the agent keeps its lock and its records of what it made
    #[arg(long, global = true, value_name = "DIR", default_value = "/run/netns-monitor")]
    run_dir: PathBuf,
    /// The bpffs that keeps maps and links beyond the agent's life
    #[arg(long, global = true, value_name = "DIR", default_value = "/sys/fs/bpf")]
    bpffs: PathBuf,
    /// Where named namespaces are mounted
    #[arg(long, global = true, value_name = "DIR", default_value = "/run/netns")]
    netns_dir: PathBuf,
    /// How the eBPF programs are attached
    #[arg(long, global = true, value_enum, default_value_t = Attach::Auto)]
    attach: Attach,
    /// Where namespaces are looked for: named, mount, process, held
    #[arg(long = "watch.source", global = true, value_name = "SOURCE", value_delimiter = ',', value_parser = source,
          default_value = "named,mount,process,held")]
    sources: Vec<Source>,
    /// Watch only namespaces whose label matches this regular expression as a whole; those that a file names always are
    #[arg(long = "watch.netns.include", global = true, value_name = "REGEX")]
    netns_include: Option<String>,
    /// Watch no namespace whose label matches, unless a file names it: no eBPF program, no series
    #[arg(long = "watch.netns.exclude", global = true, value_name = "REGEX")]
    netns_exclude: Option<String>,
    /// Watch only interfaces whose name matches, and those that a file names
    #[arg(long = "watch.interface.include", global = true, value_name = "REGEX")]
    interface_include: Option<String>,
    /// Watch no interface whose name matches, unless a file names it
    #[arg(long = "watch.interface.exclude", global = true, value_name = "REGEX")]
    interface_exclude: Option<String>,
    /// Count loopback inside each namespace too
    #[arg(long = "watch.lo", global = true)]
    lo: bool,
    /// What they say
    #[arg(skip)]
    choice: Choice,
    /// Sockets of container engines that are asked for names
    #[arg(
        long = "watch.engine-socket",
        global = true,
        value_name = "PATH",
        value_delimiter = ',',
        default_value = "/run/docker.sock,/run/podman/podman.sock"
    )]
    engines: Vec<PathBuf>,
    /// Least severe level that is logged: error, warn, info, debug or trace, also for a part: info,monitor::probe=debug
    #[arg(long = "log.level", global = true, value_name = "LEVEL", default_value = "info")]
    log_level: String,
    /// Form of the log lines
    #[arg(long = "log.format", global = true, value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
}

fn source(name: &str) -> Result<Source, String> {
    let found = SOURCES.iter().find(|(_, known, _)| *known == name).map(|(source, ..)| *source);
    let names: Vec<&str> = SOURCES.iter().map(|(_, name, _)| *name).collect();
    found.ok_or_else(|| format!("there are: {}", names.join(", ")))
}

impl Global {
    fn host(&self) -> Host {
        Host {
            run_dir: self.run_dir.clone(),
            bpffs: self.bpffs.clone(),
            netns_dir: self.netns_dir.clone(),
            attach: match self.attach {
                Attach::Auto => Some(AttachChoice::Auto),
                Attach::Tcx => Some(AttachChoice::Tcx),
                Attach::Clsact => Some(AttachChoice::Clsact),
                Attach::None => None,
            },
            sources: self.sources.clone(),
            engines: self.engines.clone(),
            builds: true,
            talk: None,
            choice: self.choice.clone(),
            max_namespaces: 0,
            drift: true,
            drops: true,
            tcp: true,
            figures: Parts::NONE,
        }
    }

    /// Understands what is to be watched.
    fn choose(&mut self) -> Result<(), String> {
        let Self { netns_include, netns_exclude, interface_include, interface_exclude, lo, .. } = &*self;
        let pattern = |flag, include: &Option<String>, exclude: &Option<String>| {
            Pattern::new(flag, include.as_deref(), exclude.as_deref())
        };
        self.choice = Choice {
            netns: pattern("--watch.netns", netns_include, netns_exclude)?,
            interface: pattern("--watch.interface", interface_include, interface_exclude)?,
            lo: *lo,
        };
        Ok(())
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Keep the host as a file says, count, and serve metrics, until stopped
    Agent(agent::Options),
    /// Print the steps from what is to what FILE says; change nothing
    Plan(plan::Options),
    /// Do those steps
    Apply(apply::Options),
    /// Remove what FILE names and this agent made
    Destroy(destroy::Options),
    /// Remove what this agent made and nobody needs any more: what crashes left, what outlived its namespace
    Gc(gc::Options),
    /// List namespaces with their state and counts
    Ls(ls::Options),
    /// Show one namespace: identity, interfaces, addresses, routes, counts by protocol
    Show(show::Options),
    /// Draw what there is and what leads where: host, bridges, namespaces, pairs, addresses, published ports
    Graph(graph::Options),
    /// Show who a namespace talks with: the heaviest flows first (an agent with --collector.flows counts them)
    Flows(flows::Options),
    /// Watch namespaces on a terminal: traffic, drops, TCP, and what the agent costs
    Top(top::Options),
    /// Say why packets of a namespace are lost: what the kernel dropped, where, and what to look at next
    Why(why::Options),
    /// Run a command inside a namespace, as `ip netns exec` does
    Exec(exec::Options),
    /// Run a command in a new namespace that is wired and counted before it starts and goes when it ends
    Run(run::Options),
    /// Say whether it is wired right: echoes both ways over every wire; where one is lost, why, and what would mend it
    Check(check::Options),
    /// Say who keeps a namespace alive: processes, descriptors, sockets, mounts
    Holders(holders::Options),
    /// Say which privileges, mounts and kernel features are there, and what is lost without them
    Doctor(doctor::Options),
    /// Check a file, print its JSON schema or an example
    Config(config::Options),
    /// Run on a small built-in topology with a little traffic, and show the counts move
    Demo(demo::Options),
    /// Print what a shell needs to complete commands, options and names of namespaces
    Completions(completions::Options),
    /// Write the manual: a page for each command, and one for the file
    Man(man::Options),
}

impl Command {
    /// Whether it draws in place, again and again.
    fn draws(&self) -> bool {
        match self {
            Self::Ls(options) => options.again.draws(),
            Self::Show(options) => options.again.draws(),
            Self::Flows(options) => options.again.draws(),
            Self::Why(options) => options.again.draws(),
            _ => false,
        }
    }
}

/// How the eBPF programs are attached.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Attach {
    /// TCX where the kernel has it, else clsact
    Auto,
    /// TCX links (kernel 6.6 and later) or nothing
    Tcx,
    /// Filters on a clsact qdisc
    Clsact,
    /// Nothing new is counted; what is attached stays
    None,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum LogFormat {
    /// For people
    Text,
    /// One JSON object a line
    Json,
}

/// Parses the command line, runs the subcommand, and reports a failure in one line on standard error.
pub fn main() -> ExitCode {
    let Cli { mut global, command } = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => match switches::unknown(&error) {
            Some(why) => return report(Failure::Usage(why)),
            None => error.exit(),
        },
    };
    if let Err(why) = global.choose() {
        return report(Failure::Usage(why));
    }
    let level = match &command {
        // The demonstration draws on the terminal: only what went wrong may interrupt it.
        Command::Demo(_) if global.log_level == "info" => "warn",
        command if command.draws() && global.log_level == "info" => "error",
        // A line of a log in the middle of a screen: what cannot be read is said there.
        Command::Top(options) if options.draws() => "off",
        _ => &global.log_level,
    };
    if let Err(error) = init_log(level, global.log_format) {
        return report(Failure::Usage(format!("--log.level {level}: {error}")));
    }
    let done = match command {
        Command::Exec(options) => return ended(exec::run(&global, &options)),
        Command::Run(options) => return ended(run::run(&global, &options)),
        Command::Check(options) => return ended(check::run(&global, &options)),
        Command::Agent(options) => agent::run(&global, options),
        Command::Plan(options) => plan::run(&global, &options),
        Command::Apply(options) => apply::run(&global, &options),
        Command::Destroy(options) => destroy::run(&global, &options),
        Command::Gc(options) => gc::run(&global, &options),
        Command::Ls(options) => ls::run(&global, &options),
        Command::Show(options) => show::run(&global, &options),
        Command::Graph(options) => graph::run(&global, &options),
        Command::Flows(options) => flows::run(&global, &options),
        Command::Top(options) => top::run(&global, &options),
        Command::Why(options) => why::run(&global, &options),
        Command::Holders(options) => holders::run(&global, &options),
        Command::Doctor(options) => doctor::run(&global, &options),
        Command::Config(options) => config::run(&options),
        Command::Demo(options) => demo::run(&global, &options),
        Command::Completions(options) => completions::run(&options),
        Command::Man(options) => man::run(&options),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => report(failure),
    }
}

/// For who returns what a command returned.
fn ended(code: Result<ExitCode, Failure>) -> ExitCode {
    code.unwrap_or_else(report)
}

fn report(failure: Failure) -> ExitCode {
    eprintln!("netns-monitor: {failure}");
    ExitCode::from(failure.exit_code())
}

fn init_log(level: &str, format: LogFormat) -> Result<(), String> {
    // A word alone would be taken for a part of the program, and nothing would be logged.
    let is_level = |word: &str| word.contains(['=', '[']) || word.parse::<LevelFilter>().is_ok();
    if let Some(word) = level.split(',').find(|word| !is_level(word)) {
        return Err(format!(
            "{word:?} is no level; there are error, warn, info, debug, trace, and PART=LEVEL"
        ));
    }
    // What the libraries tell of loading programs fills pages; who wants it names them: debug,aya_obj=debug.
    let filter = EnvFilter::try_new(format!("aya=info,aya_obj=info,netlink_proto=info,{level}"))
        .map_err(|error| error.to_string())?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let colour =
        std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    match format {
        LogFormat::Text => builder.with_target(false).with_ansi(colour).try_init(),
        LogFormat::Json => builder.json().try_init(),
    }
    .map_err(|error| error.to_string())
}

/// Prints to standard output; a reader that went away (`netns-monitor ls | head`) is no error.
fn print(text: &str) -> Result<(), Failure> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::Failed(anyhow::anyhow!("cannot write to standard output: {error}")))
        }
        _ => Ok(()),
    }
}

fn mode_name(mode: Option<AttachMode>) -> &'static str {
    match mode {
        Some(AttachMode::Tcx) => "tcx",
        Some(AttachMode::Clsact) => "clsact",
        None => "-",
    }
}
