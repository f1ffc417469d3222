//! The OpenAPI 3.1 document of `/api/v1`, written from the table of operations and from `schemas.json`.

use serde_json::{Map, Value, json};

use crate::api::ApiError;
use crate::routes::{Answer, Op, ROUTES, Reach, Route};

/// JSON schemas of the values of [`crate::api`]; a test holds them against what is really written.
const SCHEMAS: &str = include_str!("schemas.json");

/// The document.
pub(crate) fn document() -> Result<Value, ApiError> {
    let schemas: Value = serde_json::from_str(SCHEMAS)
        .map_err(|error| ApiError::failed(format!("the schemas cannot be read: {error}")))?;
    let mut paths = Map::new();
    for route in ROUTES {
        let path = paths.entry(route.path).or_insert_with(|| json!({}));
        if let Some(path) = path.as_object_mut() {
            path.insert(route.method.as_str().to_ascii_lowercase(), operation(route));
        }
    }
    Ok(json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Rialto",
            "version": env!("CARGO_PKG_VERSION"),
            "license": { "name": "MIT OR Apache-2.0" },
            "description": "One site's node. Integers are bytes unless their name says otherwise, seconds are floats, times are RFC 3339. \
                A release is named by its record id, a unique prefix of at least 12 characters, PETNAME/NAME@VERSION, or PETNAME/NAME:CHANNEL; in a path it is one \
                percent-encoded segment: PETNAME%2FNAME%40VERSION. Bodies are JSON of at most 64 KiB; unknown fields are errors. \
                Operations whose x-rialto-reach is `socket` are there on the UNIX socket only, `session` also on loopback TCP with a session \
                cookie, `anyone` also there without one. The UNIX socket asks for no session."
        },
        "servers": [{ "url": "/" }],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "session": { "type": "apiKey", "in": "cookie", "name": "rialto-…", "description": "From the one-time link of `rialto web`; loopback TCP only." }
            }
        }
    }))
}

fn operation(route: &Route) -> Value {
    let mut operation = json!({
        "operationId": operation_id(route.op),
        "summary": route.summary,
        "x-rialto-reach": match route.reach { Reach::Anyone => "anyone", Reach::Session => "session", Reach::Socket => "socket" },
        "security": match route.reach { Reach::Session => json!([{ "session": [] }]), _ => json!([]) },
        "parameters": parameters(route),
        "responses": responses(route),
    });
    if let Some(schema) = route.body {
        operation["requestBody"] = json!({ "required": route.op != Op::StopInstance, "content": { "application/json": { "schema": reference(schema) } } });
    }
    operation
}

fn parameters(route: &Route) -> Vec<Value> {
    let in_path = route.path.split('/').filter_map(|segment| segment.strip_prefix('{')?.strip_suffix('}'));
    let in_path =
        in_path.map(|name| json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } }));
    let in_query = route.query.iter().map(
        |(name, kind, meaning)| json!({ "name": name, "in": "query", "required": false, "description": meaning, "schema": { "type": kind } }),
    );
    in_path.chain(in_query).collect()
}

fn responses(route: &Route) -> Value {
    let json_of = |schema: Value| json!({ "application/json": { "schema": schema } });
    let (status, answer) = match route.answer {
        Answer::Json("object") => {
            ("200", json!({ "description": "Done.", "content": json_of(json!({ "type": "object" })) }))
        }
        Answer::Json(schema) => ("200", json!({ "description": "Done.", "content": json_of(reference(schema)) })),
        Answer::List(schema) => (
            "200",
            json!({ "description": "Done.", "content": json_of(json!({ "type": "array", "items": reference(schema) })) }),
        ),
        Answer::Job(schema) => {
            let description = format!("Begun: follow /api/v1/jobs/{{job}}/events. Its `done` carries a {schema}.");
            (
                "202",
                json!({ "description": description, "content": json_of(reference("JobStarted")), "x-rialto-result": reference(schema) }),
            )
        }
        Answer::Nothing => ("204", json!({ "description": "Done." })),
        Answer::Events(schema) => {
            let description = format!("Server-sent events; each `data:` is one {schema} in JSON.");
            (
                "200",
                json!({ "description": description, "content": { "text/event-stream": { "schema": reference(schema) } } }),
            )
        }
        Answer::Text(content_type) => {
            ("200", json!({ "description": "Done.", "content": { content_type: { "schema": { "type": "string" } } } }))
        }
    };
    json!({ status: answer, "default": { "description": "Not done, and why.", "content": json_of(reference("ApiError")) } })
}

fn reference(schema: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{schema}") })
}

/// `AddImage` → `addImage`.
fn operation_id(op: Op) -> String {
    let name = format!("{op:?}");
    let first = name.chars().next().map(|first| first.to_ascii_lowercase());
    first.into_iter().chain(name.chars().skip(1)).collect()
}
