//! The page, and the requests that it makes beside searches.

use std::sync::{Arc, Mutex};
use std::thread::sleep;
use std::time::Duration;

use dpq_index::Metric;
use dpq_live::LiveIndex;
use dpq_server::{Catalog, Drawn, Gallery, Options, Picture};
use serde_json::{Value, json};

use crate::{DIM, LEVELS, Server, codebooks, codes, index, json as body, numbers, serve_live, with_images};

/// Even ids have the class `even`; ids below 100 have a picture, except that of id 7, which fails.
struct Known;

impl Catalog for Known {
    fn name(&self, id: u64) -> Option<&str> {
        (id == 3).then_some("three")
    }

    fn labels(&self, id: u64, _: Option<&str>) -> Vec<&str> {
        if id.is_multiple_of(2) { vec!["even"] } else { Vec::new() }
    }

    fn has_picture(&self, id: u64, _: Option<&str>) -> bool {
        id < 100
    }

    fn picture(&self, id: u64, name: Option<&str>) -> Result<Option<Picture>, String> {
        let bytes = format!("{id} {name:?}").into_bytes();
        match id {
            7 => Err("the picture is damaged".to_owned()),
            100.. => Ok(None),
            _ => Ok(Some(Picture { content_type: "image/png", bytes: bytes.into() })),
        }
    }
}

fn options() -> Options {
    let map = |vectors: &[f32], dim: usize| {
        let points = vectors.chunks_exact(dim).map(|vector| [vector[0], vector[1]]).collect();
        Ok(Drawn { method: "the first two dimensions", points })
    };
    Options { catalog: Some(Box::new(Known)), map: Some(Arc::new(map)), ..with_images(2) }
}

/// Returns numbers as they are after a way through text, where an f32 has few digits.
fn written(numbers: &[f32]) -> Value {
    serde_json::from_str(&serde_json::to_string(numbers).unwrap()).unwrap()
}

#[test]
fn the_page_is_whole_and_takes_nothing_from_elsewhere() {
    let (_dir, server) = serve_live(Options::new(1));
    let mut client = server.client();
    let page = client.get("/");
    assert_eq!((page.status, page.header("content-type")), (200, Some("text/html; charset=utf-8")));
    let mut wanted =
        vec!["/page/style.css".to_owned(), "/page/icon.svg".to_owned(), "/page/main.js".to_owned()];
    let mut scripts = 0;
    while let Some(path) = wanted.pop() {
        let file = client.get(&path);
        assert_eq!(file.status, 200, "{path}");
        let policy = file.header("content-security-policy").unwrap();
        assert!(policy.starts_with("default-src 'self';") && !policy.contains("unsafe"), "{policy}");
        assert_eq!(file.header("x-content-type-options"), Some("nosniff"));
        let text = file.text();
        assert!(!text.contains("http://") || path.ends_with(".svg"), "{path} leads elsewhere");
        assert!(!text.contains("https://") && !text.contains("innerHTML"), "{path}");
        let imports = text.lines().filter_map(|line| line.strip_suffix("';")?.split_once(" from './"));
        wanted.extend(imports.map(|(_, name)| format!("/page/{name}")));
        scripts += usize::from(path.ends_with(".js"));
        assert!(text.lines().count() < 400, "{path}");
    }
    assert!(scripts > 6, "{scripts}");
    let text = page.text();
    assert!(!text.contains("style=\"") && !text.contains("<style") && !text.contains("onclick"), "{text}");
    for path in ["/page/", "/page/other.js", "/page/../index.html", "/page/..%2findex.html"] {
        assert_eq!(client.get(path).status, 404, "{path}");
    }
}

