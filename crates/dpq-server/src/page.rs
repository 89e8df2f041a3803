//! The page at `/`, for people: files that the program contains.

use axum::extract::Path;
use axum::extract::rejection::PathRejection;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::refusal::Refusal;

/// Names, kinds and contents.
const FILES: [(&str, &str, &str); 10] = [
    ("index.html", HTML, include_str!("../page/index.html")),
    ("style.css", "text/css; charset=utf-8", include_str!("../page/style.css")),
    ("icon.svg", "image/svg+xml", include_str!("../page/icon.svg")),
    ("main.js", JS, include_str!("../page/main.js")),
    ("api.js", JS, include_str!("../page/api.js")),
    ("dom.js", JS, include_str!("../page/dom.js")),
    ("query.js", JS, include_str!("../page/query.js")),
    ("results.js", JS, include_str!("../page/results.js")),
    ("growth.js", JS, include_str!("../page/growth.js")),
    ("map.js", JS, include_str!("../page/map.js")),
];

const HTML: &str = "text/html; charset=utf-8";
const JS: &str = "text/javascript; charset=utf-8";

/// Nothing but files of this server, and pictures that the page itself was given.
const POLICY: &str = "default-src 'self'; img-src 'self' blob:; object-src 'none'; base-uri 'none'; \
    form-action 'none'; frame-ancestors 'none'";

pub(crate) async fn index() -> Result<Response, Refusal> {
    file(Ok(Path("index.html".to_owned()))).await
}

pub(crate) async fn file(name: Result<Path<String>, PathRejection>) -> Result<Response, Refusal> {
    let name = name.map_or_else(|_| String::new(), |Path(name)| name);
    let found = FILES.iter().find(|(other, ..)| *other == name);
    let (_, kind, text) =
        found.ok_or_else(|| Refusal::new(StatusCode::NOT_FOUND, "the page has no such file, open /"))?;
    let headers = [
        (header::CONTENT_TYPE, *kind),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-cache"),
    ];
    Ok((headers, *text).into_response())
}
