//! All tests against peers that others wrote, as one program: it is built far sooner than one for each file.

mod document;
mod hostile;
mod interop;
mod support;
mod v6;
mod vectors;
