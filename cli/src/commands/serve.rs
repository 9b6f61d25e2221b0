//! `serve`: a node that seeds and follows until it is told to end.

use futures_lite::future;

use crate::activation;
use crate::api;
use crate::args::Serve;
use crate::config::Invocation;
use crate::events;
use crate::exit::Failure;
use crate::face::Face;
use crate::host::{Host, Wish};
use crate::node::{self, OwnPort};
use crate::notify::{self, State};
use crate::output::Output;
use crate::reload::Reload;
use crate::service::Service;
use crate::signals::{Hangups, Interrupts};

pub(crate) fn run(args: &Serve, invocation: &Invocation, output: Output) -> Result<(), Failure> {
    // Before anything else opens a file.
    let sockets = activation::take()?;
    let interrupts = Interrupts::install()?;
    let mut hangups = Hangups::install()?;
    let mut reload = Reload::new(invocation)?;
    node::block_on(async |executor| {
        let mut options = node::options(&args.data, &args.network)?;
        options.gateway = !args.no_gateway;
        node::limit(&mut options, &args.limits);
        node::listen(&mut options, &args.listen);
        let own_port = OwnPort::take(&mut options, &args.listen)?;
        let started = Service::start(executor, options).await;
        let service = started.map_err(|failure| match &own_port {
            Some(port) => port.explain(failure),
            None => failure,
        })?;
        if let Some(port) = own_port {
            port.keep(service.node())?;
        }
        let wish = Wish {
            host: args.api.rpc_host,
            port: args.api.port,
            sockets,
            allowed_hosts: args.api.allow_host.clone(),
        };
        let host = Host::open(executor, service.clone(), Some(wish))?;
        let mut face = Face::own(host);
        let told = async {
            face.tell_ready(output).await?;
            tell_login(&face, output).await?;
            notify::tell(State::Ready);
            loop {
                for event in face.events().await? {
                    output.show(&event)?;
                }
            }
        };
        let interrupted = async {
            interrupts.next().await;
        };
        let hung_up = async {
            while hangups.next().await {
                reload.apply(&service).await;
            }
        };
        let ended = async {
            future::or(future::or(interrupted, hung_up), service.ending()).await;
            Ok(())
        };
        let told = future::or(told, ended).await;
        notify::tell(State::Stopping);
        face.end().await;
        told.and_then(|()| events::stopped(output))
    })
}

/// Says where the API is, with a link that logs a browser in once: to who sits there alone, as a log keeps what it is told.
async fn tell_login(face: &Face, output: Output) -> Result<(), Failure> {
    if !output.is_watched() {
        return Ok(());
    }
    let Some(api) = face.call(api::GetStatus {}).await?.api else { return Ok(()) };
    let link = face.call(api::CreateLoginLink {}).await?;
    let minutes = link.valid_secs / 60;
    output.note(&format!("API: http://{api}/{}   for a browser, once, within {minutes} minutes", link.path));
    Ok(())
}
