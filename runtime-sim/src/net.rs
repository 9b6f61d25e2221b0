//! Sockets and links: everything by which bytes pass between nodes.
//!
//! A host's action reaches another host as an event, never within the same call.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use megatorrent_core::addr::PeerAddr;
use megatorrent_core::ids::{ConnId, JobId};
use megatorrent_core::suite::Suite;
use megatorrent_core::time::Instant;

use crate::config::WorldConfig;
use crate::dice::Dice;
use crate::faults::Bug;
use crate::host::HostId;
use crate::link::{End, Link, LinkId, Side};
use crate::sparse::Sparse;
use crate::stranger::StrangerEvent;
use crate::trace::Kind;
use crate::traffic::has_open_frames;
use crate::world::{Happening, World};

/// How long a dial to a dead address takes to fail.
pub const DIAL_TIMEOUT: Duration = Duration::from_secs(10);
/// First of the ports from which hosts dial.
const EPHEMERAL_PORT_MIN: u16 = 49_152;

impl<S: Suite> World<S> {
    // --- for the world's caller -------------------------------------------------------------------------------

    /// The links of a host, in the order in which they were made.
    pub fn links_of(&self, id: HostId) -> Vec<LinkId> {
        let ends = [Side::Dialer, Side::Listener];
        let is_of = |link: &Link| ends.iter().any(|&side| link.host_at(side) == Some(id));
        self.links.iter().filter(|(_, link)| is_of(link)).map(|(link, _)| link).collect()
    }

    /// The open connections between nodes: the dialler, the dialled host, and the one-way latency.
    pub fn connections(&self) -> impl Iterator<Item = (HostId, HostId, Duration)> {
        self.links.iter().filter_map(|(_, link)| {
            let host = |side| link.node_at(side).map(|(host, _)| host);
            Some((host(Side::Dialer)?, host(Side::Listener)?, link.latency))
        })
    }

    /// Breaks a link: both ends learn it at once, and the bytes in flight are lost.
    pub fn reset(&mut self, id: LinkId) {
        for to in [Side::Dialer, Side::Listener] {
            self.queue.push(self.now, Happening::Reset { link: id, to });
        }
    }

    /// Lets nothing cross a link from here on, and tells neither end.
    pub fn half_open(&mut self, id: LinkId) {
        if let Some(link) = self.links.get_mut(id) {
            link.is_half_open = true;
        }
    }

    // --- dialling -------------------------------------------------------------------------------------------

    pub(crate) fn make_link(&mut self, dialer: End, to: Option<HostId>) -> LinkId {
        let latency = Duration::from_millis(self.dice_links.draw(&self.config.latency_ms));
        let id = self.links.add(Link::new(dialer, latency));
        self.queue.push(self.now + latency, Happening::DialArrives { link: id, to });
        id
    }

    pub(crate) fn dial(&mut self, host: HostId, job: JobId, peer: &PeerAddr) {
        let epoch = self.hosts[host.index()].epoch;
        let dialer = End::Dialing { host, epoch, job };
        // An address that no host has leads nowhere.
        let to = self.addresses.get(peer).copied();
        let id = self.make_link(dialer, to);
        if let (Some(link), PeerAddr::Ip(at)) = (self.links.get_mut(id), peer) {
            link.dialled = Some(*at);
        }
    }

