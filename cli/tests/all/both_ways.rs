//! Every command on a home says the same, with the same exit code, beside a node that runs on it and without one.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall fail where it stands")]

use std::fs;

use crate::support::both::{Home, OTHERS, both_ways};
use crate::support::{MIB, ok, ok_json};
use serde_json::Value;

/// Publishes a file from the home; its channel's URI.
fn publish(home: &Home) -> String {
    home.write("film", MIB + 100);
    home.run(0, ["ingest", "-i", "film", "-o", "film.json"]);
    let args = ["publish", "-i", "film.json", "--title", "Films", "-b", home.hub(), "--dht", "server"];
    home.run(0, args).trim().to_owned()
}

/// A channel that somebody else has published, of files with these names and lengths; its URI.
fn others(home: &Home, files: &[(&str, usize)]) -> String {
    let mut args: Vec<String> =
        ["publish", "-d", "author", "-k", OTHERS, "--title", "Others", "-i"].map(Into::into).to_vec();
    for (name, len) in files {
        home.write(name, *len);
        let entry = format!("{name}.json");
        ok(home.path(), ["ingest", "-i", name, "-k", OTHERS, "-d", "author", "-o", &entry]);
        args.push(entry);
    }
    ok_json(home.path(), &args)["uri"].as_str().unwrap().to_owned()
}

#[test]
fn ingest_and_publish() {
    both_ways(|home| {
        home.write("film", 2 * MIB + 100);
        home.write("note", 5);
        home.run(0, ["ingest", "-i", "film", "-o", "film.json"]);
        home.run(1, ["ingest", "-i", "film", "-o", "film.json"]);
        home.run(0, ["ingest", "-i", "film", "-o", "film.json", "--force", "--json"]);
        home.run(0, ["ingest", "-i", "note", "--v5"]);
        home.run_with_input(0, ["ingest", "-i", "-", "--name", "piped", "--json"], b"from stdin");
        home.run(3, ["ingest", "-i", "none"]);
        home.run(2, ["ingest", "-i", "-"]);
        let network = ["--dht", "server", "-b", home.hub()];
        let publish = |code, args: &[&str]| {
            home.run(code, ["publish", "-i", "film.json"].iter().chain(args).chain(&network))
        };
        publish(0, &["--title", "Films"]);
        publish(0, &["--title", "Films", "--private"]);
        publish(0, &["--title", "Films", "--json", "--no-ids"]);
        publish(3, &["-k", "none.json"]);
        publish(2, &["-s", &"5d".repeat(32)]);
        fs::write(home.join("broken.json"), "{}").unwrap();
        home.run(5, ["publish", "-i", "broken.json"].iter().chain(&network));
        home.run(3, ["publish", "-i", "none.json", "--json"].iter().chain(&network));
        home.run(5, ["publish", "-i", "film.json", "-k", "broken.json"].iter().chain(&network));
    });
}

#[test]
fn subscribe() {
    both_ways(|home| {
        let uri = others(home, &[("note", 5), ("film", MIB + 100)]);
        let subscribe = |code, args: &[&str]| {
            home.run_for_news(code, ["subscribe", &uri, "--once"].iter().chain(args).chain(&home.network()))
        };
        subscribe(0, &["-o", "out"]);
        assert_eq!(fs::read(home.join("out/film")).unwrap(), fs::read(home.join("film")).unwrap());
        subscribe(0, &["-o", "out", "--json"]);
        fs::remove_file(home.join("out/note")).unwrap();
        subscribe(0, &["-o", "out"]);
        assert!(!home.join("out/note").exists());
        fs::create_dir(home.join("mine")).unwrap();
        fs::write(home.join("mine/note"), "mine").unwrap();
        subscribe(1, &["-o", "mine"]);
        let keys: Value =
            serde_json::from_str(&fs::read_to_string(home.join("identity.json")).unwrap()).unwrap();
        let silent = format!("megatorrent://{}", keys["publicKey"].as_str().unwrap());
        let args = ["subscribe", &silent, "--once", "--timeout", "1", "-o", "silent"];
        home.run(3, args.iter().chain(&home.network()));
        home.run(2, ["subscribe", "http://example.org"]);
        home.run(2, ["subscribe", &uri, "-s", &"5d".repeat(32)]);
    });
}

