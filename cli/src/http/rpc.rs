//! JSON-RPC 2.0, and the plain form `{"method","params"}` → `{"result"}` or `{"error"}`.

use serde_json::{Map, Value, json};

use super::Backend;
use super::limits::{BATCH_ANSWER_BYTES_MAX, BATCH_MAX};
use crate::api::{ApiError, Scope};
use crate::exit::{Exit, Failure};

/// What a body asks for.
pub(super) enum Request {
    /// One call, or what stands in its place.
    One(Item),
    /// Several, whose answers come together.
    Batch(Vec<Item>),
    /// Not to be answered call by call.
    Refused(ApiError),
}

/// One call of a body.
pub(super) enum Item {
    Call(Call),
    /// Not a call, and the id that it seems to have.
    Invalid(Value, ApiError),
}

/// One call.
pub(super) struct Call {
    method: String,
    params: Value,
    form: Form,
}

/// How a call wants to be answered.
enum Form {
    /// JSON-RPC 2.0, with its id.
    Rpc(Value),
    /// JSON-RPC 2.0, not at all.
    Notification,
    /// With the result alone, and the id if it has one.
    Plain(Option<Value>),
}

impl Request {
    pub(super) fn parse(body: &[u8]) -> Self {
        match serde_json::from_slice(body) {
            Err(error) => Self::Refused(ApiError::parse(&error)),
            Ok(Value::Array(items)) if items.is_empty() => {
                Self::Refused(ApiError::invalid_request("a batch has at least one call"))
            }
            Ok(Value::Array(items)) if items.len() > BATCH_MAX => Self::Refused(ApiError::invalid_request(
                &format!("a batch has at most {BATCH_MAX} calls, this one {}", items.len()),
            )),
            Ok(Value::Array(items)) => {
                Self::Batch(items.into_iter().map(|item| Item::parse(item, false)).collect())
            }
            Ok(item) => Self::One(Item::parse(item, true)),
        }
    }

    /// How many calls it has.
    pub(super) fn calls(&self) -> u32 {
        match self {
            Self::One(_) | Self::Refused(_) => 1,
            Self::Batch(items) => u32::try_from(items.len()).unwrap_or(u32::MAX),
        }
    }

    /// Makes the calls, one after the other; the answer's text, if there is one. `description` is the OpenRPC document.
    pub(super) async fn answer(
        self,
        backend: &impl Backend,
        description: &Value,
        scope: Scope,
    ) -> Option<String> {
        match self {
            Self::Refused(error) => Some(failed(&Value::Null, &error).to_string()),
            Self::One(item) => {
                item.answer(backend, description, scope).await.map(|answer| answer.to_string())
            }
            Self::Batch(items) => {
                let mut answers: Vec<String> = Vec::new();
                let mut bytes = 0;
                for item in items {
                    let answer = if bytes > BATCH_ANSWER_BYTES_MAX {
                        item.leave_out()
                    } else {
                        item.answer(backend, description, scope).await
                    };
                    let Some(answer) = answer.map(|answer| answer.to_string()) else { continue };
                    bytes += answer.len();
                    answers.push(answer);
                }
                (!answers.is_empty()).then(|| format!("[{}]", answers.join(",")))
            }
        }
    }
}

impl Item {
    fn parse(item: Value, allow_plain: bool) -> Self {
        let invalid = |id, why: &str| Self::Invalid(id, ApiError::invalid_request(why));
        let Value::Object(mut members) = item else {
            return invalid(Value::Null, "a call is an object");
        };
        let id = members.remove("id");
        let is_rpc = members.contains_key("jsonrpc");
        let given = id.clone().unwrap_or_default();
        if !matches!(given, Value::Null | Value::String(_) | Value::Number(_)) {
            return invalid(Value::Null, "an id is a string, a number or null");
        }
        if is_rpc && members.get("jsonrpc").and_then(Value::as_str) != Some("2.0") {
            return invalid(given, "`jsonrpc` is \"2.0\"");
        }
        if !is_rpc && !allow_plain {
            return invalid(given, "in a batch, `jsonrpc` is \"2.0\"");
        }
        let Some(Value::String(method)) = members.remove("method") else {
            return invalid(given, "`method` is a method's name");
        };
        let params = members.remove("params").unwrap_or_default();
        if !matches!(params, Value::Null | Value::Object(_) | Value::Array(_)) {
            return invalid(given, "`params` is an object or an array");
        }
        let form = match id {
            id if !is_rpc => Form::Plain(id),
            Some(id) => Form::Rpc(id),
            None => Form::Notification,
        };
        Self::Call(Call { method, params, form })
    }

    async fn answer(self, backend: &impl Backend, description: &Value, scope: Scope) -> Option<Value> {
        match self {
            Self::Invalid(id, error) => Some(failed(&id, &error)),
            Self::Call(Call { method, params, form }) => {
                // OpenRPC's own name for the description.
                let answer = match method.as_str() {
                    "rpc.discover" => Ok(description.clone()),
                    _ => backend.call(scope, &method, params).await,
                };
                form.answer(answer)
            }
        }
    }

    /// Does not make a call, since the batch's answers are too long as it is.
    fn leave_out(self) -> Option<Value> {
        let message = "not called: the answers of this batch are too long; send fewer calls at once";
        let error = ApiError::from(Failure::new(Exit::Other, message));
        match self {
            Self::Invalid(id, _) => Some(failed(&id, &error)),
            Self::Call(call) => call.form.answer(Err(error)),
        }
    }
}

impl Form {
    fn answer(self, answer: Result<Value, ApiError>) -> Option<Value> {
        match self {
            Self::Notification => None,
            Self::Rpc(id) => Some(match answer {
                Ok(result) => json!({ "jsonrpc": "2.0", "id": id, "result": result }),
                Err(error) => failed(&id, &error),
            }),
            Self::Plain(id) => {
                let mut members = Map::new();
                match answer {
                    Ok(result) => members.insert("result".into(), result),
                    Err(error) => members.insert("error".into(), json!(error)),
                };
                if let Some(id) = id {
                    members.insert("id".into(), id);
                }
                Some(members.into())
            }
        }
    }
}

fn failed(id: &Value, error: &ApiError) -> Value {
    json!({ "jsonrpc": "2.0", "id": id, "error": error })
}
