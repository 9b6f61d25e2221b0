// Peers: what goes to and fro, and how each was found.
import { bytes, plain, span } from './format.js';
import { html } from './html.js';
import { Icon } from './icons.js';
import { S } from './strings.js';

// What a peer does at the moment.
export function doing(peer) {
  if (!peer.ready) return S.peerConnecting;
  if (peer.wanted_of_it > 0 && peer.wanted_of_us > 0) return S.peerBoth;
  if (peer.wanted_of_it > 0) return S.peerSends;
  if (peer.wanted_of_us > 0) return S.peerTakes;
  return S.peerIdle;
}

export function found(peer) {
  return S.found[peer.found ?? (peer.outbound ? 'named' : 'called')];
}

// "Found by DHT 3, announce 1."
export function foundBy(peers) {
  const counts = new Map();
  for (const peer of peers) counts.set(found(peer), (counts.get(found(peer)) ?? 0) + 1);
  return S.foundBy([...counts].sort((a, b) => b[1] - a[1]).map(([name, number]) => `${name} ${number}`).join(', '));
}

export function PeerRow({ peer }) {
  return html`<li><code>${plain(peer.address)}</code><span class="soft">${doing(peer)}</span></li>`;
}

const phone = matchMedia('(max-width: 719px)');

export function PeerTable({ peers, names }) {
  if (phone.matches) {
    return html`<ul class="list">${peers.map((peer) => html`<li key=${peer.address + peer.connected_secs}><div><p><code>${plain(peer.address)}</code></p>
      <p class="soft">${doing(peer)} · ${found(peer)}</p><p class="soft"><bdi>${names(peer)}</bdi></p></div>
      <span class="figure right soft">↓ ${bytes(peer.bytes_received)}<br />↑ ${bytes(peer.bytes_sent)}</span></li>`)}</ul>`;
  }
  return html`<div class="scroll"><table class="facts">
    <thead><tr><th scope="col">${S.peer}</th><th scope="col">${S.columnState}</th><th scope="col">${S.foundByHead}</th><th scope="col" class="desk">${S.columnChannel}</th>
      <th scope="col" class="right"><${Icon} name="down" size=${11} /><span class="offscreen">${S.down}</span></th><th scope="col" class="right"><${Icon} name="up" size=${11} /><span class="offscreen">${S.up}</span></th><th scope="col" class="right desk">${S.since}</th></tr></thead>
    <tbody>${peers.map((peer) => html`<tr key=${peer.address + peer.connected_secs}>
      <td><code>${plain(peer.address)}</code></td><td>${doing(peer)}</td><td>${found(peer)}</td><td class="desk"><bdi>${names(peer)}</bdi></td>
      <td class="figure right">${bytes(peer.bytes_received)}</td><td class="figure right">${bytes(peer.bytes_sent)}</td><td class="figure right desk">${span(peer.connected_secs * 1000)}</td></tr>`)}</tbody>
  </table></div>`;
}
