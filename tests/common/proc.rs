//! Reads /proc: for this process, for healthport, and for what the benches compare it
//! with. The number of a thread will do for that of a process.

use std::fs;

fn read(id: u32, file: &str) -> Option<String> {
    fs::read_to_string(format!("/proc/{id}/{file}")).ok()
}

/// A field of /proc/ID/status, such as "Threads" or "VmRSS" (in KiB). A process that
/// has just ended has no fields, or none about memory.
pub fn status(id: u32, name: &str) -> Option<u64> {
    let text = read(id, "status")?;
    let mut lines = text.lines();
    let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    value.split_whitespace().next()?.parse().ok()
}

pub fn descriptors(id: u32) -> Option<u64> {
    Some(fs::read_dir(format!("/proc/{id}/fd")).ok()?.count() as u64)
}

pub fn threads(id: u32) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{id}/task"))
        .into_iter()
        .flatten();
    let names = tasks.filter_map(|task| task.ok()?.file_name().into_string().ok());
    names.filter_map(|name| name.parse().ok()).collect()
}

/// The children of its main thread.
pub fn children(id: u32) -> Vec<u32> {
    let text = read(id, &format!("task/{id}/children")).unwrap_or_default();
    let words = text.split_whitespace();
    words.filter_map(|word| word.parse().ok()).collect()
}

/// CPU time of a thread, in nanoseconds.
pub fn nanoseconds(thread: u32) -> Option<u64> {
    read(thread, "schedstat")?
        .split_whitespace()
        .next()?
        .parse()
        .ok()
}

/// CPU time of a process and of its children that have ended, user and system, in
/// ticks of 10 ms: utime to cstime of proc_pid_stat(5).
pub fn ticks(id: u32) -> Option<[u64; 4]> {
    let text = read(id, "stat")?;
    let (_, fields) = text.rsplit_once(')')?;
    let fields = fields.split_whitespace().skip(11).take(4);
    let ticks: Vec<_> = fields.filter_map(|field| field.parse().ok()).collect();
    ticks.try_into().ok()
}
