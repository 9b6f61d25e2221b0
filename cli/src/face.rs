//! What a command talks to: the node that runs on the folder, or one that the command starts for itself. Both answer alike.

use crate::api::{Answers, Call, Event};
use crate::exit::Failure;
use crate::service::Service;

/// Events that are taken at once.
const EVENTS_AT_ONCE: usize = 1_000;

/// A node, and the events of it that were taken.
pub(crate) struct Face {
    service: Service,
    /// The number of the last event that was taken.
    last: u64,
}

impl Face {
    /// A node that this process runs.
    pub(crate) fn own(service: Service) -> Self {
        Self { service, last: 0 }
    }

    pub(crate) async fn call<C: Call>(&self, call: C) -> Result<C::Answer, Failure>
    where
        Service: Answers<C>,
    {
        Ok(self.service.answer(call).await?)
    }

    /// The events since those that were taken; waits for one.
    pub(crate) async fn events(&mut self) -> Result<Vec<Event>, Failure> {
        let log = self.service.log();
        log.wait(self.last).await;
        let after = log.after(self.last, EVENTS_AT_ONCE);
        self.last = after.events.last().map_or(log.last(), |event| event.number);
        Ok(after.events)
    }

    /// Ends the node, where it is this process's own.
    pub(crate) async fn end(self) {
        self.service.end().await;
    }
}
