//! The description of the interface, `/openapi.json`.

use axum::response::IntoResponse;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi};

use crate::refusal::{Failed, json_body};
use crate::writer::Changed;
use crate::{browse, code, info, items, search};

#[derive(OpenApi)]
#[openapi(
    info(title = "dpq", description = "Search of a gallery by codes whose every prefix is a code."),
    paths(
        search::search,
        code::code,
        items::add,
        items::put,
        items::delete,
        browse::list,
        browse::picture,
        browse::map,
        info::index,
        info::health,
        info::metrics,
    ),
    components(schemas(Changed, Failed)),
    modifiers(&Token)
)]
struct Description;

struct Token;

impl Modify for Token {
    fn modify(&self, description: &mut utoipa::openapi::OpenApi) {
        let token = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
        let components = description.components.get_or_insert_default();
        components.add_security_scheme("token", SecurityScheme::Http(token));
    }
}

/// Returns the OpenAPI description of the interface, which `/openapi.json` answers: JSON.
pub fn openapi() -> String {
    Description::openapi().to_pretty_json().expect("a description is JSON") + "\n"
}

pub(crate) async fn get() -> impl IntoResponse {
    json_body(openapi())
}
