//! The API over HTTP: for programs and browsers on TCP, for this program's own commands on a socket in the node's folder.
//!
//! Goals: who may ask, how requests come and answers go, and that nobody who asks badly slows anybody else down. Non-goals: what
//! the methods do.

use serde_json::Value;

use crate::api::{ApiError, Scope};
use crate::service::Log;

/// What answers behind the server.
pub(crate) trait Backend: 'static {
    /// Answers a method by its name.
    async fn call(&self, scope: Scope, method: &str, params: Value) -> Result<Value, ApiError>;

    /// The events.
    fn log(&self) -> &Log;

    /// The counters of `/metrics`, as Prometheus reads them.
    fn metrics(&self) -> String;

    /// Whether the node does what it is there for: listens, and has its folder.
    fn is_ready(&self) -> bool;
}
