//! One module for each command.

pub(crate) mod completions;
pub(crate) mod control;
pub(crate) mod demo;
pub(crate) mod gen_key;
pub(crate) mod healthz;
pub(crate) mod ingest;
pub(crate) mod man;
pub(crate) mod publish;
pub(crate) mod serve;
pub(crate) mod simulate;
pub(crate) mod subscribe;
pub(crate) mod verify;
