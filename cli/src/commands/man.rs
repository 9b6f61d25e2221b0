//! `man`: a page for each command, made from the parser.

use std::fs;
use std::path::{Path, PathBuf};

use clap::{Command, CommandFactory as _};
use clap_mangen::Man as Page;
use serde_json::json;

use crate::args::{Cli, Man};
use crate::exit::Failure;
use crate::output::Output;

pub(crate) fn run(args: &Man, output: Output) -> Result<(), Failure> {
    fs::create_dir_all(&args.folder).map_err(|error| Failure::file("cannot make", &args.folder, &error))?;
    let pages: Vec<PathBuf> =
        commands().into_iter().map(|command| write(command, &args.folder)).collect::<Result<_, _>>()?;
    let paths: Vec<_> = pages.iter().map(|path| path.display().to_string()).collect();
    output.result(&json!({ "pages": paths }), &paths.join("\n"))
}

/// The program and each command that `--help` lists, under the names of their pages.
fn commands() -> Vec<Command> {
    let mut program = Cli::command().disable_help_subcommand(true);
    program.build();
    let listed = program.get_subcommands().filter(|command| !command.is_hide_set()).cloned();
    let listed: Vec<_> = listed.collect();
    [program].into_iter().chain(listed).collect()
}

fn write(command: Command, folder: &Path) -> Result<PathBuf, Failure> {
    let page =
        Page::new(command).manual("Megatorrent").source(concat!("megatorrent ", env!("CARGO_PKG_VERSION")));
    let path = folder.join(page.get_filename());
    let mut text = Vec::new();
    page.render(&mut text)
        .and_then(|()| fs::write(&path, as_it_stands(&String::from_utf8_lossy(&text))))
        .map_err(|error| Failure::file("cannot write", &path, &error))?;
    Ok(path)
}

/// Keeps the lines of the last part of a command's help, which has tables, as they are: a page's text is filled otherwise.
fn as_it_stands(page: &str) -> String {
    match page.split_once(".SH EXTRA\n") {
        Some((options, rest)) => {
            let rest = rest.replacen("\n.SH ", "\n.fi\n.SH ", 1);
            format!("{options}.SH NOTES\n.nf\n{rest}")
        }
        None => page.to_owned(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on shall fail where it stands")]
mod tests {
    use super::*;

    #[test]
    fn each_command_that_help_lists_has_a_page() {
        let folder = tempfile::tempdir().unwrap();
        let pages: Vec<PathBuf> =
            commands().into_iter().map(|command| write(command, folder.path()).unwrap()).collect();
        let shown = Cli::command().get_subcommands().filter(|command| !command.is_hide_set()).count();
        assert_eq!(pages.len(), shown + 1);
        let serve = fs::read_to_string(folder.path().join("megatorrent-serve.1")).unwrap();
        assert!(serve.contains("upload\\-limit") && serve.contains("MEGATORRENT_UPLOAD_LIMIT"), "{serve}");
        assert!(!folder.path().join("megatorrent-healthz.1").exists());
    }
}
