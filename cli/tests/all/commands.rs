//! What each command does without a network: files, refusals, exit codes.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall fail where it stands")]

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::{
    MIB, PATIENCE, Running, assert_listed, help, megatorrent, megatorrent_in, ok, ok_json, random_bytes, run,
    run_with_input, serve, stderr,
};
use serde_json::Value;

#[test]
fn gen_key_makes_a_private_file_once() {
    let folder = tempfile::tempdir().unwrap();
    let keys = ok_json(folder.path(), ["gen-key"]);
    let (public, private) = (keys["public_uri"].as_str().unwrap(), keys["private_uri"].as_str().unwrap());
    assert_eq!(public, format!("megatorrent://{}", keys["public_key"].as_str().unwrap()));
    assert!(private.strip_prefix(public).unwrap().starts_with(':') && private.len() == public.len() + 65);
    let path = folder.path().join("identity.json");
    let text = fs::read_to_string(&path).unwrap();
    let file: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(file["publicKey"], keys["public_key"]);
    assert_eq!(file["secretKey"].as_str().unwrap().len(), 128);
    #[cfg(unix)]
    assert_eq!(std::os::unix::fs::MetadataExt::mode(&fs::metadata(&path).unwrap()) & 0o777, 0o600);

    let homeless = |args: &[&str]| megatorrent().current_dir(folder.path()).args(args).output();
    assert_eq!(
        homeless(&["gen-key", "-k", "other.json"]).unwrap().status.code(),
        Some(0),
        "it needs no home"
    );
    assert_eq!(homeless(&["ls"]).unwrap().status.code(), Some(2));

    let again = run(folder.path(), ["gen-key"]);
    assert_eq!(again.status.code(), Some(1));
    assert!(again.stdout.is_empty() && stderr(&again).contains("not overwritten"), "{}", stderr(&again));
    assert_eq!(fs::read_to_string(&path).unwrap(), text);
}

#[test]
fn a_folder_that_is_no_nodes_is_refused_unless_it_is_to_become_one() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("note"), "a note").unwrap();
    fs::create_dir(folder.path().join("mount")).unwrap();
    let args = ["ingest", "-i", "note", "--unlinkable", "-d", "mount"];
    let refused = run(folder.path(), args);
    assert_eq!(refused.status.code(), Some(3));
    assert!(
        stderr(&refused).contains("mount it") && stderr(&refused).contains("--new"),
        "{}",
        stderr(&refused)
    );
    assert_eq!(fs::read_dir(folder.path().join("mount")).unwrap().count(), 0);
    ok(folder.path(), args.iter().chain(&["--new"]));
    ok(folder.path(), args);
    ok(folder.path(), args.iter().chain(&["--new"]));
}

#[test]
fn gen_key_prints_what_to_hand_out_and_warns() {
    let folder = tempfile::tempdir().unwrap();
    let output = run(folder.path(), ["gen-key", "-k", "other.json"]);
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    assert_eq!(text.matches("megatorrent://").count(), 2);
    assert!(stderr(&output).contains("read key"));
    assert!(!text.contains(&fs::read_to_string(folder.path().join("other.json")).unwrap()));
    let quiet = run(folder.path(), ["-q", "gen-key", "-k", "third.json"]);
    assert!(quiet.stderr.is_empty() && !quiet.stdout.is_empty());
}