    pub(crate) fn dial_arrives(&mut self, id: LinkId, to: Option<HostId>) {
        let Some(from) = self.source_address(id) else { return };
        let Some(link) = self.links.get_mut(id) else { return };
        let back = self.now + link.latency;
        let is_half_open = link.is_half_open;
        if !is_half_open && self.stranger_accepts(id, to) {
            self.queue.push(back, Happening::DialEnds { link: id, connected: true });
            return;
        }
        let nat = |id: &HostId| self.hosts[id.index()].config.nat;
        let Some(target) = to.filter(|id| !is_half_open && !nat(id)) else {
            self.queue.push(self.now + DIAL_TIMEOUT, Happening::DialEnds { link: id, connected: false });
            return;
        };
        if let Some(link) = self.links.get_mut(id) {
            link.hosts[Side::Listener as usize] = Some(target);
        }
        let host = &mut self.hosts[target.index()];
        let Some(node) = host.node.as_mut().filter(|_| host.config.listens) else {
            self.queue.push(back, Happening::DialEnds { link: id, connected: false });
            return;
        };
        // The kernel answers for the node: the dialler is connected even if the node then drops the socket.
        self.queue.push(back, Happening::DialEnds { link: id, connected: true });
        let accepted = node.accept(self.now, from.into());
        self.trace.record(self.now, target, Kind::Accepted, u64::from(accepted.is_some()));
        match accepted {
            Some(conn) => self.open_end(id, Side::Listener, target, conn),
            None => self.close_end(id, Side::Listener),
        }
        self.settle(target);
    }

    /// The address that the listener sees: a port of the dialler's for this link alone.
    fn source_address(&self, id: LinkId) -> Option<SocketAddr> {
        match &self.links.get(id)?.ends[Side::Dialer as usize] {
            End::Dialing { host, .. } => {
                // Behind a name, a host's streams come out of its peer's own proxy.
                let is_named = self.hosts[host.index()].config.name.is_some();
                let ip = if is_named { Ipv4Addr::LOCALHOST.into() } else { self.address(*host).ip() };
                Some(SocketAddr::new(ip, ephemeral_port(id)))
            }
            End::Raw { from, .. } => Some(*from),
            _ => None,
        }
    }

    pub(crate) fn dial_ends(&mut self, id: LinkId, connected: bool) {
        let Some(link) = self.links.get(id) else { return };
        let End::Dialing { host, epoch, job } = link.ends[Side::Dialer as usize] else {
            // A raw socket sends the bytes that it was given early.
            if connected {
                self.stranger_hears(id, Side::Dialer, StrangerEvent::Opened(id));
                self.write_socket(id, Side::Dialer);
            } else {
                self.stranger_hears(id, Side::Dialer, StrangerEvent::Closed(id));
                self.remove_link(id);
            }
            return;
        };
        if !connected {
            self.remove_link(id);
        }
        let dialer = &mut self.hosts[host.index()];
        let Some(node) = dialer.node.as_mut().filter(|_| dialer.epoch == epoch) else {
            self.abort_end(id, Side::Dialer);
            return;
        };
        dialer.jobs.end(job);
        self.trace.record(self.now, host, Kind::Dialed, u64::from(connected));
        match node.dialed(self.now, job, connected) {
            Some(conn) => self.open_end(id, Side::Dialer, host, conn),
            None => self.close_end(id, Side::Dialer),
        }
        self.settle(host);
    }

    /// Gives an end of a link to a node. The caller settles the host.
    fn open_end(&mut self, id: LinkId, side: Side, host: HostId, conn: ConnId) {
        let Some(link) = self.links.get_mut(id) else { return };
        link.ends[side as usize] = End::Node { host, conn };
        self.hosts[host.index()].conns.add(conn, id, side);
        self.read_socket(id, side);
        self.write_socket(id, side);
    }

    // --- bytes ----------------------------------------------------------------------------------------------

    pub(crate) fn bytes_arrive(&mut self, id: LinkId, to: Side, n: usize) {
        let Some(link) = self.links.get_mut(id) else { return };
        let pipe = &mut link.pipes[to as usize];
        // Bytes in flight when the link was reset are lost.
        if link.is_half_open || pipe.is_ended {
            return;
        }
        pipe.arrived += n;
        if link.is_closed(to) {
            // Bytes for a closed socket: its kernel answers with a reset.
            let heard = self.now + link.latency;
            self.queue.push(heard, Happening::Reset { link: id, to: to.other() });
            return;
        }
        self.stranger_hears(id, to, StrangerEvent::Readable(id));
        self.read_socket(id, to);
        self.settle_end(id, to);
    }

    pub(crate) fn room_arrives(&mut self, id: LinkId, to: Side, n: usize) {
        let Some(link) = self.links.get_mut(id) else { return };
        if link.is_half_open {
            return;
        }
        link.pipes[to.other() as usize].in_use -= n;
        self.write_socket(id, to);
        self.settle_end(id, to);
    }

