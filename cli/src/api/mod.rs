//! What a node can do, once for all faces: each ability is a method with a typed request and answer, and every change an event
//! with a number.
//!
//! Goals: the vocabulary that the command line, JSON-RPC and the page share, its description (`openrpc`), and the way from a
//! method's name to what answers it. Non-goals: the work itself, which is the service's, and how bytes come and go.

mod error;
mod event;
mod folders;
mod identities;
mod links;
mod node;
mod openrpc;
mod subscriptions;
mod work;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub(crate) use error::ApiError;
pub(crate) use event::{Event, EventKind};
pub(crate) use folders::*;
pub(crate) use identities::*;
pub(crate) use links::*;
pub(crate) use node::*;
pub(crate) use openrpc::openrpc;
pub(crate) use subscriptions::*;
pub(crate) use work::*;

/// What a caller may do. Each scope may do what those before it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Scope {
    /// Look.
    Read,
    /// Follow, publish, pause: what is done every day.
    Control,
    /// Keys, tokens, settings and the end of the node.
    Admin,
}

/// A method's request, which knows its name, who may make it, and what answers it.
pub(crate) trait Call: Serialize + DeserializeOwned + JsonSchema + 'static {
    /// The method's name in JSON-RPC.
    const NAME: &'static str;
    /// Who may call it.
    const SCOPE: Scope;
    /// What it answers.
    type Answer: Serialize + DeserializeOwned + JsonSchema + 'static;
}

/// Who answers the requests of one method.
pub(crate) trait Answers<C: Call> {
    async fn answer(&self, call: C) -> Result<C::Answer, ApiError>;
}

/// A method, for the description.
pub(crate) struct Method {
    pub(crate) name: &'static str,
    pub(crate) scope: Scope,
    /// Its docstring: the first line says what it does.
    pub(crate) doc: &'static str,
    pub(crate) params: fn(&mut SchemaGenerator) -> Schema,
    pub(crate) answer: fn(&mut SchemaGenerator) -> Schema,
}

