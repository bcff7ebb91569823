//! The command line: one row per option. --help, the parser, its errors and what
//! --check-config prints all come from the rows. Parsing validates everything and opens
//! nothing; its result needs no further check. man/healthport.8 is the reference.

use std::ffi::OsString;
use std::fmt;
use std::mem;
use std::time::Duration;

use lexopt::Arg;
use ureq::http::{HeaderName, Method, header};

use self::Takes::{Count, Nothing, Text, Time, Word};
use crate::config::Config;
use crate::dial;
use crate::values::{address, duration, http_header, overlap, url};

/// An option, and all that is particular to it. If it takes a value, the field of
/// [`Config`] that has its name holds the value.
pub struct Row {
    /// As --help shows it: the short form if there is one, the long one, the value.
    pub names: &'static str,
    /// What --help says; `{range}` and `{default}` are filled in.
    help: &'static str,
    /// What it takes.
    pub takes: Takes,
    /// The setting, for --check-config and as the default.
    pub show: fn(&Config) -> String,
}

/// What an option takes, and where the value goes.
pub enum Takes {
    /// No value: it selects another command than to run.
    Nothing(Command),
    /// A duration between these two. A limit that is not itself a duration depends on
    /// other options and is left to `check`.
    Time(&'static str, &'static str, fn(&mut Config, Duration)),
    /// A whole number between these two.
    Count(u32, u32, fn(&mut Config, u32)),
    /// One of these words.
    Word(&'static [&'static str], fn(&mut Config, &str) -> Option<()>),
    /// A value that the text describes and the function accepts.
    Text(&'static str, fn(&mut Config, &str) -> Option<()>),
}

/// All options, in the order of --help and --check-config.
#[rustfmt::skip] // a table
pub const ROWS: &[Row] = &[
    Row { names: "-u, --url URL",
        help: "what to probe: plain HTTP, IP address or localhost\n[{default}]",
        takes: Text("a URL like http://HOST[:PORT]/PATH (plain HTTP, no TLS)",
            |config, text| url(text).map(|url| config.url = url)),
        show: |config| config.url.to_string() },
    Row { names: "-l, --listen ADDR:PORT",
        help: "the port to open, up to 16 times [{default}]",
        takes: Text(ADDRESS, |config, text| address(text).map(|port| config.listen.push(port))),
        show: |config| config.ports() },
    Row { names: "-i, --interval DURATION",
        help: "from one probe to the next, {range} [{default}]",
        takes: Time("10ms", "60m", |config, time| config.interval = time),
        show: |config| format!("{:?}", config.interval) },
    Row { names: "    --fast-interval DURATION",
        help: "while a change is being counted, {range}\n\
               [100ms, or the interval where that is shorter]",
        takes: Time("10ms", "60m", |config, time| config.fast_interval = Some(time)),
        show: |config| format!("{:?}", config.fast_interval()) },
    Row { names: "-t, --timeout DURATION",
        help: "limit for a whole probe, {range} [{default}]",
        takes: Time("1ms", "1m", |config, time| config.timeout = time),
        show: |config| format!("{:?}", config.timeout) },
    Row { names: "    --rise N",
        help: "good probes in a row to open, {range} [{default}]",
        takes: Count(1, 100, |config, count| config.rise = count),
        show: |config| config.rise.to_string() },
    Row { names: "    --fall N",
        help: "bad probes in a row to close, {range} [{default}]",
        takes: Count(1, 100, |config, count| config.fall = count),
        show: |config| config.fall.to_string() },
    Row { names: "    --expect-status LIST",
        help: "good status codes, like 200,204,300-399 [{default}]",
        takes: Text("codes and ranges from 200 to 599, like 200,204,300-399",
            |config, text| text.parse().map(|list| config.expect_status = list).ok()),
        show: |config| config.expect_status.to_string() },
    Row { names: "    --expect-body TEXT",
        help: "the first 10 KiB of the body must contain TEXT",
        takes: Text("a non-empty text",
            |config, text| (!text.is_empty()).then(|| config.expect_body = Some(text.into()))),
        show: |config| or_off(config.expect_body.as_ref()) },
    Row { names: "    --method METHOD",
        help: "{range} [{default}]",
        takes: Word(&["GET", "HEAD"],
            |config, word| word.parse().map(|method| config.method = method).ok()),
        show: |config| config.method.to_string() },
    Row { names: "    --header 'NAME: VALUE'",
        help: "extra header, repeatable; Host replaces the URL's",
        takes: Text("'NAME: VALUE' on one line",
            |config, text| http_header(text).map(|header| config.header.push(header))),
        show: |config| { // The values may be secrets.
            let names: Vec<_> = config.header.iter().map(|(name, _)| name.as_str()).collect();
            or_off(Some(names.join(", ")).filter(|list| !list.is_empty())) } },
    Row { names: "    --drain-file PATH",
        help: "absolute path; the port is closed while it exists",
        takes: Text("an absolute path", // The working directory is the unit's or the image's.
            |config, text| text.starts_with('/').then(|| config.drain_file = Some(text.into()))),
        show: |config| or_off(config.drain_file.as_ref().map(|path| path.display())) },
    Row { names: "    --max-age DURATION",
        help: "close when no probe has ended for this long\n[2 x (interval + timeout)]",
        takes: Time("interval + timeout", "240m", |config, time| config.max_age = Some(time)),
        show: |config| format!("{:?}", config.max_age()) },
    Row { names: "    --metrics-listen ADDR:PORT",
        help: "serve /metrics and /livez there [{default}]",
        takes: Text(ADDRESS,
            |config, text| address(text).map(|port| config.metrics_listen = Some(port))),
        show: |config| or_off(config.metrics_listen) },
    Row { names: "    --once",
        help: "probe once, print the result, exit 0 or 1",
        takes: Nothing(Command::Once), show: |_| String::new() },
    Row { names: "    --check-config",
        help: "print the settings and worst-case times, exit 0",
        takes: Nothing(Command::CheckConfig), show: |_| String::new() },
    Row { names: "    --log-level LEVEL",
        help: "{range} [{default}]",
        takes: Word(&["error", "warn", "info", "debug", "trace"],
            |config, word| word.parse().map(|level| config.log_level = level).ok()),
        show: |config| config.log_level.as_str().to_lowercase() },
    Row { names: "-h, --help",
        help: "print this and exit",
        takes: Nothing(Command::Help), show: |_| String::new() },
    Row { names: "-V, --version",
        help: "print the version and exit",
        takes: Nothing(Command::Version), show: |_| String::new() },
];

