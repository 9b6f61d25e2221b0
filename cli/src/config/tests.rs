use super::*;
use crate::args::Command as Task;

fn parse(text: &str) -> Result<Config, Failure> {
    Config::parse(Path::new("/etc/mt/config.toml"), text)
}

fn refusal(text: &str) -> String {
    let failure = parse(text).unwrap_err();
    assert_eq!(failure.exit, Exit::Usage);
    failure.message.strip_prefix("/etc/mt/config.toml, ").expect("it names the file").to_owned()
}

/// What `serve` runs with.
fn serve(args: &[&str], config: &str) -> crate::args::Serve {
    let args = ["megatorrent", "serve"].iter().chain(args).map(Into::into).collect();
    let invocation = Invocation::try_of(args).unwrap();
    match invocation.over(&parse(config).unwrap()).unwrap().command {
        Some(Task::Serve(serve)) => serve,
        other => panic!("{other:?}"),
    }
}

#[test]
fn each_knob_is_an_option_with_a_variable_of_its_name() {
    let program = Cli::command();
    for knob in &KNOBS {
        let variable = format!("MEGATORRENT_{}", knob.name.to_uppercase().replace('-', "_"));
        let options: Vec<_> = program.get_subcommands().filter_map(|command| knob.of(command)).collect();
        assert!(!options.is_empty(), "{}", knob.name);
        for option in options {
            assert_eq!(option.get_env(), Some(std::ffi::OsStr::new(&variable)));
        }
    }
}

#[test]
fn the_file_is_the_default_of_options_and_the_command_line_goes_over_it() {
    let config = "\
        upload-limit = \"2M\"\ndownload-limit = 500_000\np2p-port = 7000\nwhole = true\nno-gateway = true\n\
        bootstrap = [\"192.0.2.7:6881\", \"node.example:6881\"]\ndht = \"off\"\nhost = \"127.0.0.1\"\ndata = \"node\"\n";
    let of_file = serve(&[], config);
    assert_eq!((of_file.limits.upload, of_file.limits.download), (Some(2_000_000), Some(500_000)));
    assert_eq!((of_file.listen.p2p_port, of_file.listen.dht_port), (Some(7000), None));
    assert!(of_file.limits.whole && of_file.no_gateway);
    assert_eq!(of_file.network.bootstrap.len(), 2);
    assert_eq!(of_file.network.dht, crate::args::Dht::Off);
    assert_eq!(of_file.data.dir, Path::new("/etc/mt/node"), "beside the file");
    let flags = ["-T", "0", "--whole=false", "-b", "192.0.2.8:1", "--dht", "client", "-d", "other"];
    let over = serve(&flags, config);
    assert_eq!((over.listen.p2p_port, over.limits.upload), (Some(0), Some(2_000_000)));
    assert!(!over.limits.whole && over.no_gateway);
    assert_eq!(over.network.bootstrap, ["192.0.2.8:1".parse().unwrap()]);
    assert_eq!(over.data.dir, Path::new("other"));
    assert!(serve(&["--whole"], "").limits.whole);
}

#[test]
fn a_key_of_another_command_does_no_harm() {
    assert_eq!(
        serve(&[], "output = \"/srv/films\"\ncopy = true\nin-order = true\ntimeout = 5\n").limits.upload,
        None
    );
    let args = ["megatorrent", "ingest", "-i", "film"].map(Into::into).to_vec();
    let config = parse("output = \"/srv/films\"\ncopy = true\n").unwrap();
    match Invocation::try_of(args).unwrap().over(&config).unwrap().command {
        Some(Task::Ingest(ingest)) => assert!(ingest.output.is_none() && !ingest.copy),
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_unknown_key_names_its_line_and_the_nearest_key() {
    let said = refusal("host = \"127.0.0.1\"\n\nuplod-limit = \"2M\"\n");
    assert_eq!(said, r#"line 3: there is no key "uplod-limit"; did you mean "upload-limit"?"#);
    let said = refusal("xyzzy = 1\n");
    assert!(said.starts_with("line 1: there is no key \"xyzzy\"; the keys are data, host,"), "{said}");
}

#[test]
fn a_wrong_value_names_its_line_and_what_is_wrong() {
    for (line, why) in [
        ("upload-limit = 5", "lowest limit is"),
        ("upload-limit = \"fast\"", "a rate is a number of bytes a second"),
        ("upload-limit = [\"2M\"]", "one value, not a list"),
        ("upload-limit = 1.5", "fraction"),
        ("p2p-port = 70000", "70000"),
        ("p2p-port = -1", "-1"),
        ("p2p-port = 99999999999999999999", "large"),
        ("host = \"here\"", "here"),
        ("dht = \"maybe\"", "possible values: auto, off, server, client"),
        ("bootstrap = [\"192.0.2.1:1\", \"nowhere\"]", "nowhere"),
        ("whole = \"perhaps\"", "perhaps"),
        ("timeout = 2026-01-01", "date"),
    ] {
        let said = refusal(&format!("# a comment\n{line}\n"));
        let key = line.split(' ').next().unwrap();
        assert!(said.starts_with(&format!("line 2: {key}: ")) && said.contains(why), "{line}: {said}");
    }
    assert!(refusal("[dht]\nmode = \"off\"\n").contains("no sections"));
    for text in ["host = \n", "host\n", "host = \"a\"\nhost = \"b\"\n"] {
        assert!(refusal(text).starts_with("line "), "{text}");
    }
}

#[test]
fn what_changed_says_whether_it_can_be_followed() {
    let old = parse("upload-limit = \"2M\"\np2p-port = 7000\nwhole = true\n").unwrap();
    let new =
        parse("# moved\nwhole = true\nupload-limit = \"3M\"\np2p-port = 7001\ndht = \"off\"\n").unwrap();
    let changes: Vec<_> = old.changes(&new).iter().map(|knob| (knob.name, knob.is_reloadable)).collect();
    assert_eq!(changes, [("p2p-port", false), ("upload-limit", true), ("dht", false)]);
    assert!(old.changes(&old).is_empty());
    assert!(Config::reloadable().any(|name| name == "download-limit"));
    assert!(!Config::reloadable().any(|name| name == "data"));
}
