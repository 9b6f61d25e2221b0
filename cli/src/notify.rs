//! Tells a service manager (systemd's `Type=notify`) how the node is. Without `NOTIFY_SOCKET` nobody asked, and nothing is said.
//!
//! The datagram goes to a Unix socket of this machine, whose name the manager put into the environment.

/// What a manager waits for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum State {
    /// The node listens.
    Ready,
    /// The node was asked to end and has begun to.
    Stopping,
}

/// Says it. A manager that cannot be told has a time-out for that, and the node works all the same.
pub(crate) fn tell(state: State) {
    #[cfg(unix)]
    {
        use sd_notify::NotifyState;
        let said = match state {
            State::Ready => NotifyState::Ready,
            State::Stopping => NotifyState::Stopping,
        };
        if let Err(error) = sd_notify::notify(&[said]) {
            tracing::warn!(?state, %error, "the service manager cannot be told");
        }
    }
    #[cfg(not(unix))]
    let _ = state;
}