#[test]
fn the_version_names_the_ciphers_at_work() {
    let folder = tempfile::tempdir().unwrap();
    let version = concat!("megatorrent ", env!("CARGO_PKG_VERSION"));
    assert_eq!(ok(folder.path(), ["--version"]), format!("{version}\n"));
    assert_eq!(ok(folder.path(), ["-V"]), format!("{version}\n"));
    let object: Value = serde_json::from_str(&ok(folder.path(), ["--version", "--json"])).unwrap();
    assert_eq!(object["version"], env!("CARGO_PKG_VERSION"));
    let ciphers = object["ciphers"].as_array().unwrap();
    let backend = |name: &str| {
        ciphers.iter().find(|it| it["name"] == name).unwrap()["backend"].as_str().unwrap().to_owned()
    };
    let text = ok(folder.path(), ["--version", "-v"]);
    assert_eq!(text, ok(folder.path(), ["-v", "--version"]));
    assert!(text.starts_with(&format!("{version}\ncommit ")), "{text}");
    for cipher in ciphers {
        let (name, backend) = (cipher["name"].as_str().unwrap(), cipher["backend"].as_str().unwrap());
        assert!(text.lines().any(|line| line.starts_with(name) && line.contains(backend)), "{name}: {text}");
    }
    let forced = ["chacha20_backend", "poly1305_backend", "sha2_backend", "target-cpu"];
    let flags = ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS"].map(|name| std::env::var(name).unwrap_or_default());
    if cfg!(target_arch = "x86_64") && !forced.iter().any(|name| flags.concat().contains(name)) {
        assert_eq!(backend("ChaCha20"), best_backend());
        assert!(has_avx512_chacha20(), "ChaCha20's AVX-512 backend is not built in");
        assert!(["AVX2", "portable"].contains(&&*backend("Poly1305")) && !backend("Ed25519").is_empty());
    }
    for wrong in [&["--version", "demo"][..], &["-v"], &["--json"]] {
        assert_eq!(run(folder.path(), wrong).status.code(), Some(2), "{wrong:?}");
    }
}

/// What an x86 processor admits of ChaCha20's backends.
fn best_backend() -> &'static str {
    let flags = fs::read_to_string("/proc/cpuinfo").unwrap();
    let line = flags.lines().find(|line| line.starts_with("flags")).unwrap();
    let has = |flag: &str| line.split_whitespace().any(|it| it == flag);
    if has("avx512f") && has("avx512vl") {
        "AVX-512"
    } else if has("avx2") {
        "AVX2"
    } else {
        "SSE2"
    }
}

/// Whether the program has the rotations of ChaCha20's quarter round, to the left by 16, 12, 8 and 7, on registers of 512 bits
/// (`vprold zmm, zmm, imm8`). BLAKE3 turns to the right.
fn has_avx512_chacha20() -> bool {
    let program = fs::read(env!("CARGO_BIN_EXE_megatorrent")).unwrap();
    let turns = |by: u8| {
        program.windows(7).any(|code| {
            let is_zmm =
                code[0] == 0x62 && code[1] & 0x0f == 0x01 && code[2] & 0x87 == 0x05 && code[3] & 0xf7 == 0x40;
            is_zmm && code[4] == 0x72 && code[5] & 0xf8 == 0xc8 && code[6] == by
        })
    };
    [16, 12, 8, 7].into_iter().all(turns)
}

#[test]
fn ingest_is_reproducible_under_one_identity_and_not_without() {
    let folder = tempfile::tempdir().unwrap();
    ok(folder.path(), ["gen-key"]);
    fs::write(folder.path().join("film"), random_bytes(1, 2 * MIB + 5)).unwrap();
    let first = ok(folder.path(), ["ingest", "-i", "film", "-d", "a"]);
    assert_eq!(first, ok(folder.path(), ["ingest", "-i", "film", "-d", "b", "--copy"]));
    assert!(crate::support::blobs(&folder.path().join("a")).is_empty(), "the file itself holds them");
    let unlinkable = ok(folder.path(), ["ingest", "-i", "film", "-d", "a", "--unlinkable"]);
    assert_ne!(unlinkable, first);
    assert_ne!(unlinkable, ok(folder.path(), ["ingest", "-i", "film", "-d", "a", "--unlinkable"]));
    let entry: Value = serde_json::from_str(&first).unwrap();
    assert_eq!(entry["size"], 2 * MIB + 5);
    assert_eq!(
        crate::support::blobs(&folder.path().join("b")).len(),
        3,
        "of data: the entry itself names them"
    );
    fs::write(folder.path().join("long"), random_bytes(2, 16 * MIB + 5)).unwrap();
    let tree = ok_json(folder.path(), ["ingest", "-i", "long", "-d", "c", "-o", "long.json", "--copy"]);
    let stored = crate::support::blobs(&folder.path().join("c")).len();
    assert_eq!((stored, &tree["blobs"]), (18, &18.into()), "17 of data and an index");
}

