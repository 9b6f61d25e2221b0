//! All tests of the program but those of its page, as one program: it is built far sooner than one for each file.

mod api;
mod api_hostile;
mod api_life;
mod api_page;
mod api_random;
mod beside;
mod both_ways;
mod clocks;
mod commands;
mod copies;
mod disk_faults;
mod e2e;
mod figures;
mod power_loss;
mod readme;
mod seeders;
mod simulate;
mod support;
mod two_runtimes;
mod verify;
