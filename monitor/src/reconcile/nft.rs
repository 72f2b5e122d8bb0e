//! Tables of ours in nftables. Which there are is asked of the kernel; what they say, and every change, goes by `nft`,
//! whose own syntax a plan shows.
//!
//! Each table has an empty set whose name holds two fingerprints: of the script it was made from, and of what `nft` listed
//! when it was made. So a change by somebody else is seen, and the kernel alone remembers.

mod names;

use std::{
    collections::BTreeMap,
    env,
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context as _, bail};
use nftables::helper::{DEFAULT_NFT, get_current_ruleset_raw};
use serde_json::Value;

pub(super) use self::names::names;
use crate::topology::{
    names::stable_hash,
    outside::{Family, ObservedTable, Script, TableId, TableState},
    step::{Update, transaction},
};

/// Not `netns-monitor` alone: two run directories are two owners.
const DEFAULT_RUN_DIR: &str = "/run/netns-monitor";

/// What the name of the set with the fingerprints begins with.
const STAMP: &str = "stamp-";

/// The name of our tables.
pub(super) fn table_name(run_dir: &Path) -> String {
    match run_dir == Path::new(DEFAULT_RUN_DIR) {
        true => "netns-monitor".to_owned(),
        false => format!("netns-monitor-{:08x}", stable_hash(&run_dir.to_string_lossy()) >> 32),
    }
}

/// Whether there is a program `nft`; why not, where there is none.
pub(super) fn missing() -> Option<String> {
    let path = env::var_os("PATH").unwrap_or_default();
    let found = env::split_paths(&path).any(|folder| folder.join("nft").is_file());
    (!found).then(|| "there is no program nft in the PATH: install nftables".to_owned())
}

/// A table of the namespace of the calling thread, as it is.
///
/// # Errors
/// It cannot be listed.
pub(super) fn look(family: Family, name: &str) -> anyhow::Result<ObservedTable> {
    let family = family.to_string();
    let listed = get_current_ruleset_raw(DEFAULT_NFT, ["list", "table", family.as_str(), name])
        .with_context(|| format!("cannot list table {family} {name}"))?;
    let listed: Value = serde_json::from_str(&listed).context("nft listed what is no JSON")?;
    let Some(Value::Array(things)) = listed.get("nftables") else {
        bail!("nft listed no table {family} {name}")
    };
    let named = |kind: &str| -> Vec<&Value> { things.iter().filter_map(|thing| thing.get(kind)).collect() };
    let counters: BTreeMap<String, u64> = named("counter")
        .into_iter()
        .filter_map(|counter| {
            Some((counter.get("name")?.as_str()?.to_owned(), counter.get("packets")?.as_u64()?))
        })
        .collect();
    let stamp = named("set")
        .into_iter()
        .filter_map(|set| set.get("name")?.as_str())
        .find(|name| name.starts_with(STAMP))
        .map(ToOwned::to_owned);
    let (made_from, sealed) = stamp.as_deref().and_then(fingerprints).unwrap_or_default();
    let state = match stamp {
        Some(_) if sealed == 0 => TableState::Unsealed,
        Some(_) if sealed == fingerprint(things) => TableState::Intact,
        _ => TableState::Changed,
    };
    Ok(ObservedTable { made_from, state, stamp, counters })
}

fn fingerprints(stamp: &str) -> Option<(u64, u64)> {
    let (made_from, listed) = stamp.strip_prefix(STAMP)?.split_once('-')?;
    Some((u64::from_str_radix(made_from, 16).ok()?, u64::from_str_radix(listed, 16).ok()?))
}

/// Of everything but numbers that change by themselves, and the stamp.
fn fingerprint(things: &[Value]) -> u64 {
    let is_stamp = |thing: &Value| {
        let name = thing.get("set").and_then(|set| set.get("name")?.as_str());
        name.is_some_and(|name| name.starts_with(STAMP))
    };
    let kept = things.iter().filter(|thing| thing.get("metainfo").is_none() && !is_stamp(thing));
    let mut text: Vec<String> = kept
        .cloned()
        .map(|mut thing| {
            still(&mut thing);
            thing.to_string()
        })
        .collect();
    // The order of rules matters; they stand in it.
    text.sort_by_key(|thing| if thing.starts_with("{\"rule\"") { String::new() } else { thing.clone() });
    stable_hash(&text.join("\n"))
}

