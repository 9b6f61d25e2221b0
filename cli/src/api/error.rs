//! Why a call was not answered as it was asked.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Scope;
use crate::exit::{Exit, Failure};

/// JSON-RPC 2.0's own codes, section 5.1.
const PARSE: i32 = -32_700;
const INVALID_REQUEST: i32 = -32_600;
const METHOD_NOT_FOUND: i32 = -32_601;
const INVALID_PARAMS: i32 = -32_602;
const INTERNAL: i32 = -32_603;
/// Codes of the application: this, less the exit code of the command line.
const APPLICATION: i32 = -32_000;

/// An error of a call, as JSON-RPC 2.0 has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct ApiError {
    /// -32700 no JSON, -32600 no call, -32601 no such method, -32602 parameters that do not fit, -32603 a fault of this program; -32000 less the exit code, which
    /// `data` names.
    pub(crate) code: i32,
    /// What happened, to what, and what to do next.
    pub(crate) message: String,
    /// More of it, for programs.
    pub(crate) data: ErrorData,
}

/// What a program may go by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct ErrorData {
    /// The code with which a command ends for it (README).
    pub(crate) exit_code: u8,
}

impl ApiError {
    pub(crate) fn parse(error: &serde_json::Error) -> Self {
        let message = format!("the body is no JSON: {error}");
        Self { code: PARSE, message, data: ErrorData { exit_code: Exit::Usage as u8 } }
    }

    pub(crate) fn invalid_request(why: &str) -> Self {
        let message = format!("not a call as JSON-RPC 2.0 has it: {why}");
        Self { code: INVALID_REQUEST, message, data: ErrorData { exit_code: Exit::Usage as u8 } }
    }

    pub(crate) fn no_method(name: &str) -> Self {
        let message = format!("there is no method {name:?}; GET /api/openrpc.json lists them all");
        Self { code: METHOD_NOT_FOUND, message, data: ErrorData { exit_code: Exit::Usage as u8 } }
    }

    pub(crate) fn bad_params(method: &str, error: &serde_json::Error) -> Self {
        let message = format!("{method}: {error}; GET /api/openrpc.json says which parameters it takes");
        Self { code: INVALID_PARAMS, message, data: ErrorData { exit_code: Exit::Usage as u8 } }
    }

    pub(crate) fn internal(message: String) -> Self {
        Self { code: INTERNAL, message, data: ErrorData { exit_code: Exit::Other as u8 } }
    }

    pub(crate) fn out_of_scope(method: &str, needed: Scope) -> Self {
        let needed = match needed {
            Scope::Read => "read",
            Scope::Control => "control",
            Scope::Admin => "admin",
        };
        Failure::new(Exit::Permission, format!("{method} takes a token with the scope {needed:?}")).into()
    }

    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Failure::new(Exit::NotFound, message).into()
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<Failure> for ApiError {
    fn from(failure: Failure) -> Self {
        let exit_code = failure.exit as u8;
        let code = match failure.exit {
            Exit::Usage => INVALID_PARAMS,
            _ => APPLICATION - i32::from(exit_code),
        };
        Self { code, message: failure.message, data: ErrorData { exit_code } }
    }
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        Self::new(Exit::from_code(error.data.exit_code), error.message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_comes_back_as_it_went() {
        for exit in [Exit::Other, Exit::Usage, Exit::NotFound, Exit::Timeout, Exit::Integrity, Exit::Network]
        {
            let error = ApiError::from(Failure::new(exit, "why"));
            let failure = Failure::from(error);
            assert_eq!((failure.exit, failure.message.as_str()), (exit, "why"));
        }
    }
}