#[test]
fn a_code_is_that_of_the_codebooks() {
    let (_dir, server) = serve_live(options());
    let mut client = server.client();
    let (books, stored) = (codebooks(), codes());
    let expected = |features: &[f32], code: &[u8]| {
        let distortion = books.relative_distortion(features, code).unwrap();
        let lengths = (1..=LEVELS).zip(distortion).map(|(n, distortion)| {
            let equal = stored.chunks_exact(LEVELS).filter(|other| other[..n] == code[..n]).count();
            json!({ "bits": 8 * n, "distortion": distortion, "equal": equal })
        });
        json!({ "features": written(features), "code": code, "lengths": lengths.collect::<Vec<_>>() })
    };
    let features = numbers(50, DIM);
    let found = body(&client.post("/v1/code", &json!({ "features": features }).to_string()));
    assert_eq!(found, expected(&features, &books.encode(&features).unwrap()));
    let image = client.send("POST", "/v1/code", &[("content-type", "image/png")], b"img\x40\x20\x10\0");
    let features = [1.0, 0.5, 0.25, 0.0];
    assert_eq!(body(&image), expected(&features, &books.encode(&features).unwrap()));
    let code = &stored[40 * LEVELS..41 * LEVELS];
    let features = books.decode(code, books.max_length()).unwrap();
    for query in [json!({ "id": 40 }), json!({ "name": "item 40" }), json!({ "code": code })] {
        assert_eq!(body(&client.post("/v1/code", &query.to_string())), expected(&features, code));
    }
    for (query, status) in [
        (json!({}), 400),
        (json!({ "id": 1, "name": "item 10" }), 400),
        (json!({ "features": [1.0] }), 400),
        (json!({ "features": [1.0, 0.0, 0.0, 1e39] }), 400),
        (json!({ "id": 12_345 }), 404),
        (json!({ "id": 1, "deny": [2] }), 400),
        (json!({ "id": 1, "code": [1, 2, 3] }), 400),
        (json!({ "code": [1, 2] }), 400),
        (json!({ "code": [1, 2, 16] }), 400),
        (json!({ "code": [1, 2, 3, 1, 2, 3] }), 400),
    ] {
        let answer = client.post("/v1/code", &query.to_string());
        assert_eq!(answer.status, status, "{query}: {}", answer.text());
    }
}

