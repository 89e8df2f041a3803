//! Wrong requests: each a status from 400 on, and one sentence. They change nothing.

use dpq_server::{Gallery, Options};

use crate::{DIM, Server, codes, index, json, serve_live, with_images};

const JSON: &str = "application/json";

/// Method, path, content type, body, expected status.
type Case<'a> = (&'a str, &'a str, &'a str, &'a [u8], u16);

const CASES: [Case; 81] = [
    // Paths and methods.
    ("GET", "/v2/search", "", b"", 404),
    ("PUT", "/v1/items", "", b"", 415),
    ("PATCH", "/v1/items", JSON, b"{}", 405),
    ("GET", "/v1/search", "", b"", 405),
    ("PUT", "/v1/items/3", JSON, b"{}", 405),
    ("POST", "/healthz", JSON, b"{}", 405),
    ("DELETE", "/v1/items/", "", b"", 404),
    ("DELETE", "/v1/items/1/2", "", b"", 404),
    // Bodies that are not JSON of the right form.
    ("POST", "/v1/search", "", b"{\"id\": 1}", 415),
    ("POST", "/v1/search", "text/plain", b"{\"id\": 1}", 415),
    ("POST", "/v1/search", "application/x-www-form-urlencoded", b"id=1", 415),
    ("POST", "/v1/search", "\u{e9}", b"{\"id\": 1}", 415),
    ("POST", "/v1/search", JSON, b"", 400),
    ("POST", "/v1/search", JSON, b"{", 400),
    ("POST", "/v1/search", JSON, b"\xff\xfe", 400),
    ("POST", "/v1/search", JSON, b"[]", 400),
    ("POST", "/v1/search", JSON, b"{\"id\": 1} trailing", 400),
    ("POST", "/v1/search", JSON, b"{\"id\": 1, \"id\": 2}", 400),
    ("POST", "/v1/search", JSON, b"{\"id\": 1, \"colour\": 2}", 400),
    ("POST", "/v1/search", JSON, b"{\"features\": \"1, 2, 3, 4\"}", 400),
    ("POST", "/v1/search", JSON, b"{\"features\": [[1, 2, 3, 4]]}", 400),
    // Queries.
    ("POST", "/v1/search", JSON, b"{}", 400),
    ("POST", "/v1/search", JSON, b"{\"id\": 1, \"features\": [1, 2, 3, 4]}", 400),
    ("POST", "/v1/search", JSON, b"{\"features\": []}", 400),
    ("POST", "/v1/search", JSON, b"{\"features\": [1, 2, 3]}", 400),
    ("POST", "/v1/search", JSON, b"{\"features\": [1, 2, 3, 4, 1, 2, 3, 4]}", 400),
    ("POST", "/v1/search", JSON, b"{\"features\": [1, 2, 3, NaN]}", 400),
    ("POST", "/v1/search", JSON, b"{\"features\": [1, 2, 3, null]}", 400),
    ("POST", "/v1/search", JSON, b"{\"features\": [1, 2, 3, 1e39]}", 400),
    ("POST", "/v1/search", JSON, b"{\"features\": [1, 2, 3, 1e999]}", 400),
    ("POST", "/v1/search", JSON, b"{\"id\": -1}", 400),
    ("POST", "/v1/search", JSON, b"{\"id\": 1.5}", 400),
    ("POST", "/v1/search", JSON, b"{\"id\": 18446744073709551616}", 400),
    ("POST", "/v1/search", JSON, b"{\"id\": 500}", 404),
    ("POST", "/v1/search", JSON, b"{\"name\": \"nobody\"}", 404),
    ("POST", "/v1/search", JSON, b"{\"id\": 1, \"allow\": 3}", 400),
    ("POST", "/v1/search", JSON, b"{\"id\": 1, \"allow\": [-3]}", 400),
    ("POST", "/v1/search", JSON, b"{\"id\": 1, \"deny\": [null]}", 400),
    ("POST", "/v1/search", "image/png", b"not an image", 400),
    ("POST", "/v1/search", "image/png", b"", 400),
    ("POST", "/v1/search", "image/png", b"img123", 400),
    // Parameters.
    ("POST", "/v1/search?k=0", JSON, b"{\"id\": 1}", 400),
    ("POST", "/v1/search?k=-1", JSON, b"{\"id\": 1}", 400),
    ("POST", "/v1/search?k=10001", JSON, b"{\"id\": 1}", 400),
    ("POST", "/v1/search?k=99999999999999999999999", JSON, b"{\"id\": 1}", 400),
    ("POST", "/v1/search?k=3&k=4", JSON, b"{\"id\": 1}", 400),
    ("POST", "/v1/search?colour=red", JSON, b"{\"id\": 1}", 400),
    ("POST", "/v1/search?bits=12", JSON, b"{\"id\": 1}", 400),
    ("POST", "/v1/search?bits=0", JSON, b"{\"id\": 1}", 400),
    ("POST", "/v1/search?bits=32", JSON, b"{\"id\": 1}", 400),
    ("POST", "/v1/search?min_score=NaN", JSON, b"{\"id\": 1}", 400),
    ("POST", "/v1/search?progressive=perhaps", JSON, b"{\"id\": 1}", 400),
    ("POST", "/v1/search?progressive=true", JSON, b"{\"id\": 500}", 404),
    ("POST", "/v1/search?progressive=true&shortlist=100@8", JSON, b"{\"id\": 1}", 400),
    ("POST", "/v1/search?progressive=true&k=3334", JSON, b"{\"id\": 1}", 400),
    ("POST", "/v1/search?progressive=true&bits=16&k=5001", JSON, b"{\"id\": 1}", 400),
    ("POST", "/v1/search?bits=%38%ff", JSON, b"{\"id\": 1}", 400),
    ("POST", "/v1/search?exact=true", JSON, b"{\"id\": 1}", 400),
    ("POST", "/v1/search?shortlist=100", JSON, b"{\"id\": 1}", 400),
    ("POST", "/v1/search?shortlist=5@8", JSON, b"{\"id\": 1}", 400),
    ("POST", "/v1/search?shortlist=100001@8", JSON, b"{\"id\": 1}", 400),
    ("POST", "/v1/search?shortlist=100@24&bits=16", JSON, b"{\"id\": 1}", 400),
    // Changes.
    ("POST", "/v1/items", JSON, b"{\"items\": []}", 400),
    ("POST", "/v1/items", JSON, b"{\"items\": [{\"id\": 1}]}", 400),
    ("POST", "/v1/items", JSON, b"{\"items\": [{\"code\": [1, 2]}]}", 400),
    ("POST", "/v1/items", JSON, b"{\"items\": [{\"code\": [1, 2, 16]}]}", 400),
    ("POST", "/v1/items", JSON, b"{\"items\": [{\"code\": [1, 2, 256]}]}", 400),
    ("POST", "/v1/items?id=7", JSON, b"{\"items\": [{\"code\": [1, 2, 3]}]}", 400),
    ("DELETE", "/v1/items/many", "", b"", 400),
    ("DELETE", "/v1/items/%ff", "", b"", 400),
    ("DELETE", "/v1/items/7%2", "", b"", 400),
    ("POST", "/v1/items?name=%ff", "image/png", b"img1234", 400),
    ("POST", "/v1/items?name=%e2%82", "image/png", b"img1234", 400),
    ("POST", "/v1/items?name=%zz", "image/png", b"img1234", 400),
    ("POST", "/v1/items?name=7%2", "image/png", b"img1234", 400),
    ("DELETE", "/v1/items/500", "", b"", 404),
    ("PUT", "/v1/items", JSON, b"{\"items\": []}", 400),
    // Adding replaces nothing.
    ("POST", "/v1/items", JSON, b"{\"items\": [{\"id\": 1, \"code\": [1, 2, 3]}]}", 409),
    ("POST", "/v1/items", JSON, b"{\"items\": [{\"name\": \"item 10\", \"code\": [1, 2, 3]}]}", 409),
    ("POST", "/v1/items?name=item%2010", "image/png", b"img1234", 409),
    ("POST", "/v1/items?id=10", "image/png", b"img1234", 409),
];