#[test]
fn ingest_without_an_identity_says_so() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("note"), "hello").unwrap();
    let output = run(folder.path(), ["ingest", "-i", "note"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(stderr(&output).contains("fresh secret"), "{}", stderr(&output));
    let named = run(folder.path(), ["ingest", "-i", "note", "-k", "none.json"]);
    assert_eq!(named.status.code(), Some(3));
    assert!(stderr(&named).contains("gen-key"), "{}", stderr(&named));
}

#[test]
fn ingest_reads_stdin_under_a_name() {
    let folder = tempfile::tempdir().unwrap();
    ok(folder.path(), ["gen-key"]);
    let content = random_bytes(2, MIB + 1);
    fs::write(folder.path().join("photos.tar"), &content).unwrap();
    let piped =
        run_with_input(folder.path(), ["ingest", "-i", "-", "--name", "photos.tar", "-d", "a"], &content);
    assert_eq!(piped.status.code(), Some(0), "{}", stderr(&piped));
    let mut piped: Value = serde_json::from_slice(&piped.stdout).unwrap();
    let mut read: Value =
        serde_json::from_str(&ok(folder.path(), ["ingest", "-i", "photos.tar", "-d", "b"])).unwrap();
    // A pipe has no times.
    for entry in [&mut piped, &mut read] {
        entry.as_object_mut().unwrap().retain(|name, _| !name.starts_with("modified"));
    }
    assert_eq!(piped, read);
    let nameless = run_with_input(folder.path(), ["ingest", "-i", "-"], &content);
    assert_eq!(nameless.status.code(), Some(2));
    assert!(stderr(&nameless).contains("--name"), "{}", stderr(&nameless));
}

#[test]
fn ingest_keeps_an_entry_that_is_there() {
    let folder = tempfile::tempdir().unwrap();
    ok(folder.path(), ["gen-key"]);
    fs::write(folder.path().join("note"), "hello").unwrap();
    fs::write(folder.path().join("entry.json"), "mine").unwrap();
    let refused = run(folder.path(), ["ingest", "-i", "note", "-o", "entry.json"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(stderr(&refused).contains("--force"), "{}", stderr(&refused));
    assert_eq!(fs::read_to_string(folder.path().join("entry.json")).unwrap(), "mine");
    ok(folder.path(), ["ingest", "-i", "note", "-o", "entry.json", "--force"]);
    let entry: Value = serde_json::from_slice(&fs::read(folder.path().join("entry.json")).unwrap()).unwrap();
    assert_eq!(entry["name"], "note");
}

#[test]
fn a_v5_entry_lists_chunks() {
    let folder = tempfile::tempdir().unwrap();
    ok(folder.path(), ["gen-key"]);
    fs::write(folder.path().join("film"), random_bytes(3, MIB + 1)).unwrap();
    let entry: Value = serde_json::from_str(&ok(folder.path(), ["ingest", "-i", "film", "--v5"])).unwrap();
    let sizes: Vec<_> =
        entry["chunks"].as_array().unwrap().iter().map(|c| c["realSize"].as_u64().unwrap()).collect();
    assert_eq!(sizes, [MIB as u64, 1]);
    assert_eq!(entry["chunks"][0]["length"], 1_048_592);
}

#[test]
fn a_key_in_argv_is_refused_without_repeating_it() {
    let folder = tempfile::tempdir().unwrap();
    let key = "5d".repeat(32);
    for args in [vec!["publish", "-i", "x", "-s", &key], vec!["subscribe", "megatorrent://00", "-s", &key]] {
        let output = run(folder.path(), args);
        assert_eq!(output.status.code(), Some(2));
        assert!(
            stderr(&output).contains("command line") && !stderr(&output).contains(&key),
            "{}",
            stderr(&output)
        );
    }
}

#[test]
fn mistakes_have_their_exit_codes() {
    let folder = tempfile::tempdir().unwrap();
    ok(folder.path(), ["gen-key"]);
    fs::write(folder.path().join("broken.json"), "{}").unwrap();
    let code = |args: &[&str]| {
        let output = run(folder.path(), args);
        assert!(!stderr(&output).is_empty());
        output.status.code()
    };
    assert_eq!(code(&["subscrib"]), Some(2));
    assert_eq!(code(&["publish"]), Some(2));
    assert_eq!(code(&["subscribe", "http://example.org"]), Some(2));
    assert_eq!(code(&["ingest", "-i", "missing"]), Some(3));
    assert_eq!(code(&["publish", "-i", "missing.json"]), Some(3));
    assert_eq!(code(&["publish", "-i", "broken.json"]), Some(5));
    assert_eq!(code(&["publish", "-i", "x.json", "-k", "broken.json"]), Some(5));
    let typo = run(folder.path(), ["subscrib"]);
    assert!(stderr(&typo).contains("subscribe"), "clap says what was meant");
}

#[test]
fn a_limit_that_is_no_rate_is_a_usage_error() {
    let folder = tempfile::tempdir().unwrap();
    for (command, option) in [
        (vec!["serve"], "--upload-limit"),
        (vec!["serve"], "--download-limit"),
        (vec!["subscribe", "megatorrent://00"], "--upload-limit"),
        (vec!["subscribe", "megatorrent://00"], "--download-limit"),
    ] {
        for rate in ["0", "fast", "20MB"] {
            let output = run(folder.path(), command.iter().chain(&[option, rate]));
            assert_eq!(output.status.code(), Some(2), "{command:?} {option} {rate}");
            assert!(stderr(&output).contains("bytes a second"), "{}", stderr(&output));
        }
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "nothing was begun");
}

#[test]
fn a_failure_is_the_last_json_line() {
    let folder = tempfile::tempdir().unwrap();
    let output = run(folder.path(), ["ingest", "-i", "missing", "--json"]);
    let error: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&error["event"], &error["exit_code"]), (&"error".into(), &3.into()));
    assert_listed(&help("ingest"), &error);
    assert!(error["message"].as_str().unwrap().contains("missing"));
}

#[test]
fn help_shows_examples_and_exit_codes() {
    let folder = tempfile::tempdir().unwrap();
    let help = ok(folder.path(), ["--help"]);
    assert!(help.contains("Examples:") && help.contains("Exit codes:"));
    for command in ["gen-key", "ingest", "publish", "serve", "subscribe", "demo"] {
        assert!(ok(folder.path(), [command, "--help"]).contains("Examples:"), "{command}");
    }
}

#[test]
fn a_node_tells_its_status_with_how_late_its_dht_operations_are() {
    let folder = tempfile::tempdir().unwrap();
    let node = serve(folder.path(), "data", &[]);
    let status = node.event("status");
    assert_eq!((&status["dht_lag_secs"], &status["dht_late"]), (&0.into(), &0.into()), "{status}");
    node.stop();
}

#[test]
fn commands_go_to_the_node_that_runs_on_the_folder() {
    let folder = tempfile::tempdir().unwrap();
    ok(folder.path(), ["gen-key"]);
    fs::write(folder.path().join("note"), "hello").unwrap();
    let hub = serve(folder.path(), "hub", &[]);
    let node = serve(folder.path(), "held", &[&hub.ready()]);
    node.ready();
    // Blobs are content-addressed: adding some needs nobody's leave.
    ok(folder.path(), ["ingest", "-i", "note", "-d", "held", "-o", "note.json"]);
    let published = ok_json(folder.path(), ["publish", "-i", "note.json", "-d", "held", "--title", "Notes"]);
    let uri = published["uri"].as_str().unwrap();
    ok(folder.path(), ["subscribe", uri, "-d", "held", "-o", "out", "--once"]);
    assert_eq!(fs::read(folder.path().join("out/note")).unwrap(), b"hello");
    let listed = ok_json(folder.path(), ["ls", "-d", "held"]);
    assert_eq!((&listed["total"], &listed["subscriptions"][0]["title"]), (&1.into(), &"Notes".into()));
    ok(folder.path(), ["rm", uri, "-d", "held"]);
    assert_eq!(ok_json(folder.path(), ["status", "-d", "held"])["channels"]["all"], 0);
    let another = run(folder.path(), ["serve", "-d", "held", "-H", "127.0.0.1", "-T", "0", "-P", "0"]);
    assert_eq!(another.status.code(), Some(6), "{}", stderr(&another));
    assert!(stderr(&another).contains("held"), "{}", stderr(&another));
    ok(folder.path(), ["shutdown", "-d", "held"]);
    let gone = run(folder.path(), ["shutdown", "-d", "held"]);
    assert_eq!(gone.status.code(), Some(3), "{}", stderr(&gone));
    hub.stop();
}

#[cfg(target_os = "linux")]
#[test]
fn a_node_has_all_the_files_that_the_system_allows() {
    let folder = tempfile::tempdir().unwrap();
    let mut shell = Command::new("sh");
    let binary = env!("CARGO_BIN_EXE_megatorrent");
    let script = format!("ulimit -Sn 64; exec {binary} serve -d data -H 127.0.0.1 -T 0 --dht off --json");
    let mut node =
        shell.current_dir(folder.path()).args(["-c", &script]).stdout(Stdio::piped()).spawn().unwrap();
    let mut ready = String::new();
    BufReader::new(node.stdout.take().unwrap()).read_line(&mut ready).unwrap();
    let limits = fs::read_to_string(format!("/proc/{}/limits", node.id())).unwrap();
    node.kill().unwrap();
    node.wait().unwrap();
    let files: Vec<&str> =
        limits.lines().find(|line| line.starts_with("Max open files")).unwrap().split_whitespace().collect();
    assert_eq!(files[3], files[4], "{limits}");
}

#[cfg(unix)]
#[test]
fn serve_ends_cleanly_on_both_signals() {
    for signal in ["INT", "TERM"] {
        let folder = tempfile::tempdir().unwrap();
        let mut node = serve(folder.path(), "data", &[]);
        node.ready();
        node.signal(signal);
        node.event("stopped");
        assert_eq!(node.wait().code(), Some(0));
        // What it held is free again.
        let again = serve(folder.path(), "data", &[]);
        again.ready();
        again.stop();
    }
}

#[test]
fn settings_may_come_from_the_environment() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("note"), "hello").unwrap();
    let output = megatorrent_in(folder.path())
        .env("MEGATORRENT_DATA", "elsewhere")
        .args(["ingest", "-i", "note"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(fs::read_dir(folder.path().join("elsewhere/held")).unwrap().count(), 1);
}

#[cfg(unix)]
#[test]
fn an_interrupted_ingest_says_so() {
    let folder = tempfile::tempdir().unwrap();
    // The input neither brings anything nor ends.
    let mut child = megatorrent_in(folder.path())
        .args(["ingest", "-i", "-", "--name", "endless", "-d", "data"])
        .stdin(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let _input = child.stdin.take(); // `wait` would close it
    // By then it has taken over the signals.
    let deadline = Instant::now() + PATIENCE;
    while !folder.path().join("data").join("blobs").exists() {
        assert!(Instant::now() < deadline);
        thread::sleep(Duration::from_millis(5));
    }
    assert!(
        Command::new("sh").args(["-c", &format!("kill -INT {}", child.id())]).status().unwrap().success()
    );
    assert_eq!(child.wait().unwrap().code(), Some(130));
}

/// Everything below a folder, by its path in it.
fn all_below(folder: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(&next).unwrap().map(Result::unwrap) {
            found.insert(entry.path().strip_prefix(folder).unwrap().display().to_string());
            if entry.file_type().unwrap().is_dir() {
                folders.push(entry.path());
            }
        }
    }
    found
}

#[test]
fn commands_anywhere_have_one_home() {
    let folder = tempfile::tempdir().unwrap();
    let (here, there, home) =
        (folder.path().join("here"), folder.path().join("there"), folder.path().join("user"));
    for folder in [&here, &there, &home] {
        fs::create_dir(folder).unwrap();
    }
    fs::write(here.join("note"), "hello").unwrap();
    let run = |at: &Path, args: &[&str], data_home: Option<&str>| {
        let mut command = megatorrent_in(&home);
        command.current_dir(at).args(args).env_remove("XDG_DATA_HOME");
        let output = command.envs(data_home.map(|it| ("XDG_DATA_HOME", it))).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{args:?}: {}", stderr(&output));
        String::from_utf8(output.stdout).unwrap()
    };
    run(&here, &["gen-key"], None);
    run(&here, &["ingest", "-i", "note", "-o", "note.json"], None);
    // A relative path there counts for nothing.
    let status: Value = serde_json::from_str(&run(&there, &["status", "--json"], Some("data"))).unwrap();
    let node = home.join(".local/share/megatorrent");
    assert_eq!(status["home"], node.display().to_string());
    assert!(fs::read_dir(node.join("held")).unwrap().count() == 1);
    assert!(all_below(&here).iter().eq(["identity.json", "note", "note.json"]));
    assert!(all_below(&there).is_empty());
    let made = all_below(&home);
    assert!(made.iter().all(|path| path.starts_with(".local")), "{made:?}");

    let elsewhere = folder.path().join("data");
    run(&there, &["ls"], Some(elsewhere.to_str().unwrap()));
    assert!(elsewhere.join("megatorrent/store.id").exists());
    let homeless = megatorrent().current_dir(&there).arg("status").output().unwrap();
    assert_eq!(homeless.status.code(), Some(2));
    assert!(stderr(&homeless).contains("-d"), "{}", stderr(&homeless));
    assert!(all_below(&there).is_empty());
}

#[test]
fn files_without_a_folder_go_to_one_of_the_channels_title_in_the_home() {
    let folder = tempfile::tempdir().unwrap();
    ok(folder.path(), ["gen-key"]);
    fs::write(folder.path().join("note"), "hello").unwrap();
    let hub = serve(folder.path(), "hub", &[]);
    let address = hub.ready();
    let author = serve(folder.path(), "author", &[&address]);
    author.ready();
    ok(folder.path(), ["ingest", "-i", "note", "-d", "author", "-o", "note.json"]);
    let publish = |title: &str| {
        ok_json(folder.path(), ["publish", "-i", "note.json", "-d", "author", "--title", title])["uri"]
            .clone()
    };
    let uri = publish("Notes/of: mine");
    let subscribe = |extra: &[&str]| {
        let args = ["subscribe", uri.as_str().unwrap(), "--once", "-b", &address, "-H", "127.0.0.1"];
        ok(folder.path(), args.iter().chain(extra))
    };
    subscribe(&[]);
    let downloads = folder.path().join("share/megatorrent/downloads");
    assert!(all_below(&downloads).iter().eq(["Notes_of_ mine", "Notes_of_ mine/note"]));
    let listed = ok_json(folder.path(), ["ls"]);
    let output = downloads.join("Notes_of_ mine").display().to_string();
    assert_eq!(listed["subscriptions"][0]["output"], output);
    // A home that is named by a part of its path is found again from everywhere.
    subscribe(&["-d", "reader"]);
    let listed = ok_json(folder.path(), ["ls", "-d", "reader"]);
    let output = folder.path().join("reader/downloads/Notes_of_ mine").display().to_string();
    assert_eq!(listed["subscriptions"][0]["output"], output);
    // It stays there, whatever the channel is called later.
    publish("Other");
    subscribe(&[]);
    assert!(all_below(&downloads).iter().eq(["Notes_of_ mine", "Notes_of_ mine/note"]));
    subscribe(&["-d", "other", "-o", "out"]);
    assert!(!folder.path().join("other/downloads").exists() && folder.path().join("out/note").exists());
    ok(folder.path(), ["publish", "-i", "note.json", "-d", "author"]);
    subscribe(&["-d", "untitled"]);
    let key = uri.as_str().unwrap().strip_prefix("megatorrent://").unwrap();
    assert!(folder.path().join("untitled/downloads").join(key).join("note").exists());
    author.stop();
    hub.stop();
}

#[test]
#[expect(clippy::disallowed_methods, reason = "plays another program")]
fn a_node_keeps_the_port_that_it_chose_at_its_first_run() {
    let folder = tempfile::tempdir().unwrap();
    let start = |extra: &[&str]| {
        let args = ["serve", "-d", "data", "-H", "127.0.0.1", "--dht", "off", "-P", "0"];
        Running::start(folder.path(), args.iter().chain(extra))
    };
    let port = |node: &Running| node.ready().parse::<SocketAddr>().unwrap().port();
    let node = start(&[]);
    let kept = port(&node);
    node.stop();
    let other = start(&["-T", "0"]);
    assert_ne!(port(&other), kept);
    other.stop();
    let again = start(&[]);
    assert_eq!(port(&again), kept);
    again.stop();
    let _taken = TcpListener::bind(("127.0.0.1", kept)).unwrap();
    let refused = run(folder.path(), ["serve", "-d", "data", "-H", "127.0.0.1", "--dht", "off", "-P", "0"]);
    assert_eq!(refused.status.code(), Some(8));
    let said = stderr(&refused);
    assert!(said.contains(&kept.to_string()) && said.contains("stop it") && said.contains("-T"), "{said}");
}

#[test]
#[expect(clippy::disallowed_methods, reason = "plays another program")]
fn a_port_for_peers_or_the_dht_that_is_given_and_taken_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let (tcp_port, udp_port) = (tcp.local_addr().unwrap().port(), udp.local_addr().unwrap().port());
    for (option, port) in [("-T", tcp_port), ("-D", udp_port)] {
        let args = ["serve", "-d", "data", "-H", "127.0.0.1", "-P", "0", "--dht", "server"];
        let port = port.to_string();
        let refused = run(folder.path(), args.into_iter().chain([option, &port]));
        assert_eq!(refused.status.code(), Some(8), "{option}: {}", stderr(&refused));
        assert!(stderr(&refused).contains(&port), "{}", stderr(&refused));
    }
}