/// What --listen and --metrics-listen take.
const ADDRESS: &str =
    "an IP address and a port, like 0.0.0.0:18898 or [::]:18898, not multicast or broadcast";

fn or_off(setting: Option<impl fmt::Display>) -> String {
    setting.map_or("off".to_string(), |setting| setting.to_string())
}

impl Row {
    /// The long form without its dashes.
    pub fn name(&self) -> &'static str {
        let long = self.names.split_once("--").map_or("", |(_, long)| long);
        long.split(' ').next().unwrap_or_default()
    }

    /// Whether it is a setting rather than a command.
    pub fn takes_a_value(&self) -> bool {
        !matches!(self.takes, Nothing(_))
    }

    /// What --help says.
    pub fn help(&self) -> String {
        let default = (self.show)(&Config::default());
        let help = self.help.replace("{range}", &self.range());
        help.replace("{default}", &default)
    }

    fn range(&self) -> String {
        match self.takes {
            Nothing(_) => "no value".to_string(),
            Time(least, most, _) => format!("{least} to {most}"),
            Count(least, most, _) => format!("{least} to {most}"),
            Word(words, _) => match words.split_last() {
                Some((last, others)) => format!("{} or {last}", others.join(", ")),
                None => String::new(),
            },
            Text(text, _) => text.to_string(),
        }
    }

    /// What is allowed, as errors say it.
    pub fn allowed(&self) -> String {
        let range = self.range();
        match self.takes {
            Time(..) => format!("a number with its unit (ms, s or m), from {range}"),
            Count(..) => format!("a whole number from {range}"),
            _ => range,
        }
    }

    /// Puts the value into its field, if it is allowed.
    fn set(&self, config: &mut Config, text: &str) -> Option<()> {
        match self.takes {
            Nothing(_) => None,
            Time(least, most, set) => {
                let time = duration(text)?;
                let range = duration(least).unwrap_or_default()..=duration(most)?;
                range.contains(&time).then(|| set(config, time))
            }
            Count(least, most, set) => {
                // parse() would accept "+1".
                let count = text.parse().ok().filter(|_| !text.starts_with('+'))?;
                (least..=most).contains(&count).then(|| set(config, count))
            }
            Word(words, set) => words.contains(&text).then(|| set(config, text))?,
            Text(_, set) => set(config, text),
        }
    }
}

/// What --help prints.
pub fn help() -> String {
    let mut help = "\
healthport: opens a TCP port only while an HTTP health endpoint says ready

usage: healthport [OPTIONS]

"
    .to_string();
    let column = format!("\n{:30}", "");
    for row in ROWS {
        let right = row.help().replace('\n', &column);
        help += &format!("  {:26}  {right}\n", row.names);
    }
    help + "
A DURATION needs a unit: ms, s or m. SIGUSR1 logs the state.
Everything else is in healthport(8).
"
}

/// What --check-config prints.
impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for row in ROWS.iter().filter(|row| row.takes_a_value()) {
            writeln!(f, "{:14} {}", row.name(), (row.show)(self))?;
        }
        write!(f, "\n{}", self.worst_cases())
    }
}

