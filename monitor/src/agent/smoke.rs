//! Trying kernel features for real, in a namespace that exists for the attempt only. For `doctor`.

use std::{net::TcpStream, os::unix::net::UnixDatagram, path::Path};

use anyhow::Context as _;

use crate::{
    netns,
    probe::{AttachChoice, Options, Probes, Side, Target},
    reconcile::Kernel,
    sample::AttachMode,
    topology::{
        names::{IfName, LinkId, MacAddr},
        step::{NewEnd, Step},
    },
    trace::{Btf, Drops, Tcp},
};

/// Can a network namespace be made?
///
/// # Errors
/// What the kernel refused.
pub fn namespace() -> anyhow::Result<()> {
    netns::in_new(|| ()).map_err(Into::into)
}

/// Can a bridge be made?
///
/// # Errors
/// What the kernel refused.
pub fn bridge() -> anyhow::Result<()> {
    in_new(|kernel| {
        kernel.perform(&Step::CreateBridge { name: name("nm-doctor")?, mtu: None, mac: None::<MacAddr> })
    })
}

/// Can a veth pair be made?
///
/// # Errors
/// What the kernel refused.
pub fn veth() -> anyhow::Result<()> {
    in_new(make_veth)
}

/// Can the packets of a veth be counted in this mode: are the programs accepted by the verifier and attached at both hooks?
///
/// # Errors
/// What the kernel refused.
pub fn count(mode: AttachMode) -> anyhow::Result<()> {
    in_new(|kernel| {
        make_veth(kernel)?;
        let attach = match mode {
            AttachMode::Tcx => AttachChoice::Tcx,
            AttachMode::Clsact => AttachChoice::Clsact,
        };
        let enter = Box::new(|_: &Target, _: &mut (dyn FnMut() + Send)| Err("not needed here".into()));
        let probes =
            Probes::open(Options { pin_dir: None, attach, log_level: log::LevelFilter::Off, enter })?;
        let ifindex =
            nix::net::if_::if_nametoindex("nm-doctor0").context("the veth just made is not there")?;
        let cookie = netns::own_identity()?.cookie;
        let side = Side::HostEnd { ifindex };
        let target = Target { cookie, netns: "doctor".to_owned(), interface: "nm-doctor1".to_owned(), side };
        Ok(probes.attach(&target)?)
    })
}

/// Can drops be counted: does the kernel tell reasons, and is one that is provoked found in the namespace it happened in?
///
/// # Errors
/// What is missing.
pub fn drops() -> anyhow::Result<()> {
    netns::in_new(|| {
        let netns::Identity { cookie, inode } = netns::own_identity()?;
        let drops = Drops::open(&Btf::running()?, None, (cookie, inode))?;
        // What waits in a socket that is closed is dropped; no packet needs to travel.
        let (sender, receiver) = UnixDatagram::pair()?;
        sender.send(b"lost")?;
        drop(receiver);
        let found = drops.read()?.namespaces.get(&cookie).is_some_and(|drops| !drops.reasons.is_empty());
        anyhow::ensure!(
            found,
            "the program is attached, but a drop was not found in the namespace it happened in"
        );
        Ok(())
    })?
}

/// Can what TCP meets with be counted: is one connection that is refused found in the namespace it was tried in?
///
/// # Errors
/// What is missing.
pub fn tcp() -> anyhow::Result<()> {
    in_new(|kernel| {
        let netns::Identity { cookie, inode } = netns::own_identity()?;
        let tcp = Tcp::open(&Btf::running()?, None, (cookie, inode))?;
        kernel.perform(&Step::SetUp { link: LinkId::host(name("lo")?) })?;
        let refused = TcpStream::connect("127.0.0.1:1").is_err();
        anyhow::ensure!(refused, "somebody listens in a namespace that was just made");
        let counts = tcp.read()?.namespaces.get(&cookie).copied().unwrap_or_default();
        anyhow::ensure!(
            counts.failures.iter().sum::<u64>() == 1,
            "the programs are attached, but a connect that failed was not found in its namespace"
        );
        let missing = tcp.missing().join(", ");
        anyhow::ensure!(missing.is_empty(), "all but what this kernel has no tracepoint for: {missing}");
        Ok(())
    })
}

fn make_veth(kernel: &Kernel) -> anyhow::Result<()> {
    let end =
        |text| anyhow::Ok(NewEnd { link: LinkId::host(name(text)?), mac: None, mtu: None, queues: None });
    kernel.perform(&Step::CreateVeth { a: end("nm-doctor0")?, b: end("nm-doctor1")? })
}

fn name(text: &str) -> anyhow::Result<IfName> {
    Ok(text.parse()?)
}

/// Runs an attempt in a namespace that goes with it, and with it everything made in it.
fn in_new(attempt: impl FnOnce(&Kernel) -> anyhow::Result<()> + Send) -> anyhow::Result<()> {
    // No namespace is named and nothing is recorded: the directories are never opened.
    netns::in_new(|| attempt(&Kernel::new(Path::new("/nonexistent"), Path::new("/nonexistent"))))?
}
