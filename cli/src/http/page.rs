//! The files of the page. They say nothing of the node, so whoever reaches it may read them; what the page shows comes by the API.
//!
//! Nothing here knows in which folder of a proxy it lies: the files name each other by relative paths. They are packed (gzip), as the
//! build script leaves them, and sent so: every browser unpacks them, and who names no coding takes any (RFC 9110, 12.5.3).

use hyper::header::{self, HeaderName, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, StatusCode};

use super::answer::{Answer, Payload, answer};

/// What the page may do in a browser: show what comes from this node.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; \
                      base-uri 'none'; frame-ancestors 'none'";
const INDEX: &str = "index.html";

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const JS: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";

/// A file of the page.
pub(super) struct Asset {
    /// Its path, below where the API listens.
    path: &'static str,
    content_type: &'static str,
    /// Packed.
    bytes: &'static [u8],
}

const fn asset(path: &'static str, content_type: &'static str, bytes: &'static [u8]) -> Asset {
    Asset { path, content_type, bytes }
}

/// All files, in the order of their paths. A test compares it with the folder.
const ASSETS: &[Asset] = &[
    asset("app.css", CSS, include_bytes!(concat!(env!("OUT_DIR"), "/page/app.css.gz"))),
    asset("icon.svg", SVG, include_bytes!(concat!(env!("OUT_DIR"), "/page/icon.svg.gz"))),
    asset("index.html", HTML, include_bytes!(concat!(env!("OUT_DIR"), "/page/index.html.gz"))),
    asset("js/actions.js", JS, include_bytes!(concat!(env!("OUT_DIR"), "/page/js/actions.js.gz"))),
    asset("js/activity.js", JS, include_bytes!(concat!(env!("OUT_DIR"), "/page/js/activity.js.gz"))),
    asset("js/api.js", JS, include_bytes!(concat!(env!("OUT_DIR"), "/page/js/api.js.gz"))),
    asset("js/blobs.js", JS, include_bytes!(concat!(env!("OUT_DIR"), "/page/js/blobs.js.gz"))),
    asset("js/channel.js", JS, include_bytes!(concat!(env!("OUT_DIR"), "/page/js/channel.js.gz"))),
    asset("js/channels.js", JS, include_bytes!(concat!(env!("OUT_DIR"), "/page/js/channels.js.gz"))),
    asset("js/chooser.js", JS, include_bytes!(concat!(env!("OUT_DIR"), "/page/js/chooser.js.gz"))),
    asset("js/clock.js", JS, include_bytes!(concat!(env!("OUT_DIR"), "/page/js/clock.js.gz"))),
    asset("js/dialog.js", JS, include_bytes!(concat!(env!("OUT_DIR"), "/page/js/dialog.js.gz"))),
    asset("js/files.js", JS, include_bytes!(concat!(env!("OUT_DIR"), "/page/js/files.js.gz"))),
    asset("js/first.js", JS, include_bytes!(concat!(env!("OUT_DIR"), "/page/js/first.js.gz"))),
    asset("js/follow.js", JS, include_bytes!(concat!(env!("OUT_DIR"), "/page/js/follow.js.gz"))),
    asset("js/format.js", JS, include_bytes!(concat!(env!("OUT_DIR"), "/page/js/format.js.gz"))),
    asset("js/graph.js", JS, include_bytes!(concat!(env!("OUT_DIR"), "/page/js/graph.js.gz"))),
    asset("js/html.js", JS, include_bytes!(concat!(env!("OUT_DIR"), "/page/js/html.js.gz"))),
    asset("js/icons.js", JS, include_bytes!(concat!(env!("OUT_DIR"), "/page/js/icons.js.gz"))),
    asset("js/jobs.js", JS, include_bytes!(concat!(env!("OUT_DIR"), "/page/js/jobs.js.gz"))),
    asset("js/keys.js", JS, include_bytes!(concat!(env!("OUT_DIR"), "/page/js/keys.js.gz"))),
    asset("js/listing.js", JS, include_bytes!(concat!(env!("OUT_DIR"), "/page/js/listing.js.gz"))),
    asset("js/login.js", JS, include_bytes!(concat!(env!("OUT_DIR"), "/page/js/login.js.gz"))),
    asset("js/main.js", JS, include_bytes!(concat!(env!("OUT_DIR"), "/page/js/main.js.gz"))),
    asset("js/menu.js", JS, include_bytes!(concat!(env!("OUT_DIR"), "/page/js/menu.js.gz"))),
    asset("js/mode.js", JS, include_bytes!(concat!(env!("OUT_DIR"), "/page/js/mode.js.gz"))),
    asset("js/node.js", JS, include_bytes!(concat!(env!("OUT_DIR"), "/page/js/node.js.gz"))),
    asset("js/peers.js", JS, include_bytes!(concat!(env!("OUT_DIR"), "/page/js/peers.js.gz"))),
    asset("js/polled.js", JS, include_bytes!(concat!(env!("OUT_DIR"), "/page/js/polled.js.gz"))),
    asset("js/publish.js", JS, include_bytes!(concat!(env!("OUT_DIR"), "/page/js/publish.js.gz"))),
    asset("js/route.js", JS, include_bytes!(concat!(env!("OUT_DIR"), "/page/js/route.js.gz"))),
    asset("js/shell.js", JS, include_bytes!(concat!(env!("OUT_DIR"), "/page/js/shell.js.gz"))),
    asset("js/steps.js", JS, include_bytes!(concat!(env!("OUT_DIR"), "/page/js/steps.js.gz"))),
    asset("js/store.js", JS, include_bytes!(concat!(env!("OUT_DIR"), "/page/js/store.js.gz"))),
    asset("js/stream.js", JS, include_bytes!(concat!(env!("OUT_DIR"), "/page/js/stream.js.gz"))),
    asset("js/strings.js", JS, include_bytes!(concat!(env!("OUT_DIR"), "/page/js/strings.js.gz"))),
    asset("js/sync.js", JS, include_bytes!(concat!(env!("OUT_DIR"), "/page/js/sync.js.gz"))),
    asset("js/theme.js", JS, include_bytes!(concat!(env!("OUT_DIR"), "/page/js/theme.js.gz"))),
    asset("js/upload.js", JS, include_bytes!(concat!(env!("OUT_DIR"), "/page/js/upload.js.gz"))),
    asset("js/virtual.js", JS, include_bytes!(concat!(env!("OUT_DIR"), "/page/js/virtual.js.gz"))),
    asset("js/words.js", JS, include_bytes!(concat!(env!("OUT_DIR"), "/page/js/words.js.gz"))),
    asset("vendor/htm.mjs", JS, include_bytes!(concat!(env!("OUT_DIR"), "/page/vendor/htm.mjs.gz"))),
    asset("vendor/preact.mjs", JS, include_bytes!(concat!(env!("OUT_DIR"), "/page/vendor/preact.mjs.gz"))),
    asset(
        "vendor/uPlot.iife.min.js",
        JS,
        include_bytes!(concat!(env!("OUT_DIR"), "/page/vendor/uPlot.iife.min.js.gz")),
    ),
    asset(
        "vendor/uPlot.min.css",
        CSS,
        include_bytes!(concat!(env!("OUT_DIR"), "/page/vendor/uPlot.min.css.gz")),
    ),
];

