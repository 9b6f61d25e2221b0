//! The main job in simulation: an author publishes, followers get the same bytes, whatever happens meanwhile.

mod common;
mod faults;
mod first_byte;
mod job;
mod limits;
mod seeds;
