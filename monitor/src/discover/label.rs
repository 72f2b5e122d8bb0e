//! The label of a namespace: the best of its names, kept for as long as it lives unless a better one comes. Pure.

use super::{Sighting, Source, names::base};
use crate::topology::names::Cookie;

/// How good a name is, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rank {
    /// A file in the first directory of names.
    Main,
    /// A container's name, as its engine tells it.
    Container,
    /// A file in another directory of names.
    Named,
    /// A container's number.
    Number,
    /// A unit of systemd.
    Unit,
    /// A mount elsewhere.
    Mount,
    /// A process's name.
    Process,
    /// Nothing but its cookie.
    Cookie,
}

/// A label with how good it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    /// The text; unique once [`distinct`] has seen it.
    pub text: String,
    /// How good.
    pub rank: Rank,
    /// Whether nothing bears it any more: it is from before.
    pub kept: bool,
}

/// Longest label, in characters.
const LONGEST: usize = 64;

/// The label of a namespace. `name_of` gives a container's name, where its engine told it. What it was called before stays
/// unless something better is there.
pub fn label(
    cookie: Cookie,
    sightings: &[Sighting],
    name_of: &dyn Fn(&str) -> Option<String>,
    before: Option<&Label>,
) -> Label {
    let candidates = sightings.iter().flat_map(|seen| candidates(cookie, seen, name_of));
    let best = candidates.min_by(|a, b| (a.rank, &a.text).cmp(&(b.rank, &b.text)));
    let best =
        best.unwrap_or_else(|| Label { text: format!("netns~{cookie}"), rank: Rank::Cookie, kept: false });
    match before {
        // A file may be given another name; what a process or mount is called is no reason to end a series.
        Some(before) if best.rank > before.rank => Label { kept: true, ..before.clone() },
        Some(before) if best.rank == before.rank && best.rank > Rank::Container => {
            Label { kept: false, ..before.clone() }
        }
        _ => Label { text: fit(&best.text), ..best },
    }
}

fn candidates(cookie: Cookie, seen: &Sighting, name_of: &dyn Fn(&str) -> Option<String>) -> Vec<Label> {
    let label = |rank, text: String| Label { text, rank, kept: false };
    match seen.source {
        Source::Named if is_made_up(&seen.name) => vec![label(Rank::Mount, seen.name.clone())],
        Source::Named if seen.is_main => vec![label(Rank::Main, seen.name.clone())],
        Source::Named => vec![label(Rank::Named, base(&seen.name).to_owned())],
        Source::Mount => vec![label(Rank::Mount, base(&seen.name).to_owned())],
        Source::Process | Source::Held => {
            let mut all = Vec::new();
            if let Some(container) = &seen.group.container {
                all.extend(name_of(&container.id).map(|name| label(Rank::Container, name)));
                all.push(label(Rank::Number, format!("{}-{}", container.runtime, container.short())));
            }
            all.extend(seen.group.unit.clone().map(|unit| label(Rank::Unit, unit)));
            if !seen.name.is_empty() {
                all.push(label(Rank::Process, format!("{}~{cookie}", seen.name)));
            }
            all
        }
    }
}

/// Whether an engine made the name up, and nobody knows it by that: `netns-UUID` of Podman, `cni-UUID` of containerd, UUID of CRI-O.
fn is_made_up(name: &str) -> bool {
    let name = base(name);
    let uuid = name.strip_prefix("netns-").or_else(|| name.strip_prefix("cni-")).unwrap_or(name);
    let parts: Vec<&str> = uuid.split('-').collect();
    let hex = |(part, length): (&&str, usize)| {
        part.len() == length && part.bytes().all(|byte| byte.is_ascii_hexdigit())
    };
    parts.len() == 5 && parts.iter().zip([8, 4, 4, 4, 12]).all(hex)
}

/// Without what no label should have, and not too long.
fn fit(text: &str) -> String {
    let clean = |c: char| if c.is_control() { '_' } else { c };
    let text: String = text.chars().map(clean).take(LONGEST).collect();
    // That is how the sums over namespaces begin.
    match text.strip_prefix('~') {
        Some(rest) => format!("_{rest}"),
        None => text,
    }
}

/// Labels made distinct: of several with one text who still bears it keeps it, then the best, then the oldest; the others get their cookie
/// behind it. In the order of the input.
pub fn distinct(labels: &[(Cookie, Label)]) -> Vec<String> {
    let mut order: Vec<usize> = (0..labels.len()).collect();
    order.sort_by_key(|&at| (labels[at].1.kept, labels[at].1.rank, labels[at].0));
    let mut texts = vec![String::new(); labels.len()];
    let mut taken = std::collections::BTreeSet::new();
    for at in order {
        let (cookie, label) = &labels[at];
        let text = match taken.contains(&label.text) {
            true => format!("{}~{cookie}", label.text),
            false => label.text.clone(),
        };
        taken.insert(text.clone());
        texts[at] = text;
    }
    texts
}