fn still(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for name in ["handle", "packets", "bytes"] {
                fields.remove(name);
            }
            fields.values_mut().for_each(still);
        }
        Value::Array(items) => items.iter_mut().for_each(still),
        _ => {}
    }
}

/// Makes a table of the namespace of the calling thread say this, in one transaction; notes what it then looks like in
/// another.
///
/// # Errors
/// What `nft` said.
pub(super) fn set(id: &TableId, name: &str, script: &Script, update: Option<&Update>) -> anyhow::Result<()> {
    let stamp = |listed: u64| format!("{STAMP}{:016x}-{listed:016x}", script.fingerprint());
    run(&transaction(id, name, script, update, &stamp(0)))?;
    let family = id.family.to_string();
    let listed = get_current_ruleset_raw(DEFAULT_NFT, ["list", "table", family.as_str(), name])?;
    let listed: Value = serde_json::from_str(&listed).context("nft listed what is no JSON")?;
    let Some(Value::Array(things)) = listed.get("nftables") else {
        bail!("nft listed no table {family} {name}")
    };
    // Who adds a rule in this moment is not taken for us: the next pass makes it anew.
    let rules: usize = script.chains.iter().map(|(_, _, rules)| rules.len()).sum();
    if things.iter().filter(|thing| thing.get("rule").is_some()).count() != rules {
        return Ok(());
    }
    let (old, new) = (stamp(0), stamp(fingerprint(things)));
    run(&format!("delete set {family} {name} {old}\nadd set {family} {name} {new} {{ type mark; }}\n"))
}

/// Deletes a table; one that is gone is deleted.
///
/// # Errors
/// What `nft` said.
pub(super) fn delete(family: Family, name: &str) -> anyhow::Result<()> {
    run(&format!("table {family} {name}\ndelete table {family} {name}\n"))
}

/// What `nft` prints of the namespace of the calling thread, without numbers that change by themselves.
///
/// # Errors
/// What `nft` said.
pub(super) fn listing(arguments: &[&str]) -> anyhow::Result<String> {
    said_by("nft", arguments)
}

/// What a program prints.
///
/// # Errors
/// It is not there, or what it complained of.
pub(super) fn said_by(program: &str, arguments: &[&str]) -> anyhow::Result<String> {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output();
    let output = output.with_context(|| format!("cannot run {program}"))?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => bail!("{program} {}: {}", arguments.join(" "), said(&output.stderr)),
    }
}

/// Everything nft has in the namespace of the calling thread; absent where it cannot be listed.
pub(super) fn ruleset() -> Option<Value> {
    if missing().is_some() {
        return None;
    }
    let text = get_current_ruleset_raw(DEFAULT_NFT, ["list", "ruleset"]).ok()?;
    serde_json::from_str(&text).ok()
}

/// Not by the library, which leaves what `nft` complains of on the terminal.
fn run(script: &str) -> anyhow::Result<()> {
    let mut nft = Command::new("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot run nft")?;
    let written = match nft.stdin.take() {
        Some(mut stdin) => stdin.write_all(script.as_bytes()),
        None => Ok(()),
    };
    let output = nft.wait_with_output().context("cannot wait for nft")?;
    if !output.status.success() {
        bail!("nft: {}", said(&output.stderr));
    }
    written.context("nft did not read its input")
}

/// The first complaint, in one line.
fn said(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr);
    let mut lines = text.lines().filter(|line| !line.trim_matches([' ', '^', '~', '\t']).is_empty());
    let complaint = lines.next().unwrap_or("it failed and did not say why").trim();
    let complaint = complaint.split_once("Error: ").map_or(complaint, |(_, complaint)| complaint);
    match lines.next() {
        Some(line) => format!("{complaint}: `{}`", line.trim()),
        None => complaint.to_owned(),
    }
}
