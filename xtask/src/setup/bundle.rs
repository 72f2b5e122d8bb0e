//! Debian's packages, and one of Python's, that tests use unpacked under `target/tools`, not installed: no service starts, and no program of the host changes.

use std::{fs, path::Path, process::Command};

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

pub(super) static BUNDLES: &[Bundle] = &[
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
    Bundle {
        name: "chromium",
        packages: &[
            "chromium-headless-shell",
            "chromium-common",
            "at-spi2-common",
            "fontconfig-config",
            "fonts-dejavu-core",
            "libasound2",
            "libasound2-data",
            "libasyncns0",
            "libatk1.0-0",
            "libatspi2.0-0",
            "libbrotli1",
            "libbsd0",
            "libdav1d6",
            "libdbus-1-3",
            "libdouble-conversion3",
            "libdrm2",
            "libexpat1",
            "libffi8",
            "libflac12",
            "libfontconfig1",
            "libfreetype6",
            "libgbm1",
            "libglib2.0-0",
            "libgraphite2-3",
            "libharfbuzz-subset0",
            "libharfbuzz0b",
            "libjpeg62-turbo",
            "liblcms2-2",
            "libminizip1",
            "libmp3lame0",
            "libmpg123-0",
            "libnspr4",
            "libnss3",
            "libogg0",
            "libopenh264-7",
            "libopenjp2-7",
            "libopus0",
            "libpng16-16",
            "libpulse0",
            "libsndfile1",
            "libsqlite3-0",
            "libvorbis0a",
            "libvorbisenc2",
            "libwayland-server0",
            "libx11-6",
            "libx11-xcb1",
            "libxau6",
            "libxcb1",
            "libxcomposite1",
            "libxdamage1",
            "libxdmcp6",
            "libxext6",
            "libxfixes3",
            "libxi6",
            "libxkbcommon0",
            "libxnvctrl0",
            "libxrandr2",
            "libxrender1",
            "xkb-data",
        ],
        what: "Chromium without a window",
        why: "the tests look at the live page, and previews are drawn",
    },
    Bundle {
        name: "grafana",
        packages: &["python3-pip-whl"],
        what: "the types of Grafana's dashboards",
        why: "the tests hold the dashboards against them",
    },
];

/// What pip, unpacked with the bundle itself, puts into the bundle's folder `python`: a package with its version and hash. Only
/// its types are read.
const WHEELS: &[(&str, &str)] = &[(
    "grafana",
    "grafana_foundation_sdk==0.0.21 --hash=sha256:838b8cf35574d6bb2c3173b068e9461df4dc891aecd0f6674fefe244c2eba738",
)];

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

    /// The line for pip, where there is something of Python's in it.
    pub(super) fn wheel(&self) -> Option<&'static str> {
        WHEELS.iter().find(|(name, _)| *name == self.name).map(|(_, wheel)| *wheel)
    }

    /// What is in it, a line each.
    pub(super) fn lines(&self) -> impl Iterator<Item = &'static str> {
        self.packages.iter().copied().chain(self.wheel())
    }

    fn text(&self) -> String {
        self.lines().map(|line| format!("{line}\n")).collect()
    }
}

/// The command that puts a line of [`WHEELS`], as a file of requirements, below a folder.
pub(super) fn pip(folder: &Path, requirements: &Path) -> std::io::Result<Command> {
    let wheels = fs::read_dir(folder.join("usr/share/python-wheels"))?.flatten().map(|entry| entry.path());
    let is_pip =
        |path: &Path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("pip-"));
    let pip =
        wheels.into_iter().find(|path| is_pip(path)).ok_or_else(|| std::io::Error::other("no pip in it"))?;
    let mut command = Command::new("python3");
    command.arg(pip.join("pip")).args(["install", "--quiet", "--no-deps", "--disable-pip-version-check"]);
    command.args(["--no-compile", "--root-user-action", "ignore", "--require-hashes", "--target"]);
    command.arg(folder.join("python")).arg("--requirement").arg(requirements);
    Ok(command)
}
