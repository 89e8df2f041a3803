//! Items added, replaced and deleted over the network.

use std::fs;
use std::thread;

use dpq_codebook::Beam;
use dpq_live::{LiveIndex, Snapshot};
use dpq_server::{Gallery, Options};
use serde_json::json as value;

use crate::{DIM, LEVELS, Server, codebooks, codes, hits, json, live, numbers, serve_live, with_images};

#[test]
fn items_are_added_replaced_and_deleted() {
    let (dir, mut server) = serve_live(with_images(2));
    let mut client = server.client();
    // No id is left for the second item, so neither is added.
    let body = r#"{"items": [{"id": 18446744073709551615, "code": [1, 2, 3]}, {"code": [1, 2, 3]}]}"#;
    assert_eq!(client.post("/v1/items", body).status, 400);
    let body = r#"{"items": [
        {"features": [0.5, -0.25, 0.75, 0.5], "name": "new"}, {"id": 7, "code": [1, 2, 3]},
        {"name": "item 10", "code": [4, 5, 6]}, {"id": 900, "code": [1, 1, 1]}, {"code": [2, 2, 2]}
    ]}"#;
    // Adding replaces no item.
    let refused = client.post("/v1/items", body);
    assert_eq!(refused.status, 409);
    assert_eq!(json(&refused)["error"], "item 7 has this id or name, give another one, or replace it by PUT");
    let kind = [("content-type", "application/json")];
    let answer = client.send("PUT", "/v1/items", &kind, body.as_bytes());
    assert_eq!(json(&answer), value!({"ids": [500, 7, 10, 900, 901], "items": 503, "commit": 2}));
    let answer = client.send("DELETE", "/v1/items/20", &[], b"");
    assert_eq!(json(&answer), value!({"ids": [20], "items": 502, "commit": 3}));
    assert_eq!(client.send("DELETE", "/v1/items/20", &[], b"").status, 404);
    assert_eq!(client.post("/v1/search", r#"{"id": 20}"#).status, 404);
    let image = [("content-type", "image/jpeg")];
    let answer = client.send("POST", "/v1/items?name=cat%20%C3%A9.jpg", &image, b"img\x40\x20\x10\0");
    assert_eq!(json(&answer), value!({"ids": [902], "items": 503, "commit": 4}));
    let found = json(&client.post("/v1/search?k=600", r#"{"name": "cat é.jpg"}"#));
    assert_eq!(found["commit"], 4);
    let mine = found["hits"].as_array().unwrap().iter().find(|hit| hit["id"] == 902).unwrap();
    assert_eq!(mine["name"], "cat é.jpg");

    server.stop();
    let snapshot = Snapshot::open(dir.path().join("live")).unwrap();
    let codebooks = codebooks();
    let mut expected: std::collections::BTreeMap<u64, Vec<u8>> =
        (0..).zip(codes().chunks_exact(LEVELS).map(<[u8]>::to_vec)).collect();
    expected.remove(&20);
    expected.extend([
        (500, codebooks.encode(&[0.5, -0.25, 0.75, 0.5]).unwrap()),
        (7, vec![1, 2, 3]),
        (10, vec![4, 5, 6]),
        (900, vec![1; 3]),
        (901, vec![2; 3]),
        (902, codebooks.encode(&[1.0, 0.5, 0.25, 0.0]).unwrap()),
    ]);
    assert_eq!(
        snapshot.ids_and_codes(),
        (expected.keys().copied().collect(), expected.values().flatten().copied().collect())
    );
    assert_eq!((snapshot.name_of(500), snapshot.id_of("item 10")), (Some("new"), Some(10)));
}

/// Features are encoded by the beam of their model.
#[test]
fn features_are_encoded_by_the_beam() {
    let (_dir, server) = serve_live(Options { beam: 4, ..Options::new(1) });
    let mut client = server.client();
    let features = numbers(77, 40 * DIM);
    let items: Vec<_> = features.chunks_exact(DIM).map(|features| value!({ "features": features })).collect();
    let answer = client.post("/v1/items", &value!({ "items": items }).to_string());
    assert_eq!(answer.status, 200, "{}", answer.text());
    let beam = Beam { width: 4, weights: &[1.0; LEVELS] };
    let (codebooks, mut n_better) = (codebooks(), 0);
    let codes = codebooks.encode_beam(&features, beam).unwrap();
    for (id, (code, features)) in (500..).zip(codes.chunks_exact(LEVELS).zip(features.chunks_exact(DIM))) {
        // The query of an item is what its code stands for.
        let query = codebooks.decode(code, codebooks.max_length()).unwrap();
        let [by_id, by_features] = [value!({ "id": id }), value!({ "features": query })]
            .map(|body| hits(&json(&client.post("/v1/search", &body.to_string()))));
        assert_eq!(by_id, by_features, "{id}");
        // So is the code that is shown.
        let shown = json(&client.post("/v1/code", &value!({ "features": features }).to_string()));
        assert_eq!(shown["code"], value!(code), "{id}");
        n_better += usize::from(codebooks.encode(features).unwrap() != code);
    }
    assert!(n_better > 0, "the beam finds what greedy codes are");
}

/// Nor do two items of one request replace each other when they are added.
#[test]
fn items_of_one_request_differ() {
    let (_dir, server) = serve_live(Options::new(1));
    for (body, added, put) in [
        (r#"{"items": [{"id": 600, "code": [1, 2, 3]}, {"id": 600, "code": [3, 2, 1]}]}"#, 409, [600, 600]),
        (
            r#"{"items": [{"name": "a", "code": [1, 2, 3]}, {"name": "a", "code": [3, 2, 1]}]}"#,
            409,
            [601, 601],
        ),
        (r#"{"items": [{"code": [1, 2, 3]}, {"id": 602, "code": [3, 2, 1]}]}"#, 409, [602, 602]),
    ] {
        let send = |method| {
            server.client().send(
                method,
                "/v1/items",
                &[("content-type", "application/json")],
                body.as_bytes(),
            )
        };
        assert_eq!(send("POST").status, added, "{body}");
        assert_eq!(json(&send("PUT"))["ids"], value!(put), "{body}");
    }
}

/// Writers and readers at the same time, with small segments that are merged meanwhile.
#[test]
fn nothing_is_lost_among_many_clients() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("live");
    let mut server = Server::start(Gallery::Live(Box::new(live(&folder, 8))), Options::new(2));
    thread::scope(|scope| {
        for writer in 0..4 {
            let mut client = server.client();
            scope.spawn(move || {
                for n in 0..30 {
                    let id = 1000 + 100 * writer + n;
                    let body =
                        format!("{{\"items\": [{{\"id\": {id}, \"code\": [{writer}, {}, 0]}}]}}", n % 16);
                    assert_eq!(client.post("/v1/items", &body).status, 200);
                    // An answered change is in every search from then on.
                    let found =
                        client.post("/v1/search?k=1", &format!("{{\"id\": {id}, \"allow\": [{id}]}}"));
                    assert_eq!(json(&found)["hits"][0]["id"], id);
                    if n % 3 == 0 {
                        assert_eq!(client.send("DELETE", &format!("/v1/items/{id}"), &[], b"").status, 200);
                    }
                }
            });
        }
    });
    assert_eq!(json(&server.client().get("/v1/index"))["items"], 500 + 4 * 20);
    server.stop();
    let snapshot = Snapshot::open(&folder).unwrap();
    snapshot.verify().unwrap();
    let stats = snapshot.stats();
    assert!(stats.segments.len() < 40, "no merge: {stats:?}");
    let (ids, found) = snapshot.ids_and_codes();
    let added =
        (0..4).flat_map(|writer| (0..30).filter(|n| n % 3 != 0).map(move |n| 1000 + 100 * writer + n));
    assert_eq!(ids, (0..500).chain(added).collect::<Vec<u64>>());
    for (id, code) in ids.iter().zip(found.chunks_exact(LEVELS)).skip(500) {
        assert_eq!(code, [(id / 100 - 10) as u8, (id % 100 % 16) as u8, 0], "{id}");
    }
    // The writer gave the folder back.
    LiveIndex::open(&folder).unwrap();
}

/// The folder cannot be written for a while.
#[test]
fn a_change_that_cannot_be_written_is_not_made() {
    let (dir, mut server) = serve_live(Options::new(2));
    let (folder, elsewhere) = (dir.path().join("live"), dir.path().join("elsewhere"));
    let mut client = server.client();
    fs::rename(&folder, &elsewhere).unwrap();
    let answer = client.post("/v1/items", r#"{"items": [{"id": 7000, "code": [1, 2, 3]}]}"#);
    assert_eq!(answer.status, 500, "{}", answer.text());
    assert_eq!(client.post("/v1/search", r#"{"id": 7000}"#).status, 404);
    assert_eq!(client.post("/v1/search", r#"{"id": 7}"#).status, 200);
    fs::rename(&elsewhere, &folder).unwrap();
    let answer = client.post("/v1/items", r#"{"items": [{"id": 7001, "code": [1, 2, 3]}]}"#);
    assert_eq!(json(&answer)["items"], 501);
    server.stop();
    let snapshot = Snapshot::open(&folder).unwrap();
    assert_eq!((snapshot.len(), snapshot.code_of(7000)), (501, None));
    assert_eq!(snapshot.code_of(7001), Some(vec![1, 2, 3]));
}

#[test]
fn changes_need_the_token() {
    let (_dir, server) = serve_live(Options { token: Some("a-secret".to_owned()), ..Options::new(2) });
    let mut client = server.client();
    let mut delete = |id: u64, given: &str| {
        let headers = [("authorization", given), ("host", "gallery.example")];
        let headers = if given.is_empty() { &headers[1..] } else { &headers };
        client.send("DELETE", &format!("/v1/items/{id}"), headers, b"")
    };
    for wrong in ["", "a-secret", "Bearer", "Bearer ", "Bearer a-secre", "Bearer a-secret2", "Basic a-secret"]
    {
        let answer = delete(3, wrong);
        assert_eq!((answer.status, answer.header("www-authenticate")), (401, Some("Bearer")), "{wrong}");
    }
    assert_eq!(delete(3, "Bearer a-secret").status, 200);
    assert_eq!(delete(4, "bearer  a-secret").status, 200);
    // Everybody may search.
    assert_eq!(client.post("/v1/search", r#"{"id": 5}"#).status, 200);
    assert_eq!(client.post("/v1/items", r#"{"items": [{"code": [1, 2, 3]}]}"#).status, 401);
}

/// A page of another site may reach this machine by a name of its own, and a proxy passes on the
/// requests of other machines.
#[test]
fn without_a_token_only_this_machine_is_answered() {
    let (_dir, server) = serve_live(Options::new(2));
    let mut client = server.client();
    let search = br#"{"id": 5}"#;
    let mut both = |id: u64, headers: &[(&str, &str)]| {
        let delete = client.send("DELETE", &format!("/v1/items/{id}"), headers, b"").status;
        let headers = [headers, &[("content-type", "application/json")]].concat();
        [delete, client.send("POST", "/v1/search", &headers, search).status]
    };
    for host in [
        "attacker.example",
        "attacker.example:8080",
        "192.0.2.7",
        "localhost.attacker.example",
        "[2001:db8::1]:80",
        "",
    ] {
        assert_eq!(both(3, &[("host", host)]), [403; 2], "{host}");
    }
    for name in ["forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-real-ip"] {
        assert_eq!(both(3, &[("host", "localhost"), (name, "192.0.2.7")]), [403; 2], "{name}");
    }
    let cross = ("sec-fetch-site", "cross-site");
    assert_eq!(both(3, &[("host", "localhost"), cross, ("sec-fetch-mode", "no-cors")]), [403; 2]);
    assert_eq!(both(3, &[("host", "localhost"), cross]), [403; 2]);
    let headers = [cross, ("sec-fetch-mode", "navigate")];
    assert_eq!(server.client().send("GET", "/", &headers, b"").status, 200, "a link to the page");
    for (id, host) in (0..).zip(["localhost", "LOCALHOST:8080", "127.0.0.1:8080", "[::1]:8080", "127.1.2.3"])
    {
        assert_eq!(both(id, &[("host", host)]), [200; 2], "{host}");
    }
}
