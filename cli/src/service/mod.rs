//! The application: what a user means by "my node".

mod log;

pub(crate) use log::Log;
