//! The stream of events.

use super::*;

/// Events that the log keeps (`service::log`).
const EVENTS_KEPT: usize = 10_000;

#[test]
fn a_stream_begins_with_a_beat_and_tells_what_comes_after_a_number() {
    run(async |rig| {
        for text in ["a", "b", "c"] {
            rig.backend.push(text);
        }
        let mut stream = rig.begin("GET /api/events?after=1", "").await;
        let text = read_until(&mut stream, "event: beat").await;
        let head = text.to_lowercase();
        assert!(head.contains("content-type: text/event-stream") && head.contains("cache-control: no-store"));
        assert!(head.contains("x-accel-buffering: no"));
        assert!(!text.contains(r#""text":"a""#) && text.contains("id: 2\nevent: warning\ndata: {"), "{text}");
        assert!(text.contains(r#""text":"c""#));
        rig.backend.push("d");
        let text = read_until(&mut stream, "\"d\"").await;
        assert!(text.contains("id: 4\n"));
        // A change of what the beat says is told with the event that tells it.
        rig.backend.beats.set(1);
        rig.backend.push("e");
        read_until(&mut stream, r#""change":1"#).await;
    });
}

#[test]
fn without_a_number_a_stream_begins_here_and_a_header_goes_before_the_query() {
    run(async |rig| {
        rig.backend.push("old");
        let mut stream = rig.begin("GET /api/events", "").await;
        let text = read_until(&mut stream, "beat").await;
        rig.backend.push("new");
        let more = read_until(&mut stream, "\"new\"").await;
        assert!(!(text + &more).contains("\"old\""));
        let mut stream = rig.begin("GET /api/events?after=0 HTTP/1.1\r\nLast-Event-ID: 1\r\nX:", "").await;
        let text = read_until(&mut stream, "\"new\"").await;
        assert!(!text.contains("\"old\""));
        for bad in ["GET /api/events?after=-1", "GET /api/events?after=x"] {
            assert_eq!(rig.ask(bad, &[&rig.bearer(Scope::Read)], "").await.status, 400);
        }
    });
}

#[test]
fn a_stream_ends_with_the_login_that_it_hangs_on() {
    run(async |rig| {
        let mut stream = rig.begin("GET /api/events", "").await;
        read_until(&mut stream, "beat").await;
        rig.access.rotate().expect("it rotates");
        read_until(&mut stream, "0\r\n\r\n").await;
    });
}

#[test]
fn a_reader_that_comes_too_late_is_told_how_much_it_missed() {
    run(async |rig| {
        for _ in 0..EVENTS_KEPT + 5 {
            rig.backend.push("");
        }
        let mut stream = rig.begin("GET /api/events?after=2", "").await;
        let text = read_until(&mut stream, "event: warning").await;
        assert!(text.contains("id: 5\nevent: missed\ndata: {\"missed\":3}"), "{text}");
    });
}
