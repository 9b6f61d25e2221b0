//! Who may ask.

use super::*;

const GET_DATA: &str = r#"{"method":"get_data"}"#;
const JSON: &str = "Content-Type: application/json";

#[test]
fn health_needs_no_login_and_tells_nothing() {
    run(async |rig| {
        for line in ["GET /healthz", "GET /readyz", "HEAD /healthz"] {
            let reply = rig.ask(line, &[], "").await;
            assert_eq!((reply.status, reply.body.as_str()), (204, ""), "{line}");
        }
    });
}

#[test]
fn each_answer_says_what_a_browser_must_not_do() {
    run(async |rig| {
        let bearer = rig.bearer(Scope::Read);
        for (line, status) in [("GET /healthz", 204), ("GET /nothing", 404), ("GET /metrics", 200)] {
            let reply = rig.ask(line, &[&bearer], "").await;
            assert_eq!(reply.status, status);
            let policy = reply.header("content-security-policy").expect("it is there");
            assert!(policy.starts_with("default-src 'none'"));
            assert_eq!(reply.header("x-content-type-options"), Some("nosniff"));
            assert_eq!(reply.header("referrer-policy"), Some("no-referrer"));
            assert_eq!(reply.header("cache-control"), Some("no-store"));
            assert!(!reply.head.contains("access-control-"));
        }
    });
}

#[test]
fn a_name_that_is_not_ours_is_refused_whoever_asks() {
    run(async |rig| {
        let bearer = rig.bearer(Scope::Admin);
        for host in ["Host: evil.example", "Host: evil.example:3000", "Host:", "Host: 192.0.2.7"] {
            assert_eq!(rig.ask("GET /metrics", &[host, &bearer], "").await.status, 421, "{host}");
            assert_eq!(rig.ask("GET /healthz", &[host], "").await.status, 421, "{host}");
        }
        let twice = ["Host: localhost", "Host: evil.example", &bearer];
        assert_eq!(rig.ask("GET /metrics", &twice, "").await.status, 400);
        let absolute = rig.ask("GET http://evil.example/metrics", &["Host: localhost", &bearer], "").await;
        assert_eq!(absolute.status, 421);
        let none = Reply::parse(&rig.send(b"GET /healthz HTTP/1.0\r\n\r\n").await);
        assert_eq!(none.status, 421);
        for host in ["Host: localhost:1", "Host: [::1]", "Host: node.example"] {
            assert_eq!(rig.ask("GET /metrics", &[host, &bearer], "").await.status, 200, "{host}");
        }
    });
}

