//! The API over HTTP: for programs and browsers on TCP, for this program's own commands on a socket in the node's folder.
//!
//! Goals: who may ask, how requests come and answers go, and that nobody who asks badly slows anybody else down. Non-goals: what
//! the methods do.
//!
//! A request passes, in this order: the connection's bounds (`server`, `connection`), the host that it names, its caller's login, its
//! origin (`guard`), then method, type and length (`routes`), and only then is its body read.

use std::path::PathBuf;

use serde_json::Value;

use crate::api::{ApiError, Scope};
use crate::service::Log;

mod answer;
pub(crate) mod client;
mod connection;
mod credentials;
mod events;
mod files;
mod guard;
mod limits;
pub(crate) mod listen;
mod page;
mod rate;
mod routes;
mod rpc;
pub(crate) mod server;
#[cfg(test)]
mod tests;
pub(crate) mod token;

pub(crate) use files::content_type;

/// The file that a link leads to.
#[derive(Clone, Debug)]
pub(crate) struct LinkedFile {
    /// Where it lies.
    pub(crate) target: PathBuf,
    /// What a browser calls it.
    pub(crate) name: String,
}

/// What answers behind the server.
pub(crate) trait Backend: 'static {
    /// Answers a method by its name. A caller that goes away does not end it.
    async fn call(&self, scope: Scope, method: &str, params: Value) -> Result<Value, ApiError>;

    /// The events.
    fn log(&self) -> &Log;

    /// What the event `beat` says: how peers see the node (`mode`), what keeps it so (`enforcement`), when it was started, and what
    /// changes soon. It is told every few seconds, and at once when it has changed and an event says so.
    fn beat(&self) -> Value;

    /// The file that a link with this code leads to, if there is such a link.
    fn linked(&self, code: &str) -> Option<LinkedFile>;

    /// The counters of `/metrics`, as Prometheus reads them.
    fn metrics(&self) -> String;

    /// Whether the node does what it is there for: listens, and has its folder.
    fn is_ready(&self) -> bool;
}
