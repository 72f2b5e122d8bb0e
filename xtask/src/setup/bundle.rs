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

pub(super) const BUNDLES: [Bundle; 3] = [
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
        why: "the tests look at the live page",
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
