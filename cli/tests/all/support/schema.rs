//! JSON Schema, as far as the OpenRPC document uses it: whether a value fits, and values that do or do not.

use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Map, Value, json};

/// The members of a schema that say nothing about a value.
const WORDS: [&str; 4] = ["description", "default", "title", "format"];

/// Says why a value does not fit a schema of `document`. An object has no members but those that are named, unless its schema says
/// so, for what is not described is not found by those who read the description.
pub(crate) fn check(document: &Value, schema: &Value, value: &Value) -> Result<(), String> {
    let schema = match schema {
        Value::Bool(true) => return Ok(()),
        Value::Object(schema) => schema,
        _ => return Err(format!("{schema} is no schema")),
    };
    for (name, rule) in schema {
        let fits = match name.as_str() {
            "$ref" => check(document, resolve(document, rule), value).map(|()| true)?,
            "type" => one_or_many(rule).iter().any(|it| is_of(it, value)),
            "enum" => rule.as_array().unwrap().contains(value),
            "const" => rule == value,
            "minimum" => value.as_f64().is_none_or(|it| it >= rule.as_f64().unwrap()),
            "maximum" => value.as_f64().is_none_or(|it| it <= rule.as_f64().unwrap()),
            "pattern" => value.as_str().is_none_or(|it| matches_pattern(rule.as_str().unwrap(), it)),
            "allOf" => rule
                .as_array()
                .unwrap()
                .iter()
                .try_for_each(|it| check(document, it, value))
                .map(|()| true)?,
            "anyOf" => rule.as_array().unwrap().iter().any(|it| check(document, it, value).is_ok()),
            "oneOf" => {
                rule.as_array().unwrap().iter().filter(|it| check(document, it, value).is_ok()).count() == 1
            }
            "items" => {
                for item in value.as_array().into_iter().flatten() {
                    check(document, rule, item)?;
                }
                true
            }
            "required" => value.as_object().is_none_or(|members| {
                rule.as_array().unwrap().iter().all(|it| members.contains_key(it.as_str().unwrap()))
            }),
            "properties" => {
                for (name, value) in value.as_object().into_iter().flatten() {
                    match rule.get(name) {
                        Some(rule) => check(document, rule, value).map_err(|why| format!("{name}: {why}"))?,
                        None if schema.get("additionalProperties") == Some(&json!(true)) => {}
                        None => return Err(format!("the member {name:?} is not described")),
                    }
                }
                true
            }
            "additionalProperties" => true,
            name if WORDS.contains(&name) => true,
            name => return Err(format!("this test knows no keyword {name:?}")),
        };
        if !fits {
            return Err(format!("{value} does not fit {name} {rule}"));
        }
    }
    Ok(())
}

pub(crate) fn resolve<'a>(document: &'a Value, reference: &Value) -> &'a Value {
    let pointer = reference.as_str().unwrap().strip_prefix('#').unwrap();
    document.pointer(pointer).unwrap_or_else(|| panic!("{reference} leads nowhere"))
}

fn one_or_many(rule: &Value) -> Vec<&str> {
    match rule {
        Value::Array(rules) => rules.iter().map(|it| it.as_str().unwrap()).collect(),
        rule => vec![rule.as_str().unwrap()],
    }
}

fn is_of(name: &str, value: &Value) -> bool {
    match name {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_u64() || value.is_i64(),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        name => panic!("this test knows no type {name:?}"),
    }
}

fn matches_pattern(pattern: &str, text: &str) -> bool {
    assert_eq!(pattern, "^[0-9a-f]{64}$", "this test knows one pattern");
    text.len() == 64 && text.bytes().all(|it| matches!(it, b'0'..=b'9' | b'a'..=b'f'))
}

/// A method of the document.
pub(crate) fn method<'a>(document: &'a Value, name: &str) -> &'a Value {
    let methods = document["methods"].as_array().unwrap();
    methods.iter().find(|it| it["name"] == name).unwrap_or_else(|| panic!("there is no {name}"))
}

/// Checks a method's answer.
pub(crate) fn assert_answers(document: &Value, name: &str, answer: &Value) {
    let schema = &method(document, name)["result"]["schema"];
    check(document, schema, answer).unwrap_or_else(|why| panic!("{name}: {why}\n{answer}"));
}

