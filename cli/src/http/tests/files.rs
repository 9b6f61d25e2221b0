//! Files that links lead to.

use super::*;
use crate::http::limits::FILES_MAX;

const TEXT: &str = "0123456789";

#[test]
fn a_link_serves_its_file_whole_or_in_part_without_a_login() {
    run(async |rig| {
        std::fs::write(&rig.backend.film, TEXT).expect("it is written");
        let whole = rig.ask("GET /files/film.mp4", &["Sec-Fetch-Site: cross-site"], "").await;
        assert_eq!((whole.status, whole.body.as_str()), (200, TEXT));
        assert_eq!(
            (whole.header("content-type"), whole.header("accept-ranges")),
            (Some("video/mp4"), Some("bytes"))
        );
        assert!(whole.header("content-security-policy").expect("one").ends_with("sandbox"));
        let tag = whole.header("etag").expect("a tag").to_owned();
        for (range, status, body, content_range) in [
            ("bytes=2-4", 206, "234", Some("bytes 2-4/10")),
            ("bytes=-1", 206, "9", Some("bytes 9-9/10")),
            ("bytes=10-", 416, "", Some("bytes */10")),
            ("bytes=0-1,3-4", 200, TEXT, None),
        ] {
            let reply = rig.ask("GET /files/film.mp4", &[&format!("Range: {range}")], "").await;
            assert_eq!((reply.status, reply.body.as_str()), (status, body), "{range}");
            assert_eq!(reply.header("content-range"), content_range, "{range}");
        }
        for (tag, status) in [(tag.as_str(), 206), ("\"another\"", 200)] {
            let headers = ["Range: bytes=1-1", &format!("If-Range: {tag}")];
            assert_eq!(rig.ask("GET /files/film.mp4", &headers, "").await.status, status);
        }
        let head = rig.ask("HEAD /files/film.mp4", &[], "").await;
        assert_eq!((head.status, head.body.as_str(), head.header("content-length")), (200, "", Some("10")));
        let page = rig.ask("GET /files/film.html", &[], "").await;
        assert_eq!(page.header("content-type"), Some("application/octet-stream"));
        assert_eq!(page.header("content-disposition"), Some("attachment; filename*=utf-8''film.html"));
        assert_eq!(rig.ask("GET /files/other", &[], "").await.status, 404);
        assert_eq!(rig.ask("GET /files/film", &["Host: evil.example"], "").await.status, 421);
        assert_eq!(rig.ask("POST /files/film", &[], "").await.status, 405);
        std::fs::remove_file(&rig.backend.film).expect("it is removed");
        assert_eq!(rig.ask("GET /files/film.mp4", &[], "").await.status, 404);
        std::os::unix::fs::symlink("/etc/passwd", &rig.backend.film).expect("it is made");
        assert_eq!(rig.ask("GET /files/film.mp4", &[], "").await.status, 404);
    });
}

#[test]
fn readers_of_files_are_bounded_and_keep_nobody_out() {
    run(async |rig| {
        std::fs::write(&rig.backend.film, "x".repeat(32 << 20)).expect("it is written");
        let mut open = Vec::new();
        for _ in 0..FILES_MAX {
            let mut stream = rig.begin("GET /files/film.mp4", "").await;
            read_until(&mut stream, "\r\n\r\n").await;
            open.push(stream);
        }
        let more = rig.ask("GET /files/film.mp4", &[], "").await;
        assert_eq!((more.status, more.header("retry-after")), (503, Some("1")));
        assert_eq!(rig.call(r#"{"method":"get_data"}"#).await.status, 200);
        drop(open);
        while rig.ask("GET /files/film.mp4", &["Range: bytes=0-0"], "").await.status != 206 {
            future::yield_now().await;
        }
    });
}
