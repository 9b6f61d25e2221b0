//! `serve`: a node that seeds and follows until it is told to end.

use std::time::Instant;

use futures_lite::future;
use megatorrent_core::node::{Event, Target};
use megatorrent_runtime_smol::Handle;
use megatorrent_runtime_smol::losses::LossNews;
use serde_json::json;

use crate::args::Serve;
use crate::choices::{self, Choices};
use crate::exit::Failure;
use crate::notify::{self, State};
use crate::output::{News, Output};
use crate::signals::Interrupts;
use crate::{events, node};

/// The TCP port where `-T` names none.
const P2P_PORT: u16 = 6881;

pub(crate) fn run(args: &Serve, output: Output) -> Result<(), Failure> {
    let interrupts = Interrupts::install()?;
    node::block_on(async |executor| {
        let mut options = node::options(&args.data, &args.network)?;
        options.gateway = !args.no_gateway;
        node::limit(&mut options, &args.limits);
        choices::hold_all(&mut options)?;
        let node = node::start_listening(executor, options, &args.listen, P2P_PORT, output).await?;
        notify::tell(State::Ready);
        let told = future::or(tell(&node, output), async {
            interrupts.next().await;
            Ok(())
        })
        .await;
        notify::tell(State::Stopping);
        node.shutdown().await;
        told.and_then(|()| events::stopped(output))
    })
}

/// What is waited for.
enum Happening {
    Event(Event),
    Loss(LossNews),
    Tick,
}

async fn tell(node: &Handle, output: Output) -> Result<(), Failure> {
    let mut status = events::Status::default();
    let mut choices = Choices::new(node, None, output)?;
    let mut tick = smol::Timer::interval_at(Instant::now(), events::STATUS_INTERVAL);
    loop {
        let event = async { Happening::Event(node.next_event().await) };
        let loss = async { Happening::Loss(node.next_loss().await) };
        let ticked = async {
            futures_lite::StreamExt::next(&mut tick).await;
            Happening::Tick
        };
        let event = match future::or(event, future::or(loss, ticked)).await {
            Happening::Event(event) => event,
            Happening::Loss(news) => {
                events::report_loss(&news, output)?;
                continue;
            }
            Happening::Tick => {
                status.tell(node.status(), output)?;
                continue;
            }
        };
        events::report(&event, output)?;
        choices.on_event(&event).await?;
        if let Event::Complete { target: Target::Channel(channel), sequence } = event {
            let members = json!({ "channel": channel.to_string(), "sequence": sequence });
            output.event(
                News::Complete,
                members,
                &format!("channel {channel}: sequence {sequence} is complete"),
            )?;
        }
    }
}