/// What the command line asks for. If it asks for several, the one furthest down wins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Command {
    /// Run until a signal comes.
    Run,
    /// Print the configuration.
    CheckConfig,
    /// Probe once.
    Once,
    /// Print the version.
    Version,
    /// Print [`help`].
    Help,
}

/// Parses the arguments, without the program's name.
///
/// # Errors
/// A line that names the option, the value and what is allowed.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<(Command, Config), String> {
    let mut commands = Vec::new();
    let mut config = Config::default();
    // The first --listen replaces the default.
    let default_listen = mem::take(&mut config.listen);
    let mut parser = lexopt::Parser::from_args(args);

    while let Some(arg) = parser.next().map_err(|error| error.to_string())? {
        let given = match arg {
            Arg::Short(letter) => format!("-{letter}"),
            Arg::Long(name) => format!("--{name}"),
            Arg::Value(value) => {
                return Err(format!(
                    "unexpected argument {value:?}: only options are allowed"
                ));
            }
        };
        let is_given = |row: &&Row| row.names.split([' ', ',']).any(|name| name == given);
        let Some(row) = ROWS.iter().find(is_given) else {
            return Err(format!("unknown option '{}'", given.escape_debug()));
        };
        let (name, allowed) = (row.name(), row.allowed());
        let refused = |value| {
            Err(format!(
                "--{name} {value:?} is not allowed: it takes {allowed}"
            ))
        };
        if let Nothing(command) = row.takes {
            commands.push(command);
            match parser.optional_value() {
                Some(value) => return refused(value),
                None => continue,
            }
        }
        let Ok(value) = parser.value() else {
            return Err(format!("--{name} needs a value: {allowed}"));
        };
        let text = value.to_str();
        if text.and_then(|text| row.set(&mut config, text)).is_none() {
            return refused(value);
        }
    }

    if config.listen.is_empty() {
        config.listen = default_listen;
    }
    check(&config)?;
    if commands.contains(&Command::Once) && commands.contains(&Command::CheckConfig) {
        return Err("--once cannot be used with --check-config: choose one".to_string());
    }
    let command = commands.into_iter().max();
    Ok((command.unwrap_or(Command::Run), config))
}

const MAX_LISTEN: usize = 16;

/// Headers that decide what a request is or what happens to the connection. With
/// another value, the probe would no longer be one plain exchange.
const OWN_HEADERS: [HeaderName; 5] = [
    header::CONNECTION,
    header::CONTENT_LENGTH,
    header::EXPECT,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// Checks what involves more than one value or deserves an error of its own.
fn check(config: &Config) -> Result<(), String> {
    if dial::addresses(&config.url).is_none() {
        return Err(format!(
            "--url {:?} is not allowed: its host must be an IP address or localhost, since names \
             are not looked up; to send a name, use --header 'Host: NAME'",
            config.url.to_string()
        ));
    }
    if let Some(address) = config.listen.get(MAX_LISTEN) {
        return Err(format!(
            "--listen '{address}' is one too many: up to {MAX_LISTEN} are allowed"
        ));
    }
    let ports = config.listen.iter().map(|port| ("listen", port));
    let metrics = config.metrics_listen.iter();
    let ports: Vec<_> = ports
        .chain(metrics.map(|port| ("metrics-listen", port)))
        .collect();
    for (position, (option, port)) in ports.iter().enumerate() {
        let mut before = ports[..position].iter();
        if let Some((_, first)) = before.find(|(_, first)| overlap(first, port)) {
            return Err(format!(
                "--{option} '{port}' overlaps --listen '{first}': two sockets cannot share a port"
            ));
        }
    }
    let (interval, fast_interval) = (config.interval, config.fast_interval());
    if fast_interval > interval {
        return Err(format!(
            "--fast-interval '{fast_interval:?}' is longer than --interval '{interval:?}': probes would slow down while a change is being counted"
        ));
    }
    // A --max-age shorter than one cycle would close the port of a healthy service.
    let (cycle, max_age) = (interval + config.timeout, config.max_age());
    if max_age < cycle {
        return Err(format!(
            "--max-age '{max_age:?}' is shorter than interval + timeout, {cycle:?}: the port would close between two probes"
        ));
    }
    let names = || config.header.iter().map(|(name, _)| name);
    if let Some(name) = names().find(|name| OWN_HEADERS.contains(name)) {
        return Err(format!(
            "--header '{name}' is set by the probe itself: any other is allowed"
        ));
    }
    if names().filter(|name| *name == header::HOST).count() > 1 {
        return Err("--header 'host' is given twice: one is allowed".to_string());
    }
    if config.method == Method::HEAD && config.expect_body.is_some() {
        return Err(
            "--expect-body cannot be used with --method 'HEAD': the answer has no body".to_string(),
        );
    }
    Ok(())
}
