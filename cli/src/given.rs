//! What a command line and its environment say of a node, beside the node that runs on the folder already.
//!
//! Goals: what is equal is fine, what is another is refused in words, and nothing is passed over in silence. Nodes to begin with are
//! hints, and are passed on. Non-goals: the configuration file, by which the running node goes itself.

use std::any::Any;
use std::net::IpAddr;
use std::path::Path;

use clap::ArgMatches;
use clap::parser::ValueSource;
use megatorrent_core::addr::PeerAddr;

use crate::api::{DhtPart, NodeOptions};
use crate::args::Dht;
use crate::exit::{Exit, Failure};

/// Options of a node that a command was given.
#[derive(Clone, Debug, Default)]
pub(crate) struct Given {
    host: Option<Said<IpAddr>>,
    p2p_port: Option<Said<u16>>,
    dht_port: Option<Said<u16>>,
    dht: Option<Said<Dht>>,
    upload: Option<Said<u64>>,
    download: Option<Said<u64>>,
    whole: Option<Said<bool>>,
    /// Nodes to begin with.
    pub(crate) bootstrap: Vec<PeerAddr>,
}

/// A value, and whether a variable gives it rather than the command line.
#[derive(Clone, Copy, Debug)]
struct Said<T> {
    value: T,
    by_variable: bool,
}

impl Given {
    /// What the options of a command say; those that it does not have say nothing.
    pub(crate) fn of(matches: &ArgMatches) -> Self {
        let has_bootstrap = is_given(matches, "bootstrap").is_some();
        let bootstrap = matches.try_get_many("bootstrap").ok().flatten().filter(|_| has_bootstrap);
        Self {
            host: said(matches, "host"),
            p2p_port: said(matches, "p2p_port"),
            dht_port: said(matches, "dht_port"),
            dht: said(matches, "dht"),
            upload: said(matches, "upload"),
            download: said(matches, "download"),
            whole: said(matches, "whole"),
            bootstrap: bootstrap.map(|peers| peers.cloned().collect()).unwrap_or_default(),
        }
    }

    /// Refuses what is another than what the node that runs on `home` goes by.
    pub(crate) fn check(&self, running: &NodeOptions, home: &Path) -> Result<(), Failure> {
        let none = || "none".to_owned();
        let port = |port: Option<u16>| port.map_or_else(none, |port| port.to_string());
        let rate = |rate: Option<u64>| rate.map_or_else(none, |rate| rate.to_string());
        let restart = "stop it with `megatorrent shutdown` and start it with that";
        let limit = |way: &str, said: &Option<Said<u64>>| {
            said.map(|said| format!("change it with `megatorrent limit --{way} {}`", said.value))
                .unwrap_or_default()
        };
        let checks = [
            self.host.map(|said| {
                let is_same = running.host.as_deref() == Some(said.value.to_string().as_str());
                Check::new("host", &said, is_same, running.host.clone().unwrap_or_else(none), restart)
            }),
            self.p2p_port.map(|said| {
                let is_same = said.value == 0 || running.p2p_port == Some(said.value);
                Check::new("p2p-port", &said, is_same, port(running.p2p_port), restart)
            }),
            self.dht_port.map(|said| {
                let is_same = said.value == 0 || running.dht_port == Some(said.value);
                Check::new("dht-port", &said, is_same, port(running.dht_port), restart)
            }),
            self.dht.map(|said| {
                let said = Said { value: part(said.value), by_variable: said.by_variable };
                Check::new("dht", &said, running.dht == said.value, running.dht.to_string(), restart)
            }),
            self.upload.map(|said| {
                let is_same = running.upload_bytes_per_sec == Some(said.value);
                let (has, how) = (rate(running.upload_bytes_per_sec), limit("upload", &self.upload));
                Check::new("upload-limit", &said, is_same, has, how)
            }),
            self.download.map(|said| {
                let is_same = running.download_bytes_per_sec == Some(said.value);
                let (has, how) = (rate(running.download_bytes_per_sec), limit("download", &self.download));
                Check::new("download-limit", &said, is_same, has, how)
            }),
            self.whole.map(|said| {
                let how = format!("change it with `megatorrent settings whole {}`", said.value);
                Check::new("whole", &said, running.whole == said.value, running.whole.to_string(), how)
            }),
        ];
        match checks.into_iter().flatten().find(|check| !check.is_same) {
            None => Ok(()),
            Some(check) => Err(check.refusal(home)),
        }
    }
}

/// One option beside the running node's.
struct Check {
    name: &'static str,
    is_same: bool,
    given: String,
    has: String,
    /// How the node comes to have it.
    how: String,
}

impl Check {
    fn new<T: ToString>(
        name: &'static str,
        said: &Said<T>,
        is_same: bool,
        has: String,
        how: impl Into<String>,
    ) -> Self {
        let value = said.value.to_string();
        let given = if said.by_variable {
            format!("MEGATORRENT_{}={value}", name.to_uppercase().replace('-', "_"))
        } else {
            format!("--{name} {value}")
        };
        Self { name, is_same, given, has, how: how.into() }
    }

    fn refusal(&self, home: &Path) -> Failure {
        let message = format!(
            "a node runs on {} with --{} {}, and {} was given: leave it out, or {}",
            home.display(),
            self.name,
            self.has,
            self.given,
            self.how
        );
        Failure::new(Exit::Permission, message)
    }
}

fn part(dht: Dht) -> DhtPart {
    match dht {
        Dht::Auto => DhtPart::Auto,
        Dht::Off => DhtPart::Off,
        Dht::Server => DhtPart::Server,
        Dht::Client => DhtPart::Client,
    }
}

/// Whether an option is given, and then whether by a variable.
fn is_given(matches: &ArgMatches, id: &str) -> Option<bool> {
    // Others have no source, which must not even be asked for.
    let Ok(true) = matches.try_contains_id(id) else { return None };
    match matches.value_source(id)? {
        ValueSource::CommandLine => Some(false),
        ValueSource::EnvVariable => Some(true),
        _ => None,
    }
}

fn said<T: Any + Clone + Send + Sync>(matches: &ArgMatches, id: &str) -> Option<Said<T>> {
    let by_variable = is_given(matches, id)?;
    let value = matches.try_get_one::<T>(id).ok()??.clone();
    Some(Said { value, by_variable })
}
