// A js-libp2p peer for run.py: it follows a topic, says each second what number it is at, and prints a line for
// each message of others. A line "dial ADDRESS" on standard input dials. It ends with its standard input.
import { createInterface } from 'node:readline'
import { noise } from '@chainsafe/libp2p-noise'
import { quic } from '@chainsafe/libp2p-quic'
import { yamux } from '@chainsafe/libp2p-yamux'
import { circuitRelayTransport } from '@libp2p/circuit-relay-v2'
import { gossipsub } from '@libp2p/gossipsub'
import { identify } from '@libp2p/identify'
import { ping } from '@libp2p/ping'
import { tcp } from '@libp2p/tcp'
import { multiaddr } from '@multiformats/multiaddr'
import { createLibp2p } from 'libp2p'

const [listen, topic] = process.argv.slice(2)
const node = await createLibp2p({
  addresses: { listen: [listen] },
  transports: [quic(), tcp(), circuitRelayTransport()],
  connectionEncrypters: [noise()],
  streamMuxers: [yamux()],
  services: { identify: identify(), ping: ping(), pubsub: gossipsub({ allowPublishToZeroTopicPeers: true }) }
})
const { pubsub } = node.services
const say = (...words) => console.log(words.join(' '))
pubsub.addEventListener('message', ({ detail }) => {
  if (detail.topic === topic) say('heard', new TextDecoder().decode(detail.data))
})
pubsub.subscribe(topic)
node.addEventListener('connection:open', ({ detail }) => say('open', detail.remotePeer))
node.addEventListener('connection:close', ({ detail }) => say('close', detail.remotePeer))
let n = 0
setInterval(() => { pubsub.publish(topic, new TextEncoder().encode(`js ${n++}`)).catch(() => {}) }, 500)
const listening = () => {
  const addresses = node.getMultiaddrs().map(String)
  if (addresses.length > 0) say('listening', addresses.join(' '))
}
listening()
// A slot at a relay takes a moment.
node.addEventListener('self:peer:update', listening)
const input = createInterface({ input: process.stdin })
input.on('line', async (line) => {
  try {
    await node.dial(multiaddr(line.split(' ')[1]))
  } catch (e) {
    say('failed', e.message)
  }
})
input.on('close', () => process.exit(0))
