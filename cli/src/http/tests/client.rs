//! The client, on the control socket.

use super::*;
use crate::api::{GetLimits, GetStatus, Limits, Shutdown};
use crate::exit::{Exit, Failure};
use crate::http::client::{Client, Notice};

#[test]
fn a_client_calls_and_gets_typed_answers_and_errors() {
    run(async |rig| {
        let client = Client::find(rig.dir.path()).await.expect("it looks").expect("a node is there");
        let limits = client.call(&GetLimits {}).await.expect("an answer");
        assert_eq!(limits, Limits { upload_bytes_per_sec: Some(7), download_bytes_per_sec: None });
        let error = client.call(&GetStatus {}).await.expect_err("the fake has no such method");
        assert_eq!(Failure::from(error).exit, Exit::Usage);
        // This user may do everything there.
        let error = client.call(&Shutdown {}).await.expect_err("the fake has no such method");
        assert_eq!(error.code, -32_601);
    });
}

#[test]
fn a_client_follows_events() {
    run(async |rig| {
        rig.backend.push("a");
        let client = Client::find(rig.dir.path()).await.expect("it looks").expect("a node is there");
        let mut notices = client.events(Some(0)).await.expect("a stream");
        let mut next = async || notices.next().await.expect("more").expect("an event");
        let first = next().await;
        assert!(
            matches!(&first, Notice::Event(event) if event.text == "a" && event.number == 1),
            "{first:?}"
        );
        assert!(matches!(next().await, Notice::Beat(beat) if beat["mode"] == "direct"));
        rig.backend.push("b");
        assert!(matches!(next().await, Notice::Event(event) if event.text == "b"));
        // The stream outlives a rotation: no token was needed.
        rig.access.rotate().expect("it rotates");
        rig.backend.push("c");
        assert!(matches!(next().await, Notice::Event(event) if event.text == "c"));
        rig.server.take().expect("it runs").close().await;
        assert!(notices.next().await.is_none());
    });
}

#[test]
fn a_client_hears_what_it_missed() {
    run(async |rig| {
        for _ in 0..10_003 {
            rig.backend.push("");
        }
        let client = Client::find(rig.dir.path()).await.expect("it looks").expect("a node is there");
        let mut notices = client.events(Some(1)).await.expect("a stream");
        let first = notices.next().await.expect("more").expect("a notice");
        assert!(matches!(first, Notice::Missed(2)), "{first:?}");
    });
}

#[test]
fn no_node_is_no_client() {
    let dir = tempfile::tempdir().expect("a folder");
    let found = smol::block_on(Client::find(dir.path())).expect("it looks");
    assert!(found.is_none());
}
