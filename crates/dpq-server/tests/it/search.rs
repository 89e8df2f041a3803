//! Searches find what the libraries find, to the bit.

use dpq_index::{CodeLength, Metric, SearchOptions};
use dpq_server::{Gallery, Options};
use serde_json::Value;

use crate::{DIM, LEVELS, Server, codebooks, hits, index, json, numbers, serve_live, with_images};

/// Returns what a search of one index file of all items finds.
fn expected(metric: Metric, query: &[f32], options: &SearchOptions) -> Vec<(u64, u32)> {
    let found = index(metric).search_batch(query, options).unwrap().remove(0);
    found.iter().map(|hit| (hit.id, hit.score.to_bits())).collect()
}

#[test]
fn features_find_what_the_index_finds() {
    let file = Server::start(Gallery::File(Box::new(index(Metric::Euclidean))), Options::new(2));
    let (_dir, live) = serve_live(Options::new(2));
    for server in [&file, &live] {
        let mut client = server.client();
        for seed in 0..20 {
            let query = numbers(seed + 10, DIM);
            for levels in 1..=LEVELS {
                let options = SearchOptions::new(7).length(CodeLength::from_levels(levels).unwrap());
                let path = format!("/v1/search?k=7&bits={}", 8 * levels);
                let answer = client.post(&path, &format!("{{\"features\": {query:?}}}"));
                assert_eq!(answer.status, 200, "{}", answer.text());
                let found = json(&answer);
                assert_eq!(hits(&found), expected(Metric::Euclidean, &query, &options));
                assert_eq!(found["bits"], 8 * levels);
            }
        }
    }
}

#[test]
fn shortlists_scores_and_filters_are_those_of_the_index() {
    let (_dir, server) = serve_live(Options::new(2));
    let mut client = server.client();
    let query = numbers(99, DIM);
    let index = index(Metric::Euclidean);
    let bits = |bits| CodeLength::from_bits(bits).unwrap();
    let (allowed, denied) = ([3, 10, 20, 40, 499, 7_000], [20, 30]);
    let allow = index.allow(&allowed);
    let deny = index.deny(&denied);
    let both = allow.and(&deny).unwrap();
    let options = SearchOptions::new(10);
    for (path, lists, options) in [
        ("shortlist=20@8", "", options.shortlist(20, bits(8))),
        ("shortlist=20@8&exact=true&bits=16", "", options.shortlist(20, bits(8)).exact().length(bits(16))),
        ("min_score=0.5&k=100", "", SearchOptions::new(100).min_score(0.5)),
        ("", r#", "allow": [3, "item 10", 20, 40, 499, 7000, "nobody"]"#, options.filter(&allow)),
        ("", r#", "deny": ["item 20", 30]"#, options.filter(&deny)),
        ("", r#", "allow": [3, 10, 20, 40, 499], "deny": [20, 30]"#, options.filter(&both)),
        ("", r#", "allow": []"#, options.filter(&index.allow(&[]))),
    ] {
        let answer =
            client.post(&format!("/v1/search?{path}"), &format!("{{\"features\": {query:?}{lists}}}"));
        assert_eq!(answer.status, 200, "{}", answer.text());
        let found = index.search_batch(&query, &options).unwrap().remove(0);
        let found: Vec<_> = found.iter().map(|hit| (hit.id, hit.score.to_bits())).collect();
        assert_eq!(hits(&json(&answer)), found, "{path} {lists}");
    }
}

#[test]
fn items_and_images_are_queries() {
    let (_dir, server) = serve_live(with_images(2));
    let mut client = server.client();
    let code = crate::codes()[40 * LEVELS..41 * LEVELS].to_vec();
    let query = codebooks().decode(&code, codebooks().max_length()).unwrap();
    let found = expected(Metric::Euclidean, &query, &SearchOptions::new(10));
    for body in [r#"{"id": 40}"#, r#"{"name": "item 40"}"#] {
        let answer = json(&client.post("/v1/search", body));
        assert_eq!(hits(&answer), found, "{body}");
        let mine = answer["hits"].as_array().unwrap().iter().find(|hit| hit["id"] == 40).unwrap();
        assert_eq!(mine["name"], "item 40");
    }
    let query = [1.0, 0.5, 0.25, 0.0];
    let image = client.send("POST", "/v1/search?k=3", &[("content-type", "image/png")], b"img\x40\x20\x10\0");
    let found = expected(Metric::Euclidean, &query, &SearchOptions::new(3));
    assert_eq!(hits(&json(&image)), found);
    // An index file finds ids in another way.
    let server = Server::start(Gallery::File(Box::new(index(Metric::InnerProduct))), Options::new(1));
    let query = codebooks().decode(&code, codebooks().max_length()).unwrap();
    let found = expected(Metric::InnerProduct, &query, &SearchOptions::new(10));
    assert_eq!(hits(&json(&server.client().post("/v1/search", r#"{"id": 40}"#))), found);
}

#[test]
fn a_progressive_search_answers_at_each_length() {
    let (_dir, server) = serve_live(Options::new(2));
    let mut client = server.client();
    let body = format!("{{\"features\": {:?}, \"deny\": [1, 2]}}", numbers(5, DIM));
    for (path, n) in [("progressive=true", LEVELS), ("progressive=true&bits=16&k=3", 2)] {
        let answer = client.post(&format!("/v1/search?{path}"), &body);
        assert_eq!((answer.status, answer.header("content-type")), (200, Some("text/event-stream")));
        let events: Vec<&str> = answer.text().split_terminator("\n\n").collect();
        assert_eq!((events.len(), events[n]), (n + 1, "event: end\ndata: {}"));
        for (level, event) in (1..).zip(&events[..n]) {
            let data: Value =
                serde_json::from_str(event.strip_prefix("event: hits\ndata: ").unwrap()).unwrap();
            let single = path.replace("progressive=true", "").replace("&bits=16", "");
            let single = client.post(&format!("/v1/search?bits={}{single}", 8 * level), &body);
            assert_eq!(hits(&data), hits(&json(&single)));
            assert_eq!(data["bits"], 8 * level);
        }
    }
}

#[test]
fn the_index_and_the_metrics_describe_the_server() {
    let (_dir, server) = serve_live(with_images(2));
    let mut client = server.client();
    assert_eq!(client.get("/healthz").text(), "ok\n");
    let info = json(&client.get("/v1/index"));
    let expected = serde_json::json!({
        "items": 500, "dim": DIM, "bits": [8, 16, 24], "codewords": 16, "metric": "l2", "commit": 1,
        "live": true, "token": false, "images": true, "pictures": false, "map": false, "max_k": 10_000,
        "max_body": 8 << 20, "fingerprint": codebooks().fingerprint(), "bytes": info["bytes"],
    });
    assert_eq!(info, expected);
    assert_eq!(client.post("/v1/search", "{}").status, 400);
    assert_eq!(client.get("/nothing/here").status, 404);
    let metrics = client.get("/metrics");
    for line in [
        "dpq_requests_total{route=\"/healthz\",status=\"200\"} 1",
        "dpq_requests_total{route=\"/v1/search\",status=\"400\"} 1",
        "dpq_requests_total{route=\"other\",status=\"404\"} 1",
        "dpq_request_seconds_count{route=\"/v1/index\"} 1",
        "dpq_items 500",
        "dpq_commit 1",
        "dpq_requests_working 0",
    ] {
        assert!(metrics.text().lines().any(|found| found == line), "{line}\n{}", metrics.text());
    }
}
