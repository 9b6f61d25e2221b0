//! `serve`: a node that seeds and follows until it is told to end.

use futures_lite::future;

use crate::activation;
use crate::args::Serve;
use crate::events;
use crate::exit::Failure;
use crate::face::Face;
use crate::host::{Host, Wish};
use crate::node;
use crate::notify::{self, State};
use crate::output::Output;
use crate::service::Service;
use crate::signals::Interrupts;

/// The TCP port where `-T` names none.
const P2P_PORT: u16 = 6881;

pub(crate) fn run(args: &Serve, output: Output) -> Result<(), Failure> {
    // Before anything else opens a file.
    let sockets = activation::take()?;
    let interrupts = Interrupts::install()?;
    node::block_on(async |executor| {
        let mut options = node::options(&args.data, &args.network)?;
        options.gateway = !args.no_gateway;
        node::limit(&mut options, &args.limits);
        node::listen(&mut options, &args.listen, P2P_PORT);
        let service = Service::start(executor, options).await?;
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
            notify::tell(State::Ready);
            loop {
                for event in face.events().await? {
                    output.show(&event)?;
                }
            }
        };
        let ended = async {
            future::or(
                async {
                    interrupts.next().await;
                },
                service.ending(),
            )
            .await;
            Ok(())
        };
        let told = future::or(told, ended).await;
        notify::tell(State::Stopping);
        face.end().await;
        told.and_then(|()| events::stopped(output))
    })
}
