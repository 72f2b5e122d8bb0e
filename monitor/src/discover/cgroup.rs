//! What a process belongs to, from its control groups: a container, a pod, a unit of systemd. Pure.

/// A container, as its engine numbers it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Container {
    /// `docker`, `podman`, `containerd`, `cri-o`, `lxc`, `nspawn`; `container` where that cannot be told.
    pub runtime: &'static str,
    /// Its number (64 hexadecimal digits), or its name where the engine has only names.
    pub id: String,
}

/// What a process belongs to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Group {
    /// Its container.
    pub container: Option<Container>,
    /// The Kubernetes pod of that, by its uid.
    pub pod: Option<String>,
    /// The unit of systemd, outside of containers.
    pub unit: Option<String>,
}

/// Prefixes of the scopes that engines make, with their runtime.
const SCOPES: [(&str, &str); 4] =
    [("docker-", "docker"), ("cri-containerd-", "containerd"), ("crio-", "cri-o"), ("libpod-", "podman")];

impl Container {
    /// As much of the number as engines show.
    pub fn short(&self) -> &str {
        match is_number(&self.id) {
            true => &self.id[..12],
            false => &self.id,
        }
    }
}

/// From the text of `/proc/PID/cgroup` (cgroups(7)): hierarchies of version 1 agree, and the path of version 2 counts most.
pub fn group(text: &str) -> Group {
    let paths = text.lines().filter_map(|line| {
        let mut fields = line.splitn(3, ':');
        let (number, _controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
        (path != "/").then_some((number != "0", path))
    });
    let mut paths: Vec<_> = paths.collect();
    paths.sort_by_key(|(old, _)| *old);
    let groups: Vec<Group> = paths.iter().map(|(_, path)| of_path(path)).collect();
    let best = groups.iter().find(|group| group.container.is_some());
    best.or_else(|| groups.iter().find(|group| group.unit.is_some())).cloned().unwrap_or_default()
}

fn of_path(path: &str) -> Group {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let container = (0..parts.len()).rev().find_map(|at| container(&parts[..=at]));
    let pod = container.as_ref().and_then(|_| parts.iter().rev().find_map(|part| pod(part)));
    let unit = parts.iter().rev().find(|part| is_unit(part)).map(|part| (*part).to_owned());
    match container {
        Some(_) => Group { container, pod, unit: None },
        None => Group { container: None, pod: None, unit },
    }
}

/// The container that the last of these parts is.
fn container(parts: &[&str]) -> Option<Container> {
    let (last, above) = parts.split_last()?;
    let made = |runtime, id: &str| Some(Container { runtime, id: id.to_owned() });
    let name = last.strip_suffix(".scope").unwrap_or(last);
    for (prefix, runtime) in SCOPES {
        if let Some(id) = name.strip_prefix(prefix).filter(|id| is_number(id)) {
            return made(runtime, id);
        }
    }
    if let Some(id) = name.strip_prefix("lxc.payload.") {
        return made("lxc", id);
    }
    if let (Some(id), Some(&"machine.slice")) = (name.strip_prefix("machine-"), above.last()) {
        return made("nspawn", &id.replace("\\x2d", "-"));
    }
    match above.last() {
        Some(&"docker") if is_number(last) => made("docker", last),
        Some(&("lxc" | "lxc.payload")) => made("lxc", last),
        _ if is_number(last) => {
            // Engines without systemd put the number below a folder that says little of them.
            let of_pod = above.iter().any(|part| part.starts_with("kubepods"));
            made(if of_pod { "containerd" } else { "container" }, last)
        }
        _ => None,
    }
}

/// The uid of `pod<uid>` or `kubepods-burstable-pod<uid>.slice`, where systemd wants `_` for `-`.
fn pod(part: &str) -> Option<String> {
    let name = part.strip_suffix(".slice").unwrap_or(part);
    let (_, uid) = name.rsplit_once("pod").filter(|(before, _)| {
        before.is_empty() || (before.starts_with("kubepods") && before.ends_with('-'))
    })?;
    let uid = uid.replace('_', "-");
    let plausible = uid.len() >= 32 && uid.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
    plausible.then_some(uid)
}

/// A service, or a scope that is somebody's own; not that of a login.
fn is_unit(part: &str) -> bool {
    let service = part.ends_with(".service") && !part.starts_with("user@");
    let scope = part.ends_with(".scope") && !part.starts_with("session-") && part != "init.scope";
    service || scope
}

fn is_number(id: &str) -> bool {
    id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    fn of(path: &str) -> Group {
        group(&format!("0::{}\n", path.replace("ID", ID)))
    }

    #[test]
    fn each_engine_is_known_by_its_path() {
        for (path, runtime, id) in [
            ("/docker/ID", "docker", ID),
            ("/docker/ID/init", "docker", ID),
            ("/system.slice/docker-ID.scope", "docker", ID),
            ("/machine.slice/libpod-ID.scope/container", "podman", ID),
            ("/libpod_parent/libpod-ID", "podman", ID),
            ("/kubepods/burstable/pod01234567-89ab-cdef-0123-456789abcdef/ID", "containerd", ID),
            (
                "/kubepods.slice/kubepods-pod01234567_89ab_cdef_0123_456789abcdef.slice/cri-containerd-ID.scope",
                "containerd",
                ID,
            ),
            ("/kubepods.slice/crio-ID.scope", "cri-o", ID),
            ("/lxc/web", "lxc", "web"),
            ("/lxc.payload.web", "lxc", "web"),
            ("/machine.slice/machine-web\\x2d1.scope", "nspawn", "web-1"),
            ("/somewhere/ID", "container", ID),
        ] {
            let container = of(path).container.unwrap_or_else(|| panic!("{path}"));
            assert_eq!((container.runtime, container.id.as_str()), (runtime, id), "{path}");
        }
    }

    #[test]
    fn a_pod_is_known_by_its_uid_however_it_is_written() {
        let uid = Some("01234567-89ab-cdef-0123-456789abcdef".to_owned());
        assert_eq!(of("/kubepods/pod01234567-89ab-cdef-0123-456789abcdef/ID").pod, uid);
        let slice = "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod01234567_89ab_cdef_0123_456789abcdef.slice/crio-ID.scope";
        assert_eq!(of(slice).pod, uid);
        assert_eq!(of("/tripods/ID").pod, None);
    }

    #[test]
    fn a_unit_is_one_only_outside_of_containers_and_a_login_is_none() {
        assert_eq!(of("/system.slice/vpn.service").unit, Some("vpn.service".to_owned()));
        assert_eq!(of("/system.slice/docker-ID.scope").unit, None);
        assert_eq!(of("/user.slice/user-0.slice/session-1.scope"), Group::default());
        assert_eq!(of("/init.scope"), Group::default());
    }

    #[test]
    fn version_1_is_read_where_version_2_says_nothing() {
        let text = format!("12:pids:/docker/{ID}\n3:cpu,cpuacct:/docker/{ID}\n0::/\n");
        assert_eq!(group(&text).container.map(|container| container.runtime), Some("docker"));
        assert_eq!(group(""), Group::default());
    }
}
