//! `completions`: what lets a shell complete this program's commands and options, made from the parser.

use clap::CommandFactory as _;

use crate::args::{Cli, Completions};
use crate::exit::Failure;
use crate::output::Output;

pub(crate) fn run(args: &Completions, output: Output) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "megatorrent", &mut script);
    output.line(String::from_utf8_lossy(&script).trim_end())
}
