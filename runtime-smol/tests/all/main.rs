//! All tests of the runtime's interface, as one program: it is built far sooner than one for each file.

mod commands;
mod dead_channels;
mod held_while_fetched;
mod in_place;
mod net;
mod net_transfer;
mod storage;
mod storage_export;
mod verify;