/// The one table of methods: the description, the router and the trait that an application fills come from it.
macro_rules! methods {
    ($($(#[doc = $doc:literal])+ $scope:ident $name:literal ($call:ty) -> $answer:ty;)*) => {
        /// All methods.
        pub(crate) const METHODS: &[Method] = &[$(Method {
            name: $name,
            scope: Scope::$scope,
            doc: concat!($($doc, "\n"),+),
            params: <$call>::json_schema,
            answer: <$answer>::json_schema,
        },)*];

        $(impl Call for $call {
            const NAME: &'static str = $name;
            const SCOPE: Scope = Scope::$scope;
            type Answer = $answer;
        })*

        /// What answers every method.
        pub(crate) trait Application: $(Answers<$call> +)* {}
        impl<A: $(Answers<$call> +)*> Application for A {}

        /// Answers the method called `name` for a caller that may do what `scope` says. `params` is an object, null, or an empty
        /// array.
        pub(crate) async fn dispatch(
            application: &impl Application,
            scope: Scope,
            name: &str,
            params: Value,
        ) -> Result<Value, ApiError> {
            match name {
                $($name => route::<$call>(application, scope, params).await,)*
                _ => Err(ApiError::no_method(name)),
            }
        }
    };
}

async fn route<C: Call>(
    application: &impl Answers<C>,
    scope: Scope,
    params: Value,
) -> Result<Value, ApiError> {
    if scope < C::SCOPE {
        return Err(ApiError::out_of_scope(C::NAME, C::SCOPE));
    }
    let params = match params {
        // By position they would hang on the order of members.
        Value::Array(values) if !values.is_empty() => return Err(ApiError::by_position(C::NAME)),
        Value::Null | Value::Array(_) => Value::Object(serde_json::Map::new()),
        params => params,
    };
    let call = serde_json::from_value(params).map_err(|error| ApiError::bad_params(C::NAME, &error))?;
    let answer = application.answer(call).await?;
    serde_json::to_value(answer).map_err(|error| ApiError::internal(error.to_string()))
}

methods! {
    /// How the node is: addresses, connections, rates, counts of channels by state.
    Read "getStatus" (GetStatus) -> NodeStatus;
    /// What is amiss with mode, ports, DHT, clock, disk and descriptors, each with a next step.
    Read "getDoctor" (GetDoctor) -> Doctor;
    /// The events after a number, for callers that cannot hold a stream open.
    Read "getEvents" (GetEvents) -> Events;
    /// The peers that are connected, with what goes to and fro.
    Read "getPeers" (GetPeers) -> Peers;
    /// How fast bytes of blobs came and went, over the last ten minutes or the last day.
    Read "getRates" (GetRates) -> RateHistory;
    /// The peers that are banned, why and until when.
    Read "getBans" (GetBans) -> Bans;
    /// Lifts a ban.
    Control "removeBan" (RemoveBan) -> Done;
    /// Tries a peer; where the node knows no DHT node, also as one.
    Control "addPeer" (AddPeer) -> Done;
    /// What the node was told at its start, and goes by.
    Read "getOptions" (GetOptions) -> NodeOptions;
    /// The limits on bytes a second.
    Read "getLimits" (GetLimits) -> Limits;
    /// Changes limits, from now on and for later runs.
    Control "setLimits" (SetLimits) -> Limits;
    /// The settings that can be changed while the node runs.
    Read "getSettings" (GetSettings) -> Settings;
    /// Changes settings, from now on and for later runs.
    Admin "setSettings" (SetSettings) -> Settings;
    /// Replaces the token of the API: who has the old one is refused from then on, and links to files end.
    Admin "rotateToken" (RotateToken) -> Done;
    /// Makes a link that logs a browser in, once.
    Admin "createLoginLink" (CreateLoginLink) -> LoginLink;
    /// Ends the node.
    Admin "shutdown" (Shutdown) -> Done;

    /// Follows a channel: its files are fetched into a folder, and each update after them.
    Control "addSubscription" (AddSubscription) -> Subscription;
    /// The channels that are followed, with their state.
    Read "getSubscriptions" (GetSubscriptions) -> Subscriptions;
    /// One channel that is followed.
    Read "getSubscription" (GetSubscription) -> Subscription;
    /// Stops following a channel. Its files stay. It can be undone for a while.
    Control "removeSubscription" (RemoveSubscription) -> Undoable;
    /// Lets a channel rest: nothing of it is fetched, served or asked for.
    Control "pauseSubscription" (PauseSubscription) -> Undoable;
    /// Goes on with a channel.
    Control "resumeSubscription" (ResumeSubscription) -> Done;
    /// Asks at once for a channel's newer version, and tries a folder again that has failed, rather than when it is due.
    Control "checkSubscription" (CheckSubscription) -> Done;
    /// Takes back what was done to a subscription, while that can be.
    Control "undo" (Undo) -> Done;
    /// Marks a channel's files as seen.
    Control "markRead" (MarkRead) -> Done;
    /// The files of a followed channel, folder by folder.
    Read "getFiles" (GetFiles) -> Files;
    /// Which blobs of a channel's newest version are here, gathered into a few cells.
    Read "getBlobs" (GetBlobs) -> Blobs;
    /// Makes a link to a file: whoever has it reads the file for 12 hours, or until it is revoked or the node ends.
    Control "createFileLink" (CreateFileLink) -> FileLink;
    /// Ends links to files before their time.
    Control "revokeFileLinks" (RevokeFileLinks) -> Revoked;

    /// The identities whose channels this node can publish in.
    Read "getIdentities" (GetIdentities) -> Identities;
    /// Makes an identity, in the node's folder.
    Admin "createIdentity" (CreateIdentity) -> IdentityInfo;
    /// Takes over an identity: an identity's file, or a backup sealed by a passphrase.
    Admin "importIdentity" (ImportIdentity) -> IdentityInfo;
    /// Writes a backup of an identity, sealed by a passphrase.
    Admin "exportIdentity" (ExportIdentity) -> Done;

    /// Encrypts a file into blobs, as a job; its result is the entry, for `publish`.
    Control "ingest" (Ingest) -> JobInfo;
    /// Signs a channel's new manifest and puts it on the DHT, as a job.
    Control "publish" (Publish) -> JobInfo;
    /// What is in a folder on the node, to choose from.
    Control "getFolder" (GetFolder) -> Folder;
    /// What would be published of a file or a folder on the node, and how that differs from the channel's newest version.
    Control "planPublication" (PlanPublication) -> Plan;
    /// Encrypts a file or a folder on the node and signs it as a channel's newest version, as a job.
    Control "publishFolder" (PublishFolder) -> JobInfo;
    /// Makes a folder on the node for bytes that a caller has.
    Control "createUpload" (CreateUpload) -> Upload;
    /// Adds bytes to a file in an upload's folder.
    Control "writeUpload" (WriteUpload) -> Written;
    /// Removes an upload's folder.
    Control "removeUpload" (RemoveUpload) -> Done;
    /// Looks at all that the node holds, byte by byte, as a job.
    Control "verify" (Verify) -> JobInfo;
    /// Waits, as a job, until all that is wanted of a channel is in its place, or tells why it does not come.
    Control "fetch" (Fetch) -> JobInfo;
    /// The jobs, newest first.
    Read "getJobs" (GetJobs) -> Jobs;
    /// One job.
    Read "getJob" (GetJob) -> JobInfo;
    /// Ends a job that is under way.
    Control "cancelJob" (CancelJob) -> JobInfo;
}

/// It is done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Done {}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_method_has_one_name() {
        let names: BTreeSet<&str> = METHODS.iter().map(|method| method.name).collect();
        assert_eq!(names.len(), METHODS.len());
    }

    #[test]
    fn a_scope_may_do_what_those_before_it_may() {
        assert!(Scope::Read < Scope::Control && Scope::Control < Scope::Admin);
    }
}
