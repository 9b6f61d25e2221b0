//! `megatorrent`: publish signed channels of encrypted files, and follow them.
//!
//! Goals: the commands, their words and exit codes, and what a user sees while they run. Non-goals: any decision of
//! the protocol, which is `megatorrent-core`'s, and any socket, blob or database, which are the runtime's.

mod api;
mod args;
mod ciphers;
mod clock;
mod commands;
mod events;
mod exit;
mod face;
mod files;
mod host;
mod http;
mod node;
mod output;
mod service;
mod signals;

use std::process::ExitCode;

use clap::Parser;

use args::{Cli, Command};
use exit::Failure;
use output::Output;

fn main() -> ExitCode {
    let cli = Cli::parse();
    output::init_log(cli.verbose);
    let output = Output::new(cli.json, cli.quiet);
    let is_verbose = cli.verbose > 0;
    let result = match cli.task() {
        Some(command) => run(&command, output),
        None => ciphers::run(is_verbose, output),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            output.failure(&failure);
            ExitCode::from(failure.exit as u8)
        }
    }
}

fn run(command: &Command, output: Output) -> Result<(), Failure> {
    match command {
        Command::GenKey(args) => commands::gen_key::run(args, output),
        Command::Ingest(args) => commands::ingest::run(args, output),
        Command::Publish(args) => commands::publish::run(args, output),
        Command::Serve(args) => commands::serve::run(args, output),
        Command::Subscribe(args) => commands::subscribe::run(args, output),
        Command::Verify(args) => commands::verify::run(args, output),
        Command::Demo(args) => commands::demo::run(args, output),
        Command::Simulate(args) => commands::simulate::run(args, output),
    }
}
