//! openshift/: the image is built and started with nothing in it but the binary
//! and its licences; the manifests are checked by tests/openshift/check.py.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::common::{Folder, Healthport, Service, eventually, is_open, release};

#[test]
#[ignore = "needs target/venv"]
fn the_manifests_say_what_they_should() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut python = Command::new(root.join("target/venv/bin/python"));
    python
        .arg(root.join("tests/openshift/check.py"))
        .env("HEALTHPORT", release());
    let output = python.stdin(Stdio::null()).output().expect(
        "target/venv is missing: python3 -m venv target/venv && \
         target/venv/bin/pip install --requirement tests/openshift/requirements.txt",
    );
    let said = String::from_utf8_lossy(&output.stderr);
    print!("{}", String::from_utf8_lossy(&output.stdout));
    assert!(output.status.success(), "{said}");
    println!("{said}");
}

/// Buildah with a store of its own, and the image that it builds.
struct Image(Folder);

impl Image {
    /// Fails where buildah cannot run: an image that nobody built is not checked.
    fn build() -> Image {
        release();
        let image = Image(Folder::new());
        let output = format!("--output={}", image.path("rootfs"));
        let file = "--file=openshift/Containerfile";
        let build = ["build", "--isolation=chroot", file, "--tag=healthport"];
        image.buildah(&[&build[..], &[&output, env!("CARGO_MANIFEST_DIR")]].concat());
        image
    }

    fn path(&self, name: &str) -> String {
        self.0.file(name).display().to_string()
    }

    fn buildah(&self, args: &[&str]) -> String {
        // In its own user namespace when it is not root; vfs mounts nothing.
        let mut buildah = Command::new("buildah");
        buildah.args(["--storage-driver", "vfs", "--root", &self.path("store")]);
        buildah.args(["--runroot", &self.path("run")]).args(args);
        let output = buildah.current_dir(env!("CARGO_MANIFEST_DIR")).output();
        let output = output.expect("buildah is missing: tests/run installs it");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "buildah {args:?}: {said}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// A field of the image's configuration.
    fn inspect(&self, field: &str) -> String {
        let format = format!("--format={{{{.OCIv1.Config.{field}}}}}");
        self.buildah(&["inspect", "--type=image", &format, "healthport"])
    }

    /// The program as the kubelet would start it: this root file system, this
    /// user, no capability.
    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("unshare");
        command.args(["--map-user", "65532", "--map-group", "65532", "--root"]);
        command
            .args([&self.path("rootfs"), "/healthport"])
            .args(args);
        command
    }
}

#[test]
#[ignore = "needs buildah"]
fn the_image_is_the_binary_and_runs_as_nobody() {
    let service = Service::start();
    let address = service.address.ip();
    let image = Image::build();

    let files = |folder: &str| {
        let entries = fs::read_dir(image.path(folder)).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
        names.sort_unstable();
        names
    };
    assert_eq!(files("rootfs"), ["healthport", "licenses"]);
    assert_eq!(files("rootfs/licenses"), ["LICENSE", "THIRD-PARTY"]);
    assert_eq!(image.inspect("User"), "65532:65532", "of nobody's");
    assert_eq!(image.inspect("Entrypoint"), "[/healthport]");
    let (listen, metrics) = (format!("{address}:18898"), format!("{address}:18988"));
    let mut daemon = image.command(&["--url", &service.url(), "--listen", &listen]);
    daemon.args(["--metrics-listen", &metrics]);
    let healthport = Healthport::spawn(address, daemon.stderr(Stdio::piped()));
    healthport.opens();
    assert_eq!(healthport.status("CapEff"), 0);
    eventually("open metrics port", || is_open((address, 18988).into()));
    service.not_ready();
    healthport.closes();
}
