//! `publish`: entries into a signed manifest, and its head onto the DHT.

use std::path::Path;

use megatorrent_runtime_smol::dht::DhtMode;
use serde_json::Value;
use zeroize::Zeroizing;

use crate::api;
use crate::args::{Dht, Publish};
use crate::exit::{Exit, Failure};
use crate::face::Face;
use crate::files;
use crate::host::Host;
use crate::node;
use crate::output::Output;
use crate::service::Service;
use crate::signals::Interrupts;

pub(crate) fn run(args: &Publish, output: Output) -> Result<(), Failure> {
    if args.network.dht == Dht::Off && args.gateways.is_empty() {
        return Err(Failure::usage(
            "a channel is published on the DHT: leave out --dht off, or name a --gateway",
        ));
    }
    let call = call(args)?;
    let interrupts = Interrupts::install()?;
    let mut result = node::block_on(async |executor| {
        let mut face = if let Some(face) = Face::find(&args.data.dir).await? {
            face
        } else {
            let mut options = node::options(&args.data, &args.network)?;
            if !args.gateways.is_empty() {
                options.dht = DhtMode::Off;
            }
            let service = Service::start_for_a_command(executor, options).await?;
            Face::own(Host::open(executor, service, None)?)
        };
        let spinner = output.spinner();
        let result = interrupts.guard(face.publish(call, output, &spinner)).await;
        spinner.finish_and_clear();
        face.end().await;
        result
    })?;
    let taken_by = result.as_object_mut().and_then(|it| it.remove("taken_by")).unwrap_or_default();
    let text = Zeroizing::new(result["uri"].as_str().unwrap_or_default().to_owned());
    output.result(&result, &text)?;
    output.note(&format!(
        "published sequence {}; took it: {}. `megatorrent serve` keeps it on the DHT and hands out the blobs",
        result["sequence"],
        taken_by.as_str().unwrap_or_default(),
    ));
    if result["private"] == true {
        output.warn("the URI contains the read key: whoever has it can read the channel");
    }
    Ok(())
}

fn call(args: &Publish) -> Result<api::Publish, Failure> {
    let read_key = args.secret_file.as_deref().map(files::read_read_key).transpose()?;
    // What is wrong with the identity is told before anything is begun.
    files::read_identity(&args.key)?;
    Ok(api::Publish {
        entries: args.entries.iter().map(|path| entry(path)).collect::<Result<_, _>>()?,
        identity: node::absolute(&args.key)?,
        title: args.title.clone(),
        private: args.private,
        read_key: read_key.map(|key| base16ct::lower::encode_string(key.expose())),
        gateways: args.gateways.iter().map(ToString::to_string).collect(),
        no_ids: args.no_ids,
        any_clock: args.any_clock,
    })
}

fn entry(path: &Path) -> Result<Value, Failure> {
    serde_json::from_slice(&files::read_entry(path)?).map_err(|error| {
        Failure::new(Exit::Integrity, format!("{} is no entry of `ingest`: {error}", path.display()))
    })
}
