#!/usr/bin/env bash
# MQTT.js 5 that reconnects with a QoS 1 publish of before still unacknowledged sends that publish again and then waits:
# until the server acknowledges it, the client neither emits `connect` nor subscribes again. A server that holds
# PUBACK back until the message is safe elsewhere makes every such client deaf for as long as that takes, though the
# connection is up and CONNACK was sent.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
npm install --silent --no-audit --no-fund --prefix . mqtt@5.16.0 >/dev/null

cat >try.mjs <<'JS'
import net from 'node:net';
import mqtt from 'mqtt';
// MQTT 3.1.1 as far as this client speaks it; short packets only.
const seen = [];
let connections = 0, release;
const server = net.createServer((socket) => {
  const nth = ++connections;
  let buffer = Buffer.alloc(0);
  socket.on('error', () => {});
  socket.on('data', (data) => {
    buffer = Buffer.concat([buffer, data]);
    while (buffer.length > 1 && buffer.length >= 2 + buffer[1]) {
      const kind = buffer[0] >> 4, body = buffer.subarray(2, 2 + buffer[1]);
      buffer = buffer.subarray(2 + buffer[1]);
      if (kind === 1) socket.write(Buffer.from([0x20, 2, 0, 0]));
      if (kind === 8) { seen.push(`subscribe on ${nth}`); socket.write(Buffer.from([0x90, 3, body[0], body[1], 0])); }
      if (kind === 3) {
        seen.push(`publish on ${nth}`);
        const topic = body.readUInt16BE(0), id = body.subarray(2 + topic, 4 + topic);
        if (nth === 1) socket.destroy(); // never acknowledged on the first connection
        else release = () => socket.write(Buffer.from([0x40, 2, id[0], id[1]]));
      }
    }
  });
}).listen(0, '127.0.0.1', () => {
  const client = mqtt.connect({ host: '127.0.0.1', port: server.address().port, reconnectPeriod: 100 });
  client.on('error', () => {});
  client.on('connect', () => {
    seen.push(`'connect' no. ${seen.filter((s) => s.startsWith("'connect'")).length + 1}`);
    if (connections === 1) client.subscribe('t', () => client.publish('t', 'x', { qos: 1 }));
  });
  setTimeout(() => {
    console.log('4 s later, no PUBACK: ', seen.join(', '));
    const silent = seen.join();
    release();
    setTimeout(() => {
      console.log('and 1 s after PUBACK: ', seen.join(', '));
      const then = seen.join();
      client.end(true);
      server.close();
      const held = silent === "'connect' no. 1,subscribe on 1,publish on 1,publish on 2";
      const freed = then === `${silent},'connect' no. 2,subscribe on 2`;
      process.exit(held && freed ? 0 : 1);
    }, 1000);
  }, 4000);
});
JS
echo "MQTT.js $(node -p "require('./node_modules/mqtt/package.json').version") on Node.js $(node --version)"
timeout 30 node try.mjs
echo "as found"
