//! openshift/: the image is built and started with nothing in it but the binary
//! and its licences; the manifests are checked by tests/openshift/check.py.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::common::{
    Folder, Healthport, Service, eventually, finish, is_open, own_address, release,
};

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
struct Image {
    folder: Folder,
    user: String,
}

impl Image {
    /// Fails where buildah cannot run: an image that nobody built is not checked.
    fn build() -> Image {
        release();
        let mut image = Image {
            folder: Folder::new(),
            user: String::new(),
        };
        let output = image.path("rootfs");
        image.buildah(&[
            "build",
            "--isolation=chroot",
            "--file=openshift/Containerfile",
            "--tag=healthport",
            &format!("--output={output}"),
            env!("CARGO_MANIFEST_DIR"),
        ]);
        image.user = image.inspect("User");
        image
    }

    fn path(&self, name: &str) -> String {
        self.folder.file(name).display().to_string()
    }

    fn buildah(&self, args: &[&str]) -> String {
        // In its own user namespace when it is not root; vfs mounts nothing.
        let mut buildah = Command::new("buildah");
        buildah
            .args(["--storage-driver", "vfs", "--root", &self.path("store")])
            .args(["--runroot", &self.path("run")])
            .args(args)
            .current_dir(env!("CARGO_MANIFEST_DIR"));
        let output = buildah.stdin(Stdio::null()).output();
        let output =
            output.expect("buildah is missing: apt-get install --no-install-recommends buildah");
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
        let (user, group) = self.user.split_once(':').expect("USER:GROUP");
        let mut command = Command::new("unshare");
        command
            .args(["--map-user", user, "--map-group", group])
            .args(["--root", &self.path("rootfs"), "/healthport"])
            .args(args);
        command
    }
}

#[test]
#[ignore = "needs buildah"]
fn the_image_is_the_binary_and_runs_as_nobody() {
    let address = own_address();
    let service = Service::router(address);
    service.ready();
    let image = Image::build();

    let files = |folder: &str| {
        let entries = fs::read_dir(image.path(folder)).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
        names.sort_unstable();
        names
    };
    assert_eq!(files("rootfs"), ["healthport", "licenses"]);
    assert_eq!(files("rootfs/licenses"), ["LICENSE", "THIRD-PARTY"]);
    assert_eq!(image.user, "65532:65532", "a user and a group of nobody's");
    assert_eq!(image.inspect("Entrypoint"), "[/healthport]");
    let version = concat!("healthport ", env!("CARGO_PKG_VERSION"), "\n");
    assert_eq!(
        finish(&mut image.command(&["--version"])),
        (Some(0), version.to_string(), String::new())
    );
    let url = service.url();
    let (code, stdout, _) = finish(&mut image.command(&["--once", "--url", &url]));
    assert_eq!(
        (code, stdout),
        (Some(0), format!("ok: {url} answered 200\n"))
    );

    let (listen, metrics) = (format!("{address}:18898"), format!("{address}:18988"));
    let mut daemon = image.command(&["--url", &url, "--listen", &listen]);
    daemon.args(["--metrics-listen", &metrics]);
    let healthport = Healthport::spawn(address, daemon.stderr(Stdio::piped()));
    healthport.opens();
    assert_eq!(healthport.status("CapEff"), 0);
    eventually("open metrics port", || is_open((address, 18988).into()));
    service.not_ready();
    healthport.closes();
}
