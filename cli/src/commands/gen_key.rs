//! `gen-key`: a new identity.

use std::io;

use megatorrent_core::identity::Identity;
use megatorrent_core::uri::ChannelUri;
use serde_json::json;
use zeroize::Zeroizing;

use crate::args::GenKey;
use crate::exit::{Exit, Failure};
use crate::files::{self, random_secret};
use crate::output::Output;

pub(crate) fn run(args: &GenKey, output: Output) -> Result<(), Failure> {
    let identity = Identity::new(&random_secret()?, Some(random_secret()?));
    files::write_new(&args.key, &identity.to_json()).map_err(|error| {
        if error.kind() == io::ErrorKind::AlreadyExists {
            let message = format!(
                "{} exists and is not overwritten: whoever loses an identity loses its channel. Name another file \
                 with -k",
                args.key.display()
            );
            return Failure::new(Exit::Other, message);
        }
        Failure::file("cannot write", &args.key, &error)
    })?;

    let public_key = identity.public_key();
    let uri = ChannelUri { public_key, read_key: identity.read_key().cloned(), bootstrap: Vec::new() };
    let (public_uri, private_uri) = (uri.to_public_string(), uri.to_secret_string());
    let object = json!({
        "identity": args.key,
        "public_key": public_key.to_string(),
        "public_uri": public_uri,
        "private_uri": *private_uri,
    });
    let text = Zeroizing::new(format!(
        "public key   {public_key}\npublic URI   {public_uri}\nprivate URI  {}",
        *private_uri
    ));
    output.result(&object, &text)?;
    output.note(&format!(
        "{} signs the channel: keep a copy in a safe place, nobody can make another.\n\
         The private URI holds the read key: whoever has it can read what you publish with --private, and neither \
         that nor a copy of it can be taken back. Give it only to the channel's readers.",
        args.key.display()
    ));
    Ok(())
}
