// `mqtt` of npm against the front door: node mqtt_client.cjs MODULES PORT TLS_PORT AUTHORITY. Prints what it did; fails where something
// is not as it should be.
const assert = require("node:assert");
const fs = require("node:fs");
const [modules, port, tlsPort, authority] = process.argv.slice(2);
const mqtt = require(require.resolve("mqtt", { paths: [modules] }));
const ca = fs.readFileSync(authority);
const PATIENCE_MS = 20_000;
process.on("unhandledRejection", (error) => { console.error(error); process.exit(1); });

const url = (way) => ({
  tcp: `mqtt://127.0.0.1:${port}`, tls: `mqtts://localhost:${tlsPort}`,
  ws: `ws://127.0.0.1:${port}/mqtt`, wss: `wss://localhost:${tlsPort}/mqtt`,
})[way];

async function connected(clientId, protocolVersion, way, will) {
  const options = { clientId, protocolVersion, will, ca, reconnectPeriod: 0, connectTimeout: PATIENCE_MS };
  const client = await mqtt.connectAsync(url(way), options);
  const got = [], waiting = [];
  client.on("message", (topic, payload, packet) => {
    const next = waiting.shift();
    if (next) next(packet); else got.push(packet);
  });
  const next = () => got.length > 0 ? Promise.resolve(got.shift()) : new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error("no message comes")), PATIENCE_MS);
    waiting.push((packet) => { clearTimeout(timer); resolve(packet); });
  });
  return { client, got, next };
}

async function everything(version, way) {
  const base = `npm/${version}/${way}`;
  const a = await connected(`${base}/a`, version, way);
  const b = await connected(`${base}/b`, version, way, { topic: `${base}/will`, payload: Buffer.from("gone"), qos: 1 });
  for (const granted of [0, 1, 2]) {
    const answer = await a.client.subscribeAsync(`${base}/granted-${granted}`, { qos: granted });
    assert.strictEqual(answer[0].qos, granted);
    for (const qos of [0, 1, 2]) {
      await b.client.publishAsync(`${base}/granted-${granted}`, `值${qos}`, { qos });
      const packet = await a.next();
      assert.deepStrictEqual([packet.payload.toString(), packet.qos], [`值${qos}`, Math.min(qos, granted)]);
    }
  }
  await b.client.publishAsync(`${base}/kept`, "kept", { qos: 1, retain: true });
  await a.client.subscribeAsync(`${base}/kept`, { qos: 1 });
  const kept = await a.next();
  assert.ok(kept.retain && kept.payload.toString() === "kept");
  await b.client.publishAsync(`${base}/kept`, "", { qos: 1, retain: true });
  assert.strictEqual((await a.next()).payload.length, 0);
  await a.client.subscribeAsync(`$share/g/${base}/shared`, { qos: 1 });
  await b.client.subscribeAsync(`$share/g/${base}/shared`, { qos: 1 });
  for (let n = 0; n < 10; n++) await b.client.publishAsync(`${base}/shared`, String(n), { qos: 1 });
  await new Promise((resolve) => setTimeout(resolve, 500));
  const shared = [...a.got.splice(0), ...b.got.splice(0)].map((packet) => Number(packet.payload)).sort();
  assert.deepStrictEqual(shared, [...Array(10).keys()]);
  if (version === 5) {
    const properties = {
      userProperties: { k: ["v1", "v2"] }, contentType: "text/plain", responseTopic: `${base}/answer`,
      correlationData: Buffer.from([0, 1]), messageExpiryInterval: 60,
    };
    await a.client.subscribeAsync(`${base}/question`, { qos: 1 });
    await b.client.publishAsync(`${base}/question`, "?", { qos: 1, properties });
    const got = (await a.next()).properties;
    assert.deepStrictEqual([...got.userProperties.k], ["v1", "v2"]);
    assert.deepStrictEqual([got.contentType, got.responseTopic], ["text/plain", `${base}/answer`]);
    assert.deepStrictEqual([...got.correlationData], [0, 1]);
  }
  await a.client.subscribeAsync(`${base}/will`, { qos: 1 });
  // Gone without DISCONNECT.
  b.client.stream.destroy();
  assert.strictEqual((await a.next()).payload.toString(), "gone");
  await a.client.endAsync();
  console.log("mqtt", version === 5 ? "v5" : "v3.1.1", way);
}

(async () => {
  for (const version of [4, 5]) for (const way of ["tcp", "tls", "ws", "wss"]) await everything(version, way);
  process.exit(0);
})();