    fn settle_end(&mut self, id: LinkId, side: Side) {
        if let Some(host) = self.links.get(id).and_then(|link| link.host_at(side)) {
            self.settle(host);
        }
    }

    /// Reads the arrived bytes while the node takes them. The caller settles the host.
    pub(crate) fn read_socket(&mut self, id: LinkId, side: Side) {
        let Some(link) = self.links.get_mut(id) else { return };
        let Some((host, conn)) = link.node_at(side) else { return };
        let Some(node) = &mut self.hosts[host.index()].node else { return };
        let pipe = &mut link.pipes[side as usize];
        let mut total = 0;
        while pipe.arrived > 0 {
            let space = node.recv_space(conn);
            let len = space.len().min(self.config.cut_bytes_max);
            if len == 0 {
                break;
            }
            let n = pipe.read(&mut space[..len]);
            node.received(self.now, conn, n);
            total += n;
        }
        let is_finished = pipe.is_finished();
        if total > 0 {
            self.trace.record(self.now, host, Kind::Received, total as u64);
            self.tell_of_room(id, side, total);
        }
        if is_finished {
            self.lose_end(id, side);
        }
    }

    /// Notes that `n` bytes were read at `side`: the sender is told once they are enough.
    pub(crate) fn tell_of_room(&mut self, id: LinkId, side: Side, n: usize) {
        let Some(link) = self.links.get_mut(id) else { return };
        let pipe = &mut link.pipes[side as usize];
        pipe.untold += n;
        if pipe.untold >= self.config.window_bytes / 8 {
            let n = std::mem::take(&mut pipe.untold);
            self.queue.push(self.now + link.latency, Happening::Room { link: id, to: side.other(), n });
        }
    }

    /// Writes a node's bytes while the pipe has room. The caller settles the host.
    ///
    /// A pipe that is nearly full counts as full, as with real sockets (RFC 1122 §4.2.3.4): otherwise each piece would
    /// wait for the room of an earlier one, and pieces could only become smaller.
    pub(crate) fn write_socket(&mut self, id: LinkId, side: Side) {
        let pipe = |link: &Link| link.pipes[side.other() as usize].in_use;
        if self.links.get(id).is_none_or(|link| pipe(link) > self.config.window_bytes / 4 * 3) {
            return;
        }
        while self.uplink_takes(id, side) {
            let Some(n) = self.write_piece(id, side) else { return };
            let Some(link) = self.links.get_mut(id) else { return };
            let pipe = &mut link.pipes[side.other() as usize];
            pipe.in_use += n;
            let sent = match link.hosts[side as usize] {
                Some(host) => {
                    self.trace.record(self.now, host, Kind::Sent, n as u64);
                    let host = &mut self.hosts[host.index()];
                    host.uplink.bytes += n as u64;
                    let took = n as u64 * 1_000_000_000 / host.config.upload_bytes_per_sec.max(1);
                    host.uplink.free_at = Instant(host.uplink.free_at.max(self.now).0 + took);
                    // The next piece is another link's, if one waits.
                    host.uplink.is_called = false;
                    host.uplink.free_at
                }
                None => self.now,
            };
            pipe.last_arrival = pipe.last_arrival.max(sent + link.latency);
            let arrival = pipe.last_arrival;
            let to = side.other();
            let has_slow_line = |id: HostId| self.hosts[id.index()].config.download_bytes_per_sec.is_some();
            let is_slow = link.hosts[to as usize].is_some_and(has_slow_line);
            let happening = if is_slow {
                Happening::Edge { link: id, to, n }
            } else {
                Happening::Bytes { link: id, to, n }
            };
            self.queue.push(arrival, happening);
        }
    }