#[test]
fn items_are_listed_with_what_is_known_of_them() {
    let (_dir, server) = serve_live(options());
    let mut client = server.client();
    let list = |query: &str| -> Vec<Value> {
        let answer = body(&server.client().get(&format!("/v1/items{query}")));
        answer["items"].as_array().unwrap().clone()
    };
    let ids =
        |query: &str| -> Vec<u64> { list(query).iter().map(|item| item["id"].as_u64().unwrap()).collect() };
    assert_eq!(list("").len(), 24);
    let mut all = ids("?k=2000");
    all.sort_unstable();
    assert_eq!(all, (0..500).collect::<Vec<_>>());
    assert_ne!(ids("?k=5"), ids("?k=5&offset=1"));
    assert_eq!(ids("?k=5"), ids("?k=5&offset=500"));
    assert_eq!(
        list("?k=2000").iter().find(|item| item["id"] == 20).unwrap(),
        &json!({ "id": 20, "name": "item 20", "labels": ["even"], "picture": true })
    );
    assert_eq!(
        list("?k=2000").iter().find(|item| item["id"] == 3).unwrap(),
        &json!({ "id": 3, "name": "three", "picture": true })
    );
    for query in ["?k=0", "?k=2001", "?k=x", "?offset=-1", "?more=1"] {
        assert_eq!(client.get(&format!("/v1/items{query}")).status, 400, "{query}");
    }
    // Hits tell the same, and what was deleted is listed no more.
    let hits = body(&client.post("/v1/search?k=1", r#"{"id": 20, "allow": [20]}"#));
    assert_eq!(hits["hits"][0]["labels"], json!(["even"]));
    assert_eq!(hits["hits"][0]["picture"], true);
    assert_eq!(client.send("DELETE", "/v1/items/20", &[], b"").status, 200);
    assert!(!ids("?k=2000").contains(&20));
    // Those that were added are.
    assert_eq!(client.post("/v1/items", r#"{"items": [{"id": 777, "code": [1, 2, 3]}]}"#).status, 200);
    assert!(ids("?k=2000").contains(&777));
}

#[test]
fn pictures_are_those_of_the_catalog() {
    let (_dir, server) = serve_live(options());
    let mut client = server.client();
    let picture = client.get("/v1/items/10/picture");
    assert_eq!((picture.status, picture.text()), (200, "10 Some(\"item 10\")"));
    assert_eq!(picture.header("content-type"), Some("image/png"));
    assert_eq!(picture.header("x-content-type-options"), Some("nosniff"));
    assert_eq!(picture.header("cross-origin-resource-policy"), Some("same-origin"));
    assert_eq!(client.get("/v1/items/3/picture").text(), "3 Some(\"three\")");
    let damaged = client.get("/v1/items/7/picture");
    assert_eq!((damaged.status, damaged.text()), (404, r#"{"error":"the picture is damaged"}"#));
    for (id, status) in [("101", 404), ("12345", 404), ("x", 400), ("-1", 400)] {
        assert_eq!(client.get(&format!("/v1/items/{id}/picture")).status, status, "{id}");
    }
    assert_eq!(client.send("DELETE", "/v1/items/10", &[], b"").status, 200);
    assert_eq!(client.get("/v1/items/10/picture").status, 404);
    let plain = Server::start(Gallery::File(Box::new(index(Metric::Euclidean))), Options::new(1));
    assert_eq!(plain.client().get("/v1/items/10/picture").status, 404);
}

#[test]
fn the_map_is_drawn_once_somebody_asks() {
    let (_dir, server) = serve_live(options());
    let mut client = server.client();
    assert_eq!(client.get("/v1/map").status, 202);
    let map = loop {
        let answer = client.get("/v1/map");
        match answer.status {
            202 => sleep(Duration::from_millis(5)),
            _ => break body(&answer),
        }
    };
    assert_eq!(map["method"], "the first two dimensions");
    let items = map["items"].as_array().unwrap();
    assert_eq!(items.len(), 500);
    let books = codebooks();
    for item in items {
        let id = item["id"].as_u64().unwrap() as usize;
        let vector = books.decode(&codes()[id * LEVELS..][..LEVELS], books.max_length()).unwrap();
        assert_eq!(json!([item["x"], item["y"]]), written(&vector[..2]));
    }
    let plain = Server::start(Gallery::File(Box::new(index(Metric::Euclidean))), Options::new(1));
    assert_eq!(plain.client().get("/v1/map").status, 404);
}

/// Asks for the map until it is drawn as wanted.
fn map_of(server: &Server, n: usize) -> Value {
    let start = std::time::Instant::now();
    loop {
        let answer = server.client().get("/v1/map");
        let map = body(&answer);
        if answer.status == 200 && map["items"].as_array().unwrap().len() == n {
            return map;
        }
        assert!(start.elapsed() < Duration::from_secs(60), "{}", answer.text());
        sleep(Duration::from_millis(5));
    }
}

#[test]
fn the_map_is_drawn_again_for_twice_and_half_as_many_items() {
    let dir = tempfile::tempdir().unwrap();
    let live = LiveIndex::create(dir.path().join("live"), &codebooks(), Metric::Euclidean).unwrap();
    let drawn = Arc::new(Mutex::new(Vec::new()));
    let sizes = drawn.clone();
    let map = move |vectors: &[f32], dim: usize| {
        let n = vectors.len() / dim;
        sizes.lock().unwrap().push(n);
        Ok(Drawn { method: "nowhere", points: vec![[0.0; 2]; n] })
    };
    let options = Options { map: Some(Arc::new(map)), ..Options::new(1) };
    let server = Server::start(Gallery::Live(Box::new(live)), options);
    map_of(&server, 0);
    let add = |ids: std::ops::Range<u64>| {
        let items: Vec<_> = ids.map(|id| json!({ "id": id, "code": [1, 2, 3] })).collect();
        let answer = server.client().post("/v1/items", &json!({ "items": items }).to_string());
        assert_eq!(answer.status, 200, "{}", answer.text());
    };
    add(0..4);
    map_of(&server, 4);
    add(4..7);
    map_of(&server, 4);
    add(7..8);
    map_of(&server, 8);
    // The map leaves out deleted items without being drawn again.
    let delete = |id: u64| server.client().send("DELETE", &format!("/v1/items/{id}"), &[], b"").status;
    assert_eq!([0, 1, 2].map(delete), [200; 3]);
    map_of(&server, 5);
    assert_eq!(delete(3), 200);
    map_of(&server, 4);
    // A map of 7 items would have kept that of 8 from being drawn.
    let start = std::time::Instant::now();
    while *drawn.lock().unwrap() != [4, 8, 4] {
        assert!(start.elapsed() < Duration::from_secs(60), "{:?}", drawn.lock().unwrap());
        sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_map_that_fails_says_so() {
    for (fails_by, sentence) in
        [("error", "too flat"), ("panic", "the map cannot be drawn, its code panicked")]
    {
        let map = move |_: &[f32], _| match fails_by {
            "error" => Err("too flat".to_owned()),
            _ => panic!("a map that panics, for a test"),
        };
        let (_dir, server) = serve_live(Options { map: Some(Arc::new(map)), ..Options::new(1) });
        let start = std::time::Instant::now();
        let answer = loop {
            match server.client().get("/v1/map") {
                answer if answer.status == 202 => sleep(Duration::from_millis(5)),
                answer => break answer,
            }
            assert!(start.elapsed() < Duration::from_secs(60), "it is drawn for ever");
        };
        assert_eq!((answer.status, &body(&answer)["error"]), (500, &json!(sentence)));
    }
}
