// MQTT.js, which Node-RED has, too: peer.mjs URL NAME [CAFILE]. It does what peer.py does.
import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";
import mqtt from "mqtt";

const [url, name, cafile] = process.argv.slice(2);
const client = mqtt.connect(url, {
  clientId: name,
  protocolVersion: 5,
  ca: cafile && readFileSync(cafile),
  will: { topic: `all/${name}/will`, payload: "lost", qos: 1 },
});
client.on("error", (error) => { console.log("error", error.message); process.exit(1); });
client.on("message", (topic, payload) => console.log("heard", topic, payload.toString()));
client.on("connect", async () => {
  await client.subscribeAsync("all/#", { qos: 2 });
  console.log("ready");
});
createInterface({ input: process.stdin }).on("line", async (line) => {
  const [topic, qos, retain, ...payload] = line.split(" ");
  await client.publishAsync(topic, payload.join(" "), { qos: Number(qos), retain: retain === "1" });
  console.log("said", payload.join(" "));
});