#[test]
fn a_folder_on_which_no_node_ran_has_no_token_and_says_how_it_gets_one() {
    let folder = tempfile::tempdir().unwrap();
    let output = run(folder.path(), ["token", "show"]);
    assert_eq!(output.status.code(), Some(3));
    assert!(stderr(&output).contains("megatorrent serve"), "{}", stderr(&output));
}

#[test]
fn status_says_whether_a_node_runs_and_which_states_channels_are_in() {
    let folder = tempfile::tempdir().unwrap();
    let uri = ok_json(folder.path(), ["gen-key"])["public_uri"].as_str().unwrap().to_owned();
    ok(folder.path(), ["add", &uri, "-d", "node"]);
    let alone = ok(folder.path(), ["status", "-d", "node"]);
    assert!(alone.contains("node    none runs on ") && alone.contains("1 channel: 1 looked for"), "{alone}");
    let node = serve(folder.path(), "node", &[]);
    node.ready();
    ok(folder.path(), ["pause", "-d", "node"]);
    let beside = ok(folder.path(), ["status", "-d", "node"]);
    assert!(beside.contains("node    runs on ") && beside.contains("1 channel: 1 paused"), "{beside}");
    node.stop();
}

#[test]
#[expect(clippy::disallowed_methods, reason = "plays another program")]
fn a_port_for_the_api_that_is_given_and_taken_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let refused = run(
        folder.path(),
        ["serve", "-d", "data", "-H", "127.0.0.1", "-T", "0", "--dht", "off", "-P", &port],
    );
    assert_eq!(refused.status.code(), Some(8));
    assert!(stderr(&refused).contains(&port) && stderr(&refused).contains("-P"), "{}", stderr(&refused));
    // Without one any will do, be 3000 free or not.
    let _usual = TcpListener::bind("127.0.0.1:3000");
    let node = serve(folder.path(), "data", &[]);
    node.ready();
    let status = ok_json(folder.path(), ["status", "-d", "data"]);
    assert!(!status["api"].as_str().unwrap().ends_with(":3000"), "{status}");
    ok(folder.path(), ["healthz", status["api"].as_str().unwrap()]);
    node.stop();
}