#[cfg(test)]
mod tests {
    use super::{
        super::{Container, Group},
        *,
    };
    use crate::netns::Way;

    fn seen(source: Source, name: &str, is_main: bool) -> Sighting {
        let way = Way::Path("/x".into());
        Sighting { inode: 7, way, source, name: name.to_owned(), is_main, group: Group::default() }
    }

    fn contained(id: &str) -> Sighting {
        let container = Some(Container { runtime: "docker", id: id.repeat(64) });
        Sighting { group: Group { container, ..Group::default() }, ..seen(Source::Process, "nginx", false) }
    }

    fn text(sightings: &[Sighting], named: bool, before: Option<&Label>) -> String {
        let name_of = |_: &str| named.then(|| "web".to_owned());
        label(Cookie(9), sightings, &name_of, before).text
    }

    #[test]
    fn the_best_name_is_the_label() {
        let process = seen(Source::Process, "sleep", false);
        let mount = seen(Source::Mount, "/run/docker/netns/0ab", false);
        let other = seen(Source::Named, "/run/other/cni-7", false);
        let main = seen(Source::Named, "blue", true);
        assert_eq!(text(&[], false, None), "netns~9");
        assert_eq!(text(std::slice::from_ref(&process), false, None), "sleep~9");
        assert_eq!(text(&[process.clone(), mount.clone()], false, None), "0ab");
        assert_eq!(text(&[mount.clone(), contained("a")], false, None), "docker-aaaaaaaaaaaa");
        assert_eq!(text(&[contained("a"), other.clone()], false, None), "cni-7");
        assert_eq!(text(&[contained("a"), other.clone()], true, None), "web");
        assert_eq!(text(&[contained("a"), other, main], true, None), "blue");
        let made_up = seen(Source::Named, "netns-feaacab9-95a6-f1c6-b11b-69af878e3e7c", true);
        assert_eq!(text(&[contained("a"), made_up.clone()], true, None), "web");
        assert_eq!(text(&[contained("a"), made_up.clone()], false, None), "docker-aaaaaaaaaaaa");
        assert_eq!(text(std::slice::from_ref(&made_up), false, None), made_up.name);
        let unit = Group { unit: Some("vpn.service".to_owned()), ..Group::default() };
        assert_eq!(text(&[Sighting { group: unit, ..process }, mount], false, None), "vpn.service");
    }

    #[test]
    fn a_label_stays_until_a_better_one_comes() {
        let main = Label { text: "blue".to_owned(), rank: Rank::Main, kept: false };
        let process = seen(Source::Process, "sleep", false);
        assert_eq!(text(std::slice::from_ref(&process), false, Some(&main)), "blue", "its file was removed");
        let by_process = Label { text: "sh~9".to_owned(), rank: Rank::Process, kept: false };
        assert_eq!(text(std::slice::from_ref(&process), false, Some(&by_process)), "sh~9", "another process");
        assert_eq!(text(&[process, seen(Source::Named, "red", true)], false, Some(&by_process)), "red");
        assert_eq!(text(&[seen(Source::Named, "red", true)], false, Some(&main)), "red", "it was renamed");
    }

    #[test]
    fn hostile_names_are_made_fit() {
        assert_eq!(fit("a\nb\u{7f}"), "a_b_");
        assert_eq!(fit("~host"), "_host");
        assert_eq!(fit(&"x".repeat(500)).len(), LONGEST);
    }

    #[test]
    fn equal_labels_are_told_apart_and_the_best_keeps_its_own() {
        let of = |text: &str, rank| Label { text: text.to_owned(), rank, kept: false };
        let labels = [
            (Cookie(3), of("web", Rank::Container)),
            (Cookie(5), of("web", Rank::Main)),
            (Cookie(4), of("web", Rank::Container)),
            (Cookie(6), of("db", Rank::Mount)),
        ];
        assert_eq!(distinct(&labels), ["web~3", "web", "web~4", "db"]);
        // Its file was removed, and another has the name.
        let lost = Label { kept: true, ..of("blue", Rank::Main) };
        let labels = [(Cookie(3), lost), (Cookie(5), of("blue", Rank::Main))];
        assert_eq!(distinct(&labels), ["blue~3", "blue"]);
    }
}