/// The file at a path; the index at the folder itself.
pub(super) fn find(path: &str) -> Option<&'static Asset> {
    let path = path.strip_prefix('/')?;
    let path = if path.is_empty() { INDEX } else { path };
    ASSETS.iter().find(|asset| asset.path == path)
}

/// Answers with a file, or that a browser has it already.
pub(super) fn file(asset: &'static Asset, head: &Parts) -> Answer {
    let tag = format!("\"{}\"", &blake3::hash(asset.bytes).to_hex()[..16]);
    let known = head.headers.get(header::IF_NONE_MATCH).and_then(|value| value.to_str().ok());
    let is_index = asset.path == INDEX;
    let is_known = !is_index && known.is_some_and(|known| known.split(',').any(|it| it.trim() == tag));
    let bytes: &'static [u8] = if is_known || head.method == Method::HEAD { &[] } else { asset.bytes };
    let status = if is_known { StatusCode::NOT_MODIFIED } else { StatusCode::OK };
    let mut answer = answer(status, asset.content_type, Payload::whole(bytes));
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(
        HeaderName::from_static("cross-origin-opener-policy"),
        HeaderValue::from_static("same-origin"),
    );
    if !is_known {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        headers.insert(header::CONTENT_LENGTH, asset.bytes.len().into());
    }
    if !is_index {
        // A newer program has other files under the same names.
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        headers.insert(header::ETAG, HeaderValue::try_from(tag).expect("hexadecimal digits are ASCII"));
    }
    answer
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on shall fail where it stands")]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;
    use std::path::Path;

    use sha2::{Digest, Sha256};

    use super::*;

    /// All that a browser may load, together, as it is sent.
    const BYTES_MAX: usize = 200_000;

    fn folder() -> &'static Path {
        Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/page"))
    }

    fn all(folder: &Path, under: &str, found: &mut BTreeMap<String, Vec<u8>>) {
        for entry in fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            let path = format!("{under}{}", entry.file_name().to_str().unwrap());
            if entry.path().is_dir() {
                all(&entry.path(), &format!("{path}/"), found);
            } else {
                found.insert(path, fs::read(entry.path()).unwrap());
            }
        }
    }

    /// As a browser has it.
    fn unpacked(asset: &Asset) -> Vec<u8> {
        let (head, rest) = asset.bytes.split_at(10);
        assert_eq!(head[..4], [0x1f, 0x8b, 8, 0]);
        miniz_oxide::inflate::decompress_to_vec(&rest[..rest.len() - 8]).unwrap()
    }

    #[test]
    fn the_table_has_each_file_of_the_folder_that_a_browser_needs() {
        let mut found = BTreeMap::new();
        all(folder(), "", &mut found);
        found.retain(|path, _| !path.ends_with("README.md") && !path.ends_with("LICENSE"));
        let listed: Vec<&str> = ASSETS.iter().map(|asset| asset.path).collect();
        assert_eq!(listed, found.keys().map(String::as_str).collect::<Vec<_>>());
        for asset in ASSETS {
            let kind = match asset.path.rsplit('.').next().unwrap() {
                "html" => HTML,
                "css" => CSS,
                "js" | "mjs" => JS,
                "svg" => SVG,
                other => panic!("{other}"),
            };
            assert_eq!(
                (asset.content_type, unpacked(asset)),
                (kind, found[asset.path].clone()),
                "{}",
                asset.path
            );
        }
        let bytes: usize = ASSETS.iter().map(|asset| asset.bytes.len()).sum();
        assert!(bytes < BYTES_MAX, "{bytes}");
    }

    #[test]
    fn vendored_files_are_as_they_were_released() {
        let table = fs::read_to_string(folder().join("vendor/README.md")).unwrap();
        let vendored = ASSETS.iter().filter(|asset| asset.path.starts_with("vendor/"));
        for asset in vendored {
            let name = asset.path.strip_prefix("vendor/").unwrap();
            let row = table.lines().find(|line| line.contains(&format!("`{name}`"))).expect(name);
            let hash = base16ct::lower::encode_string(&Sha256::digest(unpacked(asset)));
            assert!(row.contains(&hash), "{name} is {hash}");
        }
    }

    #[test]
    fn the_page_has_nothing_inline_and_names_no_other_host() {
        let text = |asset: &Asset| String::from_utf8(unpacked(asset)).unwrap();
        let index = text(find("/").unwrap());
        assert!(
            index.contains("<html lang=\"en\"") && !index.contains("<style") && !index.contains("<script>")
        );
        for asset in ASSETS.iter().filter(|asset| !asset.path.starts_with("vendor/")) {
            let text = text(asset);
            for wrong in
                ["innerHTML", "dangerouslySet", "javascript:", " style=\"", "onclick=\"", "eval(", "url(http"]
            {
                assert!(!text.contains(wrong), "{}: {wrong}", asset.path);
            }
            let links = text.matches("http://").count() + text.matches("https://").count();
            let names = text.matches("http://www.w3.org/2000/svg").count();
            assert_eq!(links, names, "{}", asset.path);
        }
    }
}
