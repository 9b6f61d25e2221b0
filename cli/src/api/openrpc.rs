//! The description of all methods, made from their types: an OpenRPC 1.3 document.

use schemars::generate::SchemaSettings;
use serde_json::{Value, json};

use super::{ApiError, Event, METHODS};

/// The document that `GET /api/openrpc.json` gives.
pub(crate) fn openrpc() -> Value {
    let settings = SchemaSettings::draft07().with(|it| it.definitions_path = "/components/schemas".into());
    let mut generator = settings.into_generator();
    let methods: Vec<Value> = METHODS
        .iter()
        .map(|method| {
            let doc = method.doc.trim();
            let params = (method.params)(&mut generator);
            let answer = (method.answer)(&mut generator);
            json!({
                "name": method.name, "summary": doc, "x-scope": method.scope, "paramStructure": "by-name",
                "params": by_name(&params.to_value()), "result": { "name": "answer", "schema": answer },
            })
        })
        .collect();
    // Events and errors are described too, though no method names them.
    generator.subschema_for::<Event>();
    generator.subschema_for::<ApiError>();
    json!({
        "openrpc": "1.3.2",
        "info": {
            "title": "Megatorrent", "version": env!("CARGO_PKG_VERSION"),
            "description": "What a node can do: POST /api/rpc, JSON-RPC 2.0. Events: GET /api/events.",
        },
        "methods": methods,
        "components": { "schemas": generator.take_definitions(true) },
    })
}

/// OpenRPC lists parameters one by one; the types are objects.
fn by_name(schema: &Value) -> Value {
    let required: Vec<&str> =
        schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let members = schema["properties"].as_object().into_iter().flatten();
    members
        .map(|(name, schema)| json!({ "name": name, "required": required.contains(&name.as_str()), "schema": schema }))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_description_lists_each_method_with_its_parameters() {
        let document = openrpc();
        let methods = document["methods"].as_array().expect("they are a list");
        assert_eq!(methods.len(), METHODS.len());
        let add = methods.iter().find(|it| it["name"] == "addSubscription").expect("it is one of them");
        let uri = add["params"].as_array().expect("a list").iter().find(|it| it["name"] == "uri");
        assert_eq!(uri.expect("it takes one")["required"], true);
        assert!(document["components"]["schemas"]["Subscription"].is_object());
    }
}
