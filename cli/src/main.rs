//! `megatorrent`: publish signed channels of encrypted files, and follow them.
//!
//! Goals: the commands, their words and exit codes, and what a user sees while they run. Non-goals: any decision of
//! the protocol, which is `megatorrent-core`'s, and any socket, blob or database, which are the runtime's.

#[cfg(unix)]
mod activation;
mod api;
mod args;
mod ciphers;
mod clock;
mod commands;
mod config;
mod events;
mod exit;
mod face;
mod files;
mod host;
mod http;
#[cfg(unix)]
mod init;
mod names;
mod node;
mod notify;
mod output;
mod service;
mod signals;

use std::process::ExitCode;

use commands::control;

use args::Command;
use config::Invocation;
use exit::Failure;
use output::Output;

fn main() -> ExitCode {
    #[cfg(unix)]
    init::reap_where_first();
    names::keep_to_our_own();
    let invocation = Invocation::of_this_process();
    output::init_log(invocation.cli().verbose);
    let output = Output::new(invocation.cli().json, invocation.cli().quiet);
    match perform(&invocation, output) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            output.failure(&failure);
            ExitCode::from(failure.exit as u8)
        }
    }
}

fn perform(invocation: &Invocation, output: Output) -> Result<(), Failure> {
    let cli = invocation.with_file()?;
    let is_verbose = cli.verbose > 0;
    match cli.task() {
        Some(command) => run(&command, output),
        None => ciphers::run(is_verbose, output),
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
        Command::Status(args) => control::status(args, output),
        Command::Add(args) => control::add(args, output),
        Command::Rm(args) => control::rm(args, output),
        Command::Pause(args) => control::pause(args, output),
        Command::Resume(args) => control::resume(args, output),
        Command::Ls(args) => control::ls(args, output),
        Command::Peers(args) => control::peers(args, output),
        Command::Bans(args) => control::bans(args, output),
        Command::Limit(args) => control::limit(args, output),
        Command::Settings(args) => control::settings(args, output),
        Command::Shutdown(args) => control::shutdown(args, output),
        Command::Doctor(args) => control::doctor(args, output),
        Command::Token(args) => control::token(args, output),
        Command::Identity(args) => control::identity(args, output),
        Command::Demo(args) => commands::demo::run(args, output),
        Command::Simulate(args) => commands::simulate::run(args, output),
        Command::Completions(args) => commands::completions::run(args, output),
        Command::Man(args) => commands::man::run(args, output),
        Command::Healthz(args) => commands::healthz::run(args),
    }
}