    /// Whether a host's uplink takes another piece from a link: its backlog is bounded, like the queues of a line and of its
    /// sockets. Where it takes none, the link waits for its turn.
    fn uplink_takes(&mut self, id: LinkId, side: Side) -> bool {
        let Some(link) = self.links.get_mut(id) else { return false };
        let Some(host) = link.hosts[side as usize] else { return true };
        let uplink = &mut self.hosts[host.index()].uplink;
        let full_at = self.now + self.config.uplink_queue;
        if uplink.free_at <= full_at && (uplink.waiting.is_empty() || uplink.is_called) {
            return true;
        }
        if !std::mem::replace(&mut link.waits_for_uplink[side as usize], true) {
            uplink.waiting.push_back((id, side));
        }
        self.call_waiting(host);
        false
    }

    /// Schedules the links that wait for a host's uplink for when half of its queue has gone.
    fn call_waiting(&mut self, host: HostId) {
        let uplink = &mut self.hosts[host.index()].uplink;
        if !uplink.waiting.is_empty() && !std::mem::replace(&mut uplink.is_due, true) {
            let refill = Instant(uplink.free_at.0.saturating_sub(nanos(self.config.uplink_queue) / 2));
            self.queue.push(refill.max(self.now), Happening::Uplink { host });
        }
    }

    /// Lets the waiting links write a piece each in turn, as the host's uplink has room.
    pub(crate) fn uplink_has_room(&mut self, host: HostId) {
        self.hosts[host.index()].uplink.is_due = false;
        loop {
            let uplink = &mut self.hosts[host.index()].uplink;
            if uplink.free_at > self.now + self.config.uplink_queue {
                break;
            }
            let Some((id, side)) = uplink.waiting.pop_front() else { break };
            let Some(link) = self.links.get_mut(id) else { continue };
            link.waits_for_uplink[side as usize] = false;
            self.hosts[host.index()].uplink.is_called = true;
            self.write_socket(id, side);
            self.hosts[host.index()].uplink.is_called = false;
        }
        self.call_waiting(host);
        self.settle(host);
    }

    /// Moves one piece, of a length that the world draws, from the socket into the pipe; returns its length. `None`: there
    /// is no room, or nothing to send.
    fn write_piece(&mut self, id: LinkId, side: Side) -> Option<usize> {
        let link = self.links.get_mut(id)?;
        let pipe = &mut link.pipes[side.other() as usize];
        let room = self.config.window_bytes.saturating_sub(pipe.in_use);
        if room == 0 {
            return None;
        }
        match &mut link.ends[side as usize] {
            End::Node { host, conn } => {
                let node = self.hosts[host.index()].node.as_mut()?;
                let chunk = node.send_chunk(self.now, *conn);
                if chunk.is_empty() {
                    return None;
                }
                let n = cut(&mut self.dice_links, &self.config).min(room).min(chunk.len());
                pipe.put(Sparse::new(&chunk[..n], self.config.has_weight));
                pipe.content += pipe.meter.count(&chunk[..n], has_open_frames::<S>(), &mut self.counts);
                node.sent(self.now, *conn, n);
                self.look_at_announces(id, side);
                Some(n)
            }
            End::Raw { unsent, .. } if !unsent.is_empty() => {
                let n = cut(&mut self.dice_links, &self.config).min(room).min(unsent.len());
                let piece: Vec<u8> = unsent.drain(..n).collect();
                // A machine's bytes count like a node's, those of other strangers do not.
                let is_counted = link.hosts[side as usize].is_some();
                let counts = if is_counted { &mut self.counts } else { &mut self.uncounted };
                let content = pipe.meter.count(&piece, has_open_frames::<S>(), counts);
                pipe.content += if is_counted { content } else { 0 };
                pipe.put(Sparse::new(&piece, self.config.has_weight));
                self.look_at_announces(id, side);
                Some(n)
            }
            _ => None,
        }
    }

    /// Checks the announces among the bytes that an end of a link has just sent.
    fn look_at_announces(&mut self, id: LinkId, side: Side) {
        let mut frames = std::mem::take(&mut self.counts.announces);
        frames.append(&mut self.uncounted.announces);
        if !frames.is_empty() {
            self.announced(id, side, frames);
        }
    }

    // --- endings --------------------------------------------------------------------------------------------

