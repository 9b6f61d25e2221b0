//! All tests of the simulator, as one program: it is built far sooner than one for each file.

mod clocks;
mod dead_channels;
mod lost_blobs;
mod main_job;
mod performance;
mod scale;
mod scenarios;
mod swarm;
mod uploads;
