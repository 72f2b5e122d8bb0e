//! Debian's packages that tests use unpacked under `target/tools`, not installed: no service starts, and no program of the host changes.

use std::{fs, path::Path};

/// Packages unpacked into one folder.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Bundle {
    /// The folder's name.
    pub(crate) name: &'static str,
    /// Their names, with those of the libraries that a small Debian lacks.
    pub(crate) packages: &'static [&'static str],
    /// What is in it.
    pub(crate) what: &'static str,
    /// What it is for.
    pub(crate) why: &'static str,
}

pub(super) const BUNDLES: &[Bundle] = &[
    Bundle {
        name: "prometheus",
        packages: &["prometheus"],
        what: "prometheus and promtool",
        why: "the tests scrape with a real one",
    },
    Bundle {
        name: "engines",
        packages: &[
            "docker.io",
            "containerd",
            "runc",
            "tini",
            "podman",
            "conmon",
            "containernetworking-plugins",
            "golang-github-containers-common",
            "golang-github-containers-image",
            "busybox-static",
            "libassuan0",
            "libdevmapper1.02.1",
            "libglib2.0-0",
            "libgpgme11",
            "libseccomp2",
            "libsubid4",
        ],
        what: "Docker, Podman and the CNI plugins",
        why: "the tests run real containers",
    },
    Bundle {
        name: "readers",
        packages: &[
            "graphviz",
            "libgvc6",
            "libcdt5",
            "libcgraph6",
            "libpathplan4",
            "libexpat1",
            "libltdl7",
            "fish",
            "fish-common",
            "libpcre2-32-0",
            "zsh",
            "zsh-common",
            "mandoc",
        ],
        what: "Graphviz, fish, zsh and mandoc",
        why: "the tests have them read what is written for them",
    },
    Bundle {
        name: "alertmanager",
        packages: &["prometheus-alertmanager"],
        what: "the Alertmanager",
        why: "the tests follow an alert of a fleet to its end",
    },
    Bundle {
        name: "kubernetes",
        packages: &["kubernetes-client"],
        what: "kubectl",
        why: "the tests render the manifests",
    },
];

/// The file in a bundle that says which packages are in it, so that one of another list is made anew.
const PACKAGES: &str = "packages";

impl Bundle {
    /// Whether it is whole in that folder of tools.
    pub(super) fn is_in(&self, tools: &Path) -> bool {
        fs::read_to_string(tools.join(self.name).join(PACKAGES)).is_ok_and(|text| text == self.text())
    }

    /// Writes down, in its folder, that it is whole.
    pub(super) fn complete(&self, folder: &Path) -> std::io::Result<()> {
        fs::write(folder.join(PACKAGES), self.text())
    }

    fn text(&self) -> String {
        self.packages.join("\n") + "\n"
    }
}
