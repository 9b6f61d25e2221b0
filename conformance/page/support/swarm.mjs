// A small swarm on loopback: a node that is the DHT, an author with a channel, and a reader that follows nothing yet.

import { randomBytes } from 'node:crypto';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { Node, folder } from './node.mjs';

/** Starts the DHT's first node, and others that begin with it. */
export async function swarm(t) {
  const dht = await Node.start(t, { args: ['--dht', 'server'] });
  const bootstrap = await dht.address();
  return { dht, start: (options = {}) => Node.start(t, { bootstrap, ...options, args: ['--dht', 'server', ...(options.args ?? [])] }) };
}

/** An author's node, and a way to publish what is in a folder of its own. */
export async function author(t, { start }, title = 'Field notes') {
  const node = await start();
  const { channel } = await node.call('createIdentity');
  const source = join(folder(t), 'notes');
  mkdirSync(source);
  const publish = async (files) => {
    for (const [name, bytes] of Object.entries(files)) writeFileSync(join(source, name), bytes);
    const { id } = await node.call('publishFolder', { source, channel, title, private: false });
    return node.job(id);
  };
  const { uri } = await publish({ 'first.txt': 'the first\n', 'data.bin': randomBytes(3 << 20) });
  return { node, channel, uri, publish };
}
