//! Answers to requests that fail: a status and one sentence.

use std::error::Error;

use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::{IntoResponses, ToSchema};

/// The body of an answer to a request that fails.
#[derive(Serialize, ToSchema)]
pub(crate) struct Failed {
    /// One sentence: the finding, the expectation, the remedy.
    error: String,
}

/// The answers to requests that fail, of all paths.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "only the description has it")]
pub(crate) enum Refused {
    /// The request is wrong; nothing changed
    #[response(status = "4XX")]
    Wrong(Failed),
    /// The server failed
    #[response(status = 500)]
    Broken(Failed),
    /// Too much to do, see Retry-After; nothing changed
    #[response(status = 503)]
    Busy(Failed),
}

/// The maximum length of a sentence, in bytes.
const MAX_SENTENCE: usize = 400;

/// The answer to a request that fails.
#[derive(Debug)]
pub(crate) struct Refusal {
    status: StatusCode,
    sentence: String,
}

impl Refusal {
    /// The middle of a long sentence, which repeats the request, is left out.
    pub(crate) fn new(status: StatusCode, sentence: impl Into<String>) -> Self {
        let mut sentence = sentence.into();
        if sentence.len() > MAX_SENTENCE {
            let (start, end) = (MAX_SENTENCE / 2, sentence.len() - MAX_SENTENCE / 2);
            let (start, end) = (sentence.floor_char_boundary(start), sentence.ceil_char_boundary(end));
            sentence.replace_range(start..end, " … ");
        }
        Self { status, sentence }
    }

    /// The request is wrong.
    pub(crate) fn bad(sentence: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, sentence)
    }

    /// The server has too much to do.
    pub(crate) fn busy() -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "too many requests are waiting, try again later")
    }

    /// The work took too long.
    pub(crate) fn late() -> Self {
        let sentence = "the request took too long, ask for less or try again later";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, sentence)
    }

    /// A change took too long.
    pub(crate) fn late_change() -> Self {
        let sentence =
            "the change took too long, and may still be made: search for it before you send it again";
        Self::new(StatusCode::GATEWAY_TIMEOUT, sentence)
    }

    /// A thread of the server ended early.
    pub(crate) fn broken() -> Self {
        let sentence = "the server failed at this request, which is a defect of the server";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, sentence)
    }

    /// The sentence, for logs.
    pub(crate) fn sentence(&self) -> &str {
        &self.sentence
    }

    /// Returns the body of the answer.
    pub(crate) fn into_json(self) -> String {
        to_json(&Failed { error: self.sentence })
    }

    /// Adds the reasons of the system to an error's own sentence.
    fn of(status: StatusCode, error: &dyn Error) -> Self {
        let mut sentence = error.to_string();
        let mut source = error.source();
        while let Some(error) = source {
            sentence += &format!(": {error}");
            source = error.source();
        }
        Self::new(status, sentence)
    }
}

/// Why the server failed at a request, for logs.
#[derive(Clone)]
pub(crate) struct Failure(pub(crate) String);

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = self.status;
        let failure = status.is_server_error().then(|| Failure(self.sentence.clone()));
        let mut response = (status, json_body(self.into_json())).into_response();
        let mut set = |name: HeaderName, value| {
            response.headers_mut().insert(name, HeaderValue::from_static(value));
        };
        match status {
            StatusCode::SERVICE_UNAVAILABLE => set(header::RETRY_AFTER, "1"),
            StatusCode::UNAUTHORIZED => set(header::WWW_AUTHENTICATE, "Bearer"),
            _ => {}
        }
        failure.map(|failure| response.extensions_mut().insert(failure));
        response
    }
}

/// Writes the body of an answer.
pub(crate) fn to_json(answer: &impl Serialize) -> String {
    serde_json::to_string(answer).expect("answers have string keys")
}

/// Makes an answer of JSON.
pub(crate) fn json_body(json: impl Into<axum::body::Body>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], json.into())
}

impl From<dpq_codebook::Error> for Refusal {
    fn from(error: dpq_codebook::Error) -> Self {
        Self::of(codebook_status(&error), &error)
    }
}

impl From<dpq_index::Error> for Refusal {
    fn from(error: dpq_index::Error) -> Self {
        match error {
            dpq_index::Error::Interrupted => Self::late(),
            error => Self::of(index_status(&error), &error),
        }
    }
}

impl From<dpq_live::Error> for Refusal {
    fn from(error: dpq_live::Error) -> Self {
        let status = match &error {
            dpq_live::Error::Index(dpq_index::Error::Interrupted) => return Self::late(),
            dpq_live::Error::Index(error) => index_status(error),
            dpq_live::Error::Codebook(error) => codebook_status(error),
            dpq_live::Error::CodeLength { .. } | dpq_live::Error::Code { .. } => StatusCode::BAD_REQUEST,
            dpq_live::Error::UnknownId { .. } => StatusCode::NOT_FOUND,
            dpq_live::Error::NameTaken { .. } => StatusCode::CONFLICT,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self::of(status, &error)
    }
}

/// All but damaged files are arguments of the request.
fn codebook_status(error: &dpq_codebook::Error) -> StatusCode {
    match error {
        dpq_codebook::Error::File(_) | dpq_codebook::Error::Content { .. } => {
            StatusCode::INTERNAL_SERVER_ERROR
        }
        _ => StatusCode::BAD_REQUEST,
    }
}

fn index_status(error: &dpq_index::Error) -> StatusCode {
    match error {
        dpq_index::Error::Codebook(error) => codebook_status(error),
        dpq_index::Error::NanMinScore => StatusCode::BAD_REQUEST,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}
