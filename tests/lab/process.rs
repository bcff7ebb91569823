//! Processes that cannot outlive the lab. Dropping a [`Proc`] kills and reaps it. If the
//! lab itself ends in another way, the kernel kills them (PR_SET_PDEATHSIG).

use std::env;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{self, Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use rustix::process::{Pid, Signal, kill_process};

use crate::plan::{Result, now};

/// A child in its own process group: Ctrl-C reaches only the lab.
#[derive(Debug)]
pub struct Proc {
    pub name: String,
    log: PathBuf,
    child: Child,
    said: Receiver<(f64, String)>,
}

impl Proc {
    /// Starts `program`, a tool's name or a path. Its errors are appended to NAME.err
    /// in `dir`.
    pub fn spawn<S: AsRef<OsStr>>(
        dir: &Path,
        name: &str,
        program: impl AsRef<OsStr>,
        args: impl IntoIterator<Item = S>,
    ) -> Result<Proc> {
        let failed = |error: io::Error| format!("cannot start {name}: {error}");
        let log = dir.join(format!("{name}.err"));
        let errors = File::options().append(true).create(true).open(&log);
        // On Debian, haproxy is in a folder that a user's PATH lacks.
        let path = env::var("PATH").unwrap_or_default() + ":/usr/sbin";
        // Both replace themselves by the program, so our child is the program. For the
        // kernel the parent is the calling thread: it must live as long as the lab. If the
        // lab has ended before the kernel was told, it is no longer the parent.
        let start = r#"[ $PPID = "$1" ] && shift && exec "$@""#;
        let mut child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--", "sh", "-c", start, "lab"])
            .arg(process::id().to_string())
            .arg(program)
            .args(args)
            .env("PATH", path)
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(errors.map_err(failed)?)
            .spawn()
            .map_err(failed)?;
        let output = BufReader::new(child.stdout.take().expect("it is piped"));
        let (send, said) = channel();
        thread::spawn(move || {
            for line in output.lines().map_while(io::Result::ok) {
                let _ = send.send((now(), line)); // nobody may want it any more
            }
        });
        Ok(Proc {
            name: name.to_string(),
            log,
            child,
            said,
        })
    }

    pub fn id(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Sends a signal. A process that has ended ignores it.
    pub fn signal(&self, signal: Signal) {
        let _ = kill_process(self.id(), signal);
    }

    /// The exit status, once it has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// An error with the last line of its log, if it has ended.
    pub fn must_run(&mut self) -> Result<()> {
        let Some(status) = self.ended() else {
            return Ok(());
        };
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let last = log.lines().last().unwrap_or("no word");
        Err(format!("{} ended, {status}: {last}", self.name))
    }

    /// The same, if it has ended with a failure.
    pub fn must_not_fail(&mut self) -> Result<()> {
        match self.ended() {
            Some(status) if !status.success() => self.must_run(),
            _ => Ok(()),
        }
    }

    /// The lines that it has printed since the last call, and when; all that are left if
    /// it has ended.
    pub fn said(&mut self) -> Vec<(f64, String)> {
        match self.ended() {
            Some(_) => self.said.iter().collect(),
            None => self.said.try_iter().collect(),
        }
    }
}

impl Drop for Proc {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