#[test]
fn verify() {
    both_ways(|home| {
        let uri = others(home, &[("note", 5), ("film", MIB + 100), ("long", 2 * MIB)]);
        home.run_for_news(0, ["subscribe", &uri, "--once", "-o", "out"].iter().chain(&home.network()));
        home.run_for_news(0, ["verify"]);
        home.run_for_news(0, ["verify", "--json"]);
        fs::remove_file(home.join("out/note")).unwrap();
        home.run_for_news(3, ["verify"]);
        fs::write(home.join("out/film"), "edited").unwrap();
        home.run_for_news(5, ["verify", "--json"]);
        home.run_for_news(0, ["verify", "--repair"].iter().chain(&home.network()));
        for name in ["note", "film", "long"] {
            let (got, sent) = (home.join("out").join(name), home.join(name));
            assert_eq!(fs::read(got).unwrap(), fs::read(sent).unwrap());
        }
        assert_eq!(fs::read(home.join("out/film.edited")).unwrap(), b"edited");
        home.run_for_news(0, ["verify"]);
        home.run_for_news(0, ["verify", "--repair"].iter().chain(&home.network()));
    });
}

#[test]
fn channels() {
    both_ways(|home| {
        let uri = publish(home);
        home.run(0, ["ls"]);
        let key = uri.strip_prefix("megatorrent://").unwrap();
        home.run(0, ["pause", key]);
        home.run(0, ["ls", "--json"]);
        home.run_for_shape(0, ["pause", "--json"]);
        home.run(0, ["resume", &uri]);
        home.run(0, ["resume"]);
        home.run(0, ["ls", "Fil"]);
        home.run(0, ["ls", "Nothing"]);
        home.run(0, ["rm", key]);
        home.run(3, ["rm", key]);
        home.run(3, ["pause", key, "--json"]);
        home.run(2, ["rm", "films"]);
        home.run(0, ["ls"]);
        home.run(0, ["add", &uri]);
        home.run(0, ["add", &uri, "-o", "out"]);
        home.run_for_shape(0, ["add", &uri, "--json", "-o", "out"]);
        home.run_with_input(0, ["add", "-", "-o", "out"], uri.as_bytes());
        home.run(2, ["add", "http://example.org"]);
        home.run_for_shape(0, ["rm", &uri, "--json"]);
    });
}

#[test]
fn where_there_is_nothing_no_line_is_printed() {
    both_ways(|home| {
        for list in [&["ls"][..], &["peers"], &["bans"], &["identity", "list"]] {
            assert_eq!(home.run(0, list), "");
        }
        home.run(0, ["ls", "--json"]);
        home.run(0, ["identity", "list", "--json"]);
    });
}

#[test]
fn the_node() {
    both_ways(|home| {
        home.run_for_shape(0, ["status", "--json"]);
        home.run_for_shape(0, ["doctor", "--json"]);
        home.run_for_shape(0, ["peers", "--json"]);
        home.run(0, ["bans"]);
        home.run(0, ["bans", "--json"]);
        home.run(0, ["limit"]);
        home.run(0, ["limit", "--upload", "2M"]);
        home.run(0, ["limit", "--json"]);
        home.run(0, ["limit", "--upload", "none", "--download", "5k"]);
        home.run(2, ["limit", "--upload", "5"]);
        home.run(0, ["settings", "whole", "true"]);
        home.run(0, ["settings", "gateway", "false", "--json"]);
        home.run(0, ["settings"]);
        home.run(2, ["settings", "whole"]);
        home.run(0, ["token", "rotate"]);
        home.run_for_shape(0, ["token", "show", "--json"]);
        home.run_for_shape(0, ["token", "show", "--scope", "read", "--json"]);
    });
}

#[test]
fn identities() {
    both_ways(|home| {
        fs::write(home.join("passphrase"), "correct horse\n").unwrap();
        fs::write(home.join("wrong"), "battery staple\n").unwrap();
        home.run(0, ["identity", "list"]);
        home.run(0, ["identity", "import", "identity.json"]);
        let listed: Value = serde_json::from_str(&home.run(0, ["identity", "list", "--json"])).unwrap();
        let key = listed["identities"][0]["channel"].as_str().unwrap();
        home.run(0, ["identity", "export", key, "backup", "-p", "passphrase"]);
        home.run(1, ["identity", "export", key, "backup", "-p", "passphrase"]);
        home.run_with_input(1, ["identity", "import", "backup", "-p", "-"], b"correct horse\n");
        home.run(6, ["identity", "import", "backup", "-p", "wrong"]);
        home.run(3, ["identity", "import", "none"]);
        home.run(3, ["identity", "export", &"a1".repeat(32), "other", "-p", "passphrase"]);
        home.run(2, ["identity", "export", "films", "other", "-p", "passphrase"]);
        home.run_for_shape(0, ["identity", "new", "--json"]);
    });
}
