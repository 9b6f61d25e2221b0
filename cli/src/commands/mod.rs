//! One module for each command.

pub(crate) mod demo;
pub(crate) mod gen_key;
pub(crate) mod ingest;
pub(crate) mod publish;
pub(crate) mod serve;
pub(crate) mod simulate;
pub(crate) mod subscribe;
pub(crate) mod verify;