#[test]
fn tokens_decide_what_may_be_done_until_they_are_rotated() {
    run(async |rig| {
        let missing = rig.ask("POST /api/rpc", &[JSON], GET_DATA).await;
        assert_eq!((missing.status, missing.header("www-authenticate")), (401, Some("bearer")));
        assert_eq!(missing.json()["error"]["data"]["exit_code"], 6);
        let wrong = format!("Authorization: Bearer mt_{}", "A".repeat(43));
        for wrong in [&wrong, "Authorization: Bearer", "Authorization: Basic dTpw", "Authorization: \u{e9}"] {
            let status = rig.ask("POST /api/rpc", &[JSON, wrong], GET_DATA).await.status;
            assert!(status == 401 || status == 400, "{wrong}: {status}");
        }
        for path in ["GET /metrics", "GET /api/events", "GET /api/openrpc.json"] {
            assert_eq!(rig.ask(path, &[], "").await.status, 401, "{path}");
        }
        for scope in [Scope::Read, Scope::Control, Scope::Admin] {
            assert_eq!(rig.call_as(scope, GET_DATA).await.json(), json!({ "result": ["hello", 5] }));
        }
        let refused = rig.call_as(Scope::Control, r#"{"method":"shutdown"}"#).await;
        assert_eq!(refused.json()["error"]["code"], -32_006);
        let old = rig.bearer(Scope::Admin);
        rig.access.rotate().expect("it rotates");
        assert_eq!(rig.ask("POST /api/rpc", &[JSON, &old], GET_DATA).await.status, 401);
        assert_eq!(rig.call(GET_DATA).await.status, 200);
    });
}

#[test]
fn another_origin_is_refused_with_a_good_token_too() {
    run(async |rig| {
        let bearer = rig.bearer(Scope::Admin);
        let own = format!("Origin: http://{}", rig.addr);
        for origin in [
            "Origin: http://evil.example",
            "Origin: null",
            "Origin: http://localhost:1",
            "Sec-Fetch-Site: cross-site",
            "Sec-Fetch-Site: same-site",
        ] {
            assert_eq!(
                rig.ask("POST /api/rpc", &[JSON, &bearer, origin], GET_DATA).await.status,
                403,
                "{origin}"
            );
            assert_eq!(rig.ask("GET /api/events", &[&bearer, origin], "").await.status, 403, "{origin}");
            assert_eq!(rig.ask("GET /healthz", &[origin], "").await.status, 403, "{origin}");
        }
        let same = [JSON, &bearer, &own, "Sec-Fetch-Site: same-origin"];
        assert_eq!(rig.ask("POST /api/rpc", &same, GET_DATA).await.status, 200);
        let proxied = [JSON, &bearer, "Host: node.example", "Origin: https://node.example"];
        assert_eq!(rig.ask("POST /api/rpc", &proxied, GET_DATA).await.status, 200);
        // What a browser asks before it lets a page of another origin send JSON.
        let preflight = ["Origin: http://evil.example", "Access-Control-Request-Method: POST"];
        let reply = rig.ask("OPTIONS /api/rpc", &preflight, "").await;
        assert!(reply.status == 401 && !reply.head.contains("access-control-"));
    });
}

#[test]
fn a_login_link_works_once_and_its_cookie_only_from_our_own_page() {
    run(async |rig| {
        let link = rig.access.login_link().expect("a link");
        let request = format!("GET /{}", link.path);
        let reply = rig.ask(&request, &["Sec-Fetch-Site: none"], "").await;
        assert_eq!((reply.status, reply.header("location")), (303, Some("./")));
        let cookie = reply.header("set-cookie").expect("a cookie");
        assert!(cookie.contains("; httponly; samesite=strict") && !cookie.contains("path="), "{cookie}");
        assert_eq!(rig.ask(&request, &[], "").await.status, 403);
        // Its value has capital letters.
        let cookie = rig.access.redeem(rig.access.login_link().expect("a link").path.split_at(11).1);
        let cookie =
            format!("Cookie: a=b; {}", cookie.expect("it is good").split(';').next().expect("a pair"));
        let own = format!("Origin: http://{}", rig.addr);
        assert_eq!(rig.ask("POST /api/rpc", &[JSON, &cookie, &own], GET_DATA).await.status, 200);
        assert_eq!(rig.ask("GET /metrics", &[&cookie], "").await.status, 200);
        for other in ["Origin: http://evil.example", "Accept: */*"] {
            assert_eq!(
                rig.ask("POST /api/rpc", &[JSON, &cookie, other], GET_DATA).await.status,
                403,
                "{other}"
            );
        }
        rig.access.rotate().expect("it rotates");
        assert_eq!(rig.ask("GET /metrics", &[&cookie], "").await.status, 401);
    });
}

#[test]
fn what_is_wrong_first_is_said() {
    run(async |rig| {
        let bearer = rig.bearer(Scope::Admin);
        let (host, token, origin) =
            ("Host: evil.example", "Authorization: Bearer x", "Origin: http://evil.example");
        let ask = async |line, headers: &[&str]| rig.ask(line, headers, "{").await.status;
        assert_eq!(ask("PUT /api/rpc", &[host, token, origin]).await, 421);
        assert_eq!(ask("PUT /api/rpc", &[token, origin]).await, 401);
        assert_eq!(ask("PUT /api/rpc", &[&bearer, origin]).await, 403);
        let reply = rig.ask("PUT /api/rpc", &[&bearer], "{").await;
        assert_eq!((reply.status, reply.header("allow")), (405, Some("post")));
        for other in
            ["Content-Type: text/plain", "Content-Type: application/x-www-form-urlencoded", "Accept: */*"]
        {
            assert_eq!(ask("POST /api/rpc", &[&bearer, other]).await, 415);
        }
        assert_eq!(ask("POST /api/rpc", &[&bearer, JSON, "Content-Encoding: gzip"]).await, 415);
        assert_eq!(
            ask("POST /api/rpc", &[&bearer, "Content-Type: application/json; charset=utf-8"]).await,
            200
        );
    });
}

#[test]
fn the_page_is_for_everybody_on_a_host_of_ours_and_is_not_kept() {
    run(async |rig| {
        let index = rig.ask("GET /", &["Sec-Fetch-Site: cross-site"], "").await;
        assert_eq!((index.status, index.header("cache-control")), (200, Some("no-store")));
        assert!(index.header("content-security-policy").is_some_and(|it| it.contains("script-src 'self'")));
        assert_eq!(index.header("content-encoding"), Some("gzip"));
        let css = rig.ask("GET /app.css", &[], "").await;
        assert_eq!((css.status, css.header("cache-control")), (200, Some("no-cache")));
        let tag = format!("If-None-Match: {}", css.header("etag").expect("it has one"));
        let again = rig.ask("GET /app.css", &[&tag], "").await;
        assert_eq!((again.status, again.body.as_str()), (304, ""));
        assert_eq!(rig.ask("HEAD /app.css", &[], "").await.body, "");
        assert_eq!(rig.ask("POST /", &[], "").await.status, 405);
        assert_eq!(rig.ask("GET /js/../app.css", &[], "").await.status, 404);
        assert_eq!(rig.ask("GET /vendor/README.md", &[], "").await.status, 404);
        assert_eq!(rig.ask("GET /", &["Host: evil.example"], "").await.status, 421);
    });
}

#[test]
fn a_token_is_changed_for_a_cookie_of_its_scope() {
    run(async |rig| {
        let json = "Content-Type: application/json";
        let body = |token: &str| serde_json::json!({ "token": token }).to_string();
        let token = rig.access.token(Scope::Read);
        let done = rig.ask("POST /login", &[json], &body(&token)).await;
        assert_eq!(done.status, 204);
        let cookie = done.header("set-cookie").expect("it sets one");
        assert!(cookie.contains("httponly") && cookie.contains("samesite=strict"), "{cookie}");
        assert_eq!(rig.ask("POST /login", &[json], &body("mt_wrong")).await.status, 403);
        assert_eq!(rig.ask("POST /login", &[json], "{}").await.status, 400);
        assert_eq!(rig.ask("POST /login", &[json], &body(&"x".repeat(1024))).await.status, 413);
        assert_eq!(rig.ask("POST /login", &[], &body(&token)).await.status, 415);
        let other = "Sec-Fetch-Site: cross-site";
        assert_eq!(rig.ask("POST /login", &[json, other], &body(&token)).await.status, 403);
    });
}