/// Changes that are refused for a later item of the request.
const HALF_WRONG: [(&str, u16); 7] = [
    (r#"{"items": [{"code": [1, 2, 3]}, {"code": [1, 2, 3], "features": [1, 2, 3, 4]}]}"#, 400),
    (r#"{"items": [{"code": [1, 2, 3]}, {"code": [1, 2, 3], "name": ""}]}"#, 400),
    (r#"{"items": [{"features": [1, 2, 3, 4]}, {"features": [1, 2, 3]}]}"#, 400),
    (r#"{"items": [{"id": 900, "code": [1, 2, 3]}, {"id": 9000, "code": [1, 2]}]}"#, 400),
    (r#"{"items": [{"id": 900, "code": [1, 2, 3]}, {"id": 11, "code": [1, 2, 3], "name": "item 10"}]}"#, 409),
    (r#"{"items": [{"id": 18446744073709551615, "code": [1, 2, 3]}, {"code": [1, 2, 3]}]}"#, 400),
    (r#"{"items": [{"code": [1, 2, 3]}, {"id": 3, "code": [1, 2, 3]}, {"code": [1, 2]}]}"#, 400),
];

#[test]
fn wrong_requests_get_one_sentence_and_change_nothing() {
    let (dir, mut server) = serve_live(with_images(2));
    let half = HALF_WRONG.iter().flat_map(|&(body, status)| {
        ["POST", "PUT"].map(|method| (method, "/v1/items", JSON, body.as_bytes(), status))
    });
    for (method, path, kind, body, expected) in CASES.into_iter().chain(half) {
        let case = format!("{method} {path} {kind} {}", String::from_utf8_lossy(body));
        let headers = [("content-type", kind)];
        let headers = if kind.is_empty() { &[][..] } else { &headers };
        let answer = server.client().send(method, path, headers, body);
        assert_eq!(answer.status, expected, "{case}: {}", answer.text());
        let error = json(&answer)["error"].as_str().unwrap().to_owned();
        let is_sentence =
            error.len() > 20 && error.len() < 300 && !error.contains('\n') && !error.ends_with('.');
        assert!(is_sentence, "{case}: {error}");
    }
    assert_eq!(json(&server.client().get("/v1/index"))["commit"], 1);
    server.stop();
    let snapshot = dpq_live::Snapshot::open(dir.path().join("live")).unwrap();
    snapshot.verify().unwrap();
    assert_eq!(snapshot.ids_and_codes(), ((0..500).collect(), codes()));
}

/// Answers that repeat the request do not repeat all of it.
#[test]
fn long_requests_get_short_answers() {
    let (_dir, server) = serve_live(with_images(2));
    let long = "é".repeat(20_000);
    for (method, path, body) in [
        ("POST", "/v1/search", format!("{{\"name\": \"{long}\"}}")),
        ("POST", "/v1/search", format!("{{\"{long}\": 1}}")),
        ("POST", "/v1/items", format!("{{\"items\": [{{\"code\": [1, 2, 3], \"name\": \"{long}\"}}]}}")),
        ("DELETE", &format!("/v1/items/{}", "7".repeat(20_000)), String::new()),
        ("POST", &format!("/v1/search?shortlist={}", "7".repeat(20_000)), r#"{"id": 1}"#.to_owned()),
        ("POST", &format!("/v1/search?{}=1", "k".repeat(20_000)), r#"{"id": 1}"#.to_owned()),
    ] {
        let answer = server.client().send(method, path, &[("content-type", JSON)], body.as_bytes());
        assert!((400..500).contains(&answer.status), "{}", answer.text());
        let error = json(&answer)["error"].as_str().unwrap().to_owned();
        assert!((20..=410).contains(&error.len()), "{} bytes: {error}", error.len());
    }
    // The longest name that is not too long.
    let name = "é".repeat(512);
    let body = format!("{{\"items\": [{{\"code\": [1, 2, 3], \"name\": \"{name}\"}}]}}");
    assert_eq!(server.client().post("/v1/items", &body).status, 200);
    let answer = server.client().post("/v1/items", &body.replace(&name, &(name.clone() + "x")));
    assert_eq!(json(&answer)["error"], "number of bytes of a name is 1025, expected at most 1024");
}

#[test]
fn an_index_file_takes_no_changes_and_no_images_without_a_model() {
    let index = index(dpq_index::Metric::InnerProduct);
    let server = Server::start(Gallery::File(Box::new(index)), Options::new(1));
    let mut client = server.client();
    let answer = client.post("/v1/items", r#"{"items": [{"code": [1, 2, 3]}]}"#);
    assert_eq!(answer.status, 403);
    assert_eq!(
        json(&answer)["error"],
        "the gallery is an index file, which does not change, serve the folder of a live index"
    );
    assert_eq!(client.send("DELETE", "/v1/items/3", &[], b"").status, 403);
    assert_eq!(client.send("POST", "/v1/search", &[("content-type", "image/png")], b"img1234").status, 415);
    assert_eq!(client.post("/v1/search", r#"{"name": "item 10"}"#).status, 404);
}

/// Anything but HTTP ends its own connection only.
#[test]
fn other_protocols_do_no_harm() {
    let server =
        Server::start(Gallery::File(Box::new(index(dpq_index::Metric::InnerProduct))), Options::new(1));
    for bytes in [
        &b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03"[..],
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /v1/search HTTP/1.1\r\nhost: localhost\r\ncontent-length: -1\r\n\r\n",
        b"POST /v1/search HTTP/1.1\r\nhost: localhost\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n{}",
        b"POST /v1/search HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\
            content-type: application/json\r\n\r\nzz\r\n",
    ] {
        let mut client = server.client();
        client.write(bytes);
        let status = client.answer().map_or(400, |answer| answer.status);
        assert!((400..500).contains(&status), "{status} for {}", String::from_utf8_lossy(bytes));
    }
    assert_eq!(server.client().get("/healthz").status, 200);
    let features = ["0.5"; DIM].join(",");
    assert_eq!(server.client().post("/v1/search", &format!("{{\"features\": [{features}]}}")).status, 200);
}
