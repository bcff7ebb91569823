//! Processes that cannot outlive the lab. Dropping a [`Proc`] kills and reaps it. If the
//! lab itself is killed, the kernel kills them (PR_SET_PDEATHSIG): no way to end leaves
//! anything behind.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::{env, io};

use rustix::process::{Pid, Signal, kill_process};

use crate::plan::Result;

/// An error that says how to get the first program that is missing.
pub fn check_tools() -> Result<()> {
    for tool in ["haproxy", "hey", "setpriv"] {
        if find(tool).is_none() {
            // setpriv, of util-linux, is everywhere.
            return Err(format!(
                "{tool} is missing, first: apt-get install haproxy hey"
            ));
        }
    }
    Ok(())
}

fn find(tool: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        // On Debian, haproxy is in a folder that a user's PATH lacks.
        .chain([PathBuf::from("/usr/sbin")])
        .map(|dir| dir.join(tool))
        .find(|path| path.is_file())
}

/// A child in its own process group: Ctrl-C reaches only the lab, which then ends its
/// children in order.
#[derive(Debug)]
pub struct Proc {
    pub name: String,
    log: PathBuf,
    child: Child,
}

impl Proc {
    /// Starts `program`, a tool's name or a path. Its output is appended to NAME.out and
    /// NAME.err in `dir`.
    pub fn spawn<S: AsRef<OsStr>>(
        dir: &Path,
        name: &str,
        program: &OsStr,
        args: impl IntoIterator<Item = S>,
    ) -> Result<Proc> {
        let failed = |error: io::Error| format!("cannot start {name} ({program:?}): {error}");
        let file = |end: &str| {
            let path = dir.join(format!("{name}.{end}"));
            File::options().append(true).create(true).open(path)
        };
        // setpriv replaces itself by the program, so our child is the program. For the
        // kernel the parent is the calling thread: it must live as long as the lab.
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--"])
            .arg(find(&program.to_string_lossy()).unwrap_or(program.into()))
            .args(args)
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(file("out").map_err(failed)?)
            .stderr(file("err").map_err(failed)?)
            .spawn()
            .map_err(failed)?;
        Ok(Proc {
            name: name.to_string(),
            log: dir.join(format!("{name}.err")),
            child,
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
}

impl Drop for Proc {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts a HAProxy with this configuration.
pub fn haproxy(dir: &Path, name: &str, config: &str) -> Result<Proc> {
    let file = dir.join(format!("{name}.cfg"));
    fs::write(&file, config).map_err(|error| format!("cannot write {file:?}: {error}"))?;
    let args = [OsStr::new("-db"), OsStr::new("-f"), file.as_os_str()];
    Proc::spawn(dir, name, "haproxy".as_ref(), args)
}

/// A file that another process writes, line by line.
#[derive(Debug)]
pub struct Tail {
    file: File,
    rest: String,
}

impl Tail {
    pub fn open(path: &Path) -> Result<Tail> {
        let file = File::open(path).map_err(|error| format!("cannot read {path:?}: {error}"))?;
        Ok(Tail {
            file,
            rest: String::new(),
        })
    }

    /// The lines that have become complete since the last call.
    pub fn lines(&mut self) -> Result<Vec<String>> {
        match self.file.read_to_string(&mut self.rest) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(format!("cannot read a log of the lab: {error}")),
        }
        let complete = self.rest.rfind('\n').map_or(0, |end| end + 1);
        let lines = self.rest[..complete].lines().map(String::from).collect();
        self.rest.drain(..complete);
        Ok(lines)
    }
}
