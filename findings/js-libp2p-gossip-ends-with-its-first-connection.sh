#!/usr/bin/env bash
# js-libp2p 3.3.11 with gossipsub 17.1.1: two peers have two connections, and the older one is closed. Both still say
# that they are connected and that the other subscribes to the topic, and nothing that is published arrives any more:
# the gossip stream is opened when a peer appears, on the connection of then, and not again while another stands. Whoever
# tidies up duplicate connections (after a simultaneous dial, or when a restarted peer dials again before its old
# connection is missed) has to keep the one that the other side's gossip runs on.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
npm install --silent --no-audit --no-fund --prefix . libp2p@3.3.11 @libp2p/gossipsub@17.1.1 @libp2p/tcp@11.0.28 \
    @libp2p/identify@4.1.14 @chainsafe/libp2p-noise@17.0.0 @chainsafe/libp2p-yamux@8.0.1 >/dev/null

# js-libp2p 3 wants Node.js 22; this is all that 20 lacks of it here.
cat >node20.cjs <<'JS'
Promise.withResolvers ??= function () {
  let resolve, reject;
  const promise = new this((yes, no) => { resolve = yes; reject = no; });
  return { promise, resolve, reject };
};
JS
cat >try.mjs <<'JS'
import { createLibp2p } from 'libp2p';
import { tcp } from '@libp2p/tcp';
import { noise } from '@chainsafe/libp2p-noise';
import { yamux } from '@chainsafe/libp2p-yamux';
import { identify } from '@libp2p/identify';
import { gossipsub } from '@libp2p/gossipsub';

const wait = (ms) => new Promise((done) => setTimeout(done, ms));
const node = () => createLibp2p({
  addresses: { listen: ['/ip4/127.0.0.1/tcp/0'] },
  transports: [tcp()], connectionEncrypters: [noise()], streamMuxers: [yamux()],
  connectionMonitor: { enabled: false },
  services: { identify: identify(), pubsub: gossipsub({ allowPublishToZeroTopicPeers: true }) },
});
const [a, b] = [await node(), await node()];
const heard = [];
b.services.pubsub.addEventListener('message', ({ detail }) => heard.push(new TextDecoder().decode(detail.data)));
b.services.pubsub.subscribe('t');
const publish = async (text) => {
  await a.services.pubsub.publish('t', new TextEncoder().encode(text));
  await wait(1500);
};
const state = () => `${a.getConnections(b.peerId).length} and ${b.getConnections(a.peerId).length} connections, ` +
  `${a.services.pubsub.getSubscribers('t').length} subscriber, heard: ${heard.join(', ')}`;

await a.dial(b.getMultiaddrs()[0]);
await wait(2000);
await publish('one');
const first = a.getConnections(b.peerId)[0];
await a.dial(b.getMultiaddrs()[0], { force: true });
await wait(1500);
await publish('two');
const both = state();
await first.close();
await wait(3000);
for (const text of ['three', 'four', 'five']) await publish(text);
const after = state();
console.log('two connections:        ', both);
console.log('the first closed:       ', after);
process.exit(both === '2 and 2 connections, 1 subscriber, heard: one, two' &&
  after === '1 and 1 connections, 1 subscriber, heard: one, two' ? 0 : 1);
JS
echo "js-libp2p $(node -p "require('./node_modules/libp2p/package.json').version"), gossipsub 17.1.1, Node.js $(node --version)"
timeout 60 node -r ./node20.cjs try.mjs
echo "as found"