/// Values that fit a schema, most of them.
pub(crate) fn fitting(document: &Value, schema: &Value) -> BoxedStrategy<Value> {
    if let Some(reference) = schema.get("$ref") {
        return fitting(document, resolve(document, reference));
    }
    for name in ["anyOf", "oneOf", "allOf"] {
        if let Some(rules) = schema.get(name).and_then(Value::as_array) {
            return proptest::strategy::Union::new(rules.iter().map(|it| fitting(document, it))).boxed();
        }
    }
    if let Some(values) = schema.get("enum").and_then(Value::as_array) {
        return select(values.clone()).boxed();
    }
    if let Some(value) = schema.get("const") {
        return Just(value.clone()).boxed();
    }
    if schema.get("pattern").is_some() {
        return proptest::collection::vec(select(b"0123456789abcdef".to_vec()), 64)
            .prop_map(|digits| String::from_utf8(digits).unwrap().into())
            .boxed();
    }
    let Some(types) = schema.get("type") else { return anything().boxed() };
    proptest::strategy::Union::new(one_or_many(types).iter().map(|name| of_type(document, name, schema)))
        .boxed()
}

fn of_type(document: &Value, name: &str, schema: &Value) -> BoxedStrategy<Value> {
    match name {
        "null" => Just(Value::Null).boxed(),
        "boolean" => any::<bool>().prop_map(Value::from).boxed(),
        "integer" => {
            prop_oneof![(0_u64..9).prop_map(Value::from), any::<u64>().prop_map(Value::from)].boxed()
        }
        "string" => text().prop_map(Value::from).boxed(),
        "array" => {
            let item = schema.get("items").map_or_else(|| anything().boxed(), |it| fitting(document, it));
            proptest::collection::vec(item, 0..4).prop_map(Value::from).boxed()
        }
        _ => {
            let members = schema.get("properties").and_then(Value::as_object);
            let members: Vec<_> = members
                .into_iter()
                .flatten()
                .map(|(name, rule)| {
                    let name = name.clone();
                    fitting(document, rule).prop_map(move |value| (name.clone(), value))
                })
                .collect();
            members.prop_map(|it| Value::Object(it.into_iter().collect())).boxed()
        }
    }
}

/// Texts that programs stumble over, and any.
fn text() -> impl Strategy<Value = String> {
    let odd = [
        "",
        " ",
        "..",
        "../../x",
        "/etc/passwd",
        "/dev/zero",
        "/proc/self/mem",
        "a\0b",
        "\u{202e}x",
        "-1",
        "127.0.0.1:1",
        "[::1]:0",
        "\u{1f600}",
        "NULL",
        "megatorrent://",
    ];
    prop_oneof![
        3 => select(odd.to_vec()).prop_map(str::to_owned),
        2 => any::<String>(),
        1 => "[0-9a-f]{64}".prop_map(|key| format!("megatorrent://{key}")),
        1 => (1_usize..20_000).prop_map(|len| "\u{e9}".repeat(len)),
    ]
}

/// Any JSON.
pub(crate) fn anything() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        text().prop_map(Value::from),
    ];
    let nested = leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::vec((any::<String>(), inner), 0..4)
                .prop_map(|it| Value::Object(it.into_iter().collect())),
        ]
    });
    prop_oneof![9 => nested, 1 => (1_usize..100).prop_map(|depth| (0..depth).fold(json!(0), |inner, _| json!([inner])))]
}

/// Parameters of a method: those that it takes, with one of them in three left out or of another kind, and now and then one too many.
pub(crate) fn params(document: &Value, method: &Value) -> BoxedStrategy<Value> {
    let one = |param: &Value| {
        let name = param["name"].as_str().unwrap().to_owned();
        let value = prop_oneof![
            4 => fitting(document, &param["schema"]).prop_map(Some),
            1 => anything().prop_map(Some),
            1 => Just(None),
        ];
        value.prop_map(move |value| value.map(|value| (name.clone(), value)))
    };
    let named: Vec<_> = method["params"].as_array().unwrap().iter().map(one).collect();
    let more = prop_oneof![8 => Just(None), 1 => (any::<String>(), anything()).prop_map(Some)];
    let object = (named, more).prop_map(|(named, more)| {
        Value::Object(named.into_iter().flatten().chain(more).collect::<Map<_, _>>())
    });
    prop_oneof![9 => object, 1 => anything()].boxed()
}