    /// Drops a socket for its node.
    pub(crate) fn close(&mut self, host: HostId, conn: ConnId) {
        // The link may have ended on its own before the node was polled.
        if let Some((id, side)) = self.hosts[host.index()].conns.remove(conn) {
            self.close_end(id, side);
        }
    }

    /// Closes an end: the other one learns it after all bytes that were sent.
    pub(crate) fn close_end(&mut self, id: LinkId, side: Side) {
        let Some(link) = self.links.get_mut(id) else { return };
        link.ends[side as usize] = End::Closed;
        if link.is_closed(side.other()) {
            self.remove_link(id);
        } else if !link.is_half_open {
            let heard = link.pipes[side.other() as usize].last_arrival.max(self.now + link.latency);
            self.queue.push(heard, Happening::Fin { link: id, to: side.other() });
        }
    }

    /// Resets an end: the other one learns it, and the bytes in flight are lost.
    pub(crate) fn abort_end(&mut self, id: LinkId, side: Side) {
        let Some(link) = self.links.get_mut(id) else { return };
        link.ends[side as usize] = End::Closed;
        if link.is_closed(side.other()) {
            self.remove_link(id);
        } else if !link.is_half_open {
            self.queue.push(self.now + link.latency, Happening::Reset { link: id, to: side.other() });
        }
    }

    pub(crate) fn fin_arrives(&mut self, id: LinkId, to: Side) {
        let Some(link) = self.links.get_mut(id) else { return };
        if link.is_half_open {
            return;
        }
        let pipe = &mut link.pipes[to as usize];
        if pipe.last_arrival > self.now {
            // Earlier bytes are still in a slow line.
            self.queue.push(pipe.last_arrival, Happening::Fin { link: id, to });
            return;
        }
        pipe.is_ended = true;
        self.read_socket_and_settle(id, to);
    }

    pub(crate) fn reset_arrives(&mut self, id: LinkId, to: Side) {
        let Some(link) = self.links.get_mut(id) else { return };
        if link.is_half_open {
            return;
        }
        let pipe = &mut link.pipes[to as usize];
        pipe.is_ended = true;
        pipe.lose();
        self.read_socket_and_settle(id, to);
    }

    fn read_socket_and_settle(&mut self, id: LinkId, to: Side) {
        let host = self.links.get(id).and_then(|link| link.host_at(to));
        self.stranger_hears(id, to, StrangerEvent::Closed(id));
        self.read_socket(id, to);
        if let Some(host) = host {
            self.settle(host);
        }
    }

    fn remove_link(&mut self, id: LinkId) {
        if let Some(link) = self.links.remove(id) {
            self.counts.keep(&link);
            self.announces.forget(id);
        }
    }

    /// Ends a node's socket. The caller settles the host.
    fn lose_end(&mut self, id: LinkId, side: Side) {
        let Some((host, conn)) = self.links.get(id).and_then(|link| link.node_at(side)) else { return };
        self.hosts[host.index()].conns.remove(conn);
        self.trace.record(self.now, host, Kind::Disconnected, u64::from(conn.slot));
        if let Some(node) = &mut self.hosts[host.index()].node
            && self.faults.bug != Some(Bug::EndUnheard)
        {
            node.disconnected(self.now, conn);
        }
        self.close_end(id, side);
    }
}

/// The port from which a link is dialled.
pub(crate) fn ephemeral_port(id: LinkId) -> u16 {
    let ports = u64::from(u16::MAX - EPHEMERAL_PORT_MIN) + 1;
    EPHEMERAL_PORT_MIN + u16::try_from(id.0 % ports).expect("below the number of ports")
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// Draws the length of a piece: short and long ones are about equally frequent, so that every boundary comes up.
fn cut(dice: &mut Dice, config: &WorldConfig) -> usize {
    let (min, max) = (config.cut_bytes_min, config.cut_bytes_max);
    if min >= max {
        return max;
    }
    let bits = dice.below(u64::from(usize::BITS - max.leading_zeros()));
    let len = 1 + dice.below(1 << bits);
    usize::try_from(len).map_or(max, |len| len.clamp(min, max))
}
