//! The root file system of a container, and an image of it that Podman and Docker load.
//!
//! The program, the C library's parts that it asks for, their licences, and folders to mount on: no shell, no package manager. `nft`
//! is not in it, which only NAT, published ports and firewalls of a file need; a container watches.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use super::{Made, NAME, date, deb::own, gzip, output, tree::Tree};
use crate::tools::{Place, ask};

/// What the host's folders are mounted on.
const MOUNT_POINTS: [&str; 6] = ["dev", "proc", "run/netns", "run/netns-monitor", "sys", "tmp"];

/// Fills a folder that is new or empty.
///
/// # Errors
/// A library is not found, or the folder has other files.
pub(super) fn rootfs(place: &Place, made: &Made, folder: &Path) -> Result<()> {
    let tree = Tree::new(folder)?;
    tree.copy(&made.stripped()?, NAME, 0o755)?;
    let said = ask("ldd", [&made.binary]).with_context(|| format!("ldd {}", made.binary.display()))?;
    for library in libraries(&said)? {
        let path = library.to_str().context("a path")?.trim_start_matches('/');
        tree.copy(&library, path, 0o755)?;
    }
    for point in MOUNT_POINTS {
        tree.folder(point)?;
    }
    tree.copy(&own(place).join("copyright"), "usr/share/doc/netns-monitor/copyright", 0o644)?;
    for package in ["libc6", "libgcc-s1"] {
        // Elsewhere than on Debian they stand elsewhere.
        let file = PathBuf::from(format!("/usr/share/doc/{package}/copyright"));
        if file.exists() {
            tree.copy(&file, &format!("usr/share/doc/{package}/copyright"), 0o644)?;
        }
    }
    Ok(())
}

/// The files of what `ldd` prints: `libc.so.6 => /lib/… (0x…)`, and the loader, a path alone.
fn libraries(said: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for line in said.lines().map(str::trim) {
        let path = match line.split_once(" => ") {
            Some((name, rest)) if rest.starts_with("not found") => bail!("{name} is not found here"),
            Some((_, rest)) => rest,
            None => line,
        };
        let path = path.split(' ').next().unwrap_or_default();
        // The kernel's own, linux-vdso, is no file.
        found.extend(path.starts_with('/').then(|| PathBuf::from(path)));
    }
    Ok(found)
}

/// Makes one file that is an OCI image layout, and beside that what `docker load` of any age understands.
///
/// # Errors
/// As [`rootfs`].
pub(super) fn oci(place: &Place, made: &Made, file: &Path) -> Result<()> {
    let (root, layout) = (made.work.join("rootfs"), made.work.join("oci"));
    rootfs(place, made, &root)?;
    let layer = tar(&root, made.epoch)?;
    let tree = Tree::new(&layout)?;
    let blob = |content: &[u8]| {
        let digest = sha256(content)?;
        tree.write(&format!("blobs/sha256/{digest}"), 0o644, content)?;
        Ok::<_, anyhow::Error>((digest, content.len()))
    };
    let packed = blob(&gzip(&layer, 6)?)?;
    let config = blob(config(made, &sha256(&layer)?)?.as_bytes())?;
    let manifest = blob(manifest(&config, &packed).as_bytes())?;
    tree.write("index.json", 0o644, index(&manifest, &made.version).as_bytes())?;
    tree.write("oci-layout", 0o644, br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    tree.write("manifest.json", 0o644, for_docker(&config.0, &packed.0, &made.version).as_bytes())?;
    fs::write(file, tar(&layout, made.epoch)?).with_context(|| file.display().to_string())
}

/// A tar of a folder in which nothing tells when, by whom or where it was made.
fn tar(folder: &Path, epoch: u64) -> Result<Vec<u8>> {
    let mut tar = Command::new("tar");
    tar.args(["--create", "--format=ustar", "--sort=name", "--owner=0", "--group=0", "--numeric-owner"]);
    output(tar.arg(format!("--mtime=@{epoch}")).arg("--directory").arg(folder).arg("."), b"")
}

fn sha256(content: &[u8]) -> Result<String> {
    let said = String::from_utf8(output(&mut Command::new("sha256sum"), content)?)?;
    Ok(said.split(' ').next().context("a sum")?.to_owned())
}

/// Architectures in the words of OCI, which are Go's.
fn architecture() -> Result<&'static str> {
    Ok(match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "riscv64" => "riscv64",
        "s390x" => "s390x",
        other => bail!("{other} has no name in OCI's list that is known here"),
    })
}

fn config(made: &Made, diff: &str) -> Result<String> {
    let (created, architecture) = (date(made.epoch, "+%Y-%m-%dT%H:%M:%SZ")?, architecture()?);
    Ok(format!(
        r#"{{"created":"{created}","architecture":"{architecture}","os":"linux","config":{{"ExposedPorts":{{"10490/tcp":{{}}}},"Entrypoint":["/{NAME}"],"Cmd":["agent"],"Labels":{{"org.opencontainers.image.title":"{NAME}","org.opencontainers.image.version":"{}","org.opencontainers.image.licenses":"MIT OR Apache-2.0"}}}},"rootfs":{{"type":"layers","diff_ids":["sha256:{diff}"]}},"history":[{{"created":"{created}","created_by":"cargo xtask package --oci"}}]}}"#,
        made.version
    ))
}

/// Digest and size of a blob.
type Blob = (String, usize);

fn manifest((config, config_size): &Blob, (layer, layer_size): &Blob) -> String {
    format!(
        r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:{config}","size":{config_size}}},"layers":[{{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":"sha256:{layer}","size":{layer_size}}}]}}"#
    )
}

fn index((manifest, size): &Blob, version: &str) -> String {
    format!(
        r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:{manifest}","size":{size},"annotations":{{"org.opencontainers.image.ref.name":"{version}","io.containerd.image.name":"{NAME}:{version}"}}}}]}}"#
    )
}

fn for_docker(config: &str, layer: &str, version: &str) -> String {
    format!(
        r#"[{{"Config":"blobs/sha256/{config}","RepoTags":["{NAME}:{version}"],"Layers":["blobs/sha256/{layer}"]}}]"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_of_libraries_are_read_from_what_ldd_says() {
        let said = "\tlinux-vdso.so.1 (0x00007ffd)\n\tlibgcc_s.so.1 => /lib/x86_64-linux-gnu/libgcc_s.so.1 (0x00007f3)\n\
                    \tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f2)\n\t/lib64/ld-linux-x86-64.so.2 (0x00007f4)\n";
        let found = libraries(said).expect("all found");
        let expected = [
            "/lib/x86_64-linux-gnu/libgcc_s.so.1",
            "/lib/x86_64-linux-gnu/libc.so.6",
            "/lib64/ld-linux-x86-64.so.2",
        ];
        assert_eq!(found, expected.map(PathBuf::from));
        libraries("\tlibx.so => not found\n").expect_err("it is not there");
    }

    #[test]
    fn digests_are_sha256() {
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(sha256(b"").expect("sha256sum"), empty);
    }
}
