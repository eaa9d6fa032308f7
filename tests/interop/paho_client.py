"""paho-mqtt against the front door: paho_client.py PORT TLS_PORT AUTHORITY. Prints what it did; fails where something is not as it should be."""
import queue
import sys
import threading

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

PORT, TLS_PORT, AUTHORITY = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
PATIENCE = 20


class Client:
    """Connected; what it gets is in `messages`."""

    def __init__(self, name, version, transport, will=None):
        web = transport in ("ws", "wss")
        self.client = mqtt.Client(
            mqtt.CallbackAPIVersion.VERSION2, client_id=name, protocol=version, transport="websockets" if web else "tcp"
        )
        if web:
            self.client.ws_set_options(path="/mqtt")
        tls = transport in ("tls", "wss")
        if tls:
            self.client.tls_set(ca_certs=AUTHORITY)
        if will:
            self.client.will_set(will, "gone", qos=1)
        self.version, self.messages = version, queue.Queue()
        connected, self.subscribed = threading.Event(), threading.Event()
        self.client.on_connect = lambda *_: connected.set()
        self.client.on_subscribe = lambda *_: self.subscribed.set()
        self.client.on_message = lambda client, userdata, message: self.messages.put(message)
        self.client.connect("localhost" if tls else "127.0.0.1", TLS_PORT if tls else PORT)
        self.client.loop_start()
        assert connected.wait(PATIENCE), "no CONNACK"

    def subscribe(self, topic, qos=2):
        self.subscribed.clear()
        if self.version == mqtt.MQTTv5:
            self.client.subscribe(topic, options=SubscribeOptions(qos=qos))
        else:
            self.client.subscribe(topic, qos)
        assert self.subscribed.wait(PATIENCE), "no SUBACK"

    def publish(self, topic, payload, **options):
        self.client.publish(topic, payload, **options).wait_for_publish(PATIENCE)

    def next(self):
        return self.messages.get(timeout=PATIENCE)

    def end(self):
        self.client.disconnect()
        self.client.loop_stop()


def everything(version, transport):
    base = f"paho/{version}/{transport}"
    a, b = Client(base + "/a", version, transport), Client(base + "/b", version, transport, will=base + "/will")
    for granted in (0, 1, 2):
        a.subscribe(f"{base}/granted-{granted}", granted)
        for qos in (0, 1, 2):
            b.publish(f"{base}/granted-{granted}", f"值{qos}", qos=qos)
            message = a.next()
            assert message.payload.decode() == f"值{qos}" and message.qos == min(qos, granted), (granted, qos, message.qos)
    b.publish(base + "/kept", "kept", qos=1, retain=True)
    a.subscribe(base + "/kept")
    message = a.next()
    assert message.retain and message.payload == b"kept"
    b.publish(base + "/kept", "", qos=1, retain=True)
    assert a.next().payload == b""
    a.subscribe(f"$share/g/{base}/shared")
    b.subscribe(f"$share/g/{base}/shared")
    for n in range(10):
        b.publish(base + "/shared", str(n), qos=1)
    threading.Event().wait(0.5)
    shared = sorted(int(x.messages.get_nowait().payload) for x in (a, b) for _ in range(x.messages.qsize()))
    assert shared == list(range(10)), shared
    if version == mqtt.MQTTv5:
        properties = Properties(PacketTypes.PUBLISH)
        properties.UserProperty = [("k", "v1"), ("k", "v2")]
        properties.ContentType, properties.ResponseTopic = "text/plain", base + "/answer"
        properties.CorrelationData, properties.MessageExpiryInterval = b"\x00\x01", 60
        a.subscribe(base + "/question")
        b.publish(base + "/question", "?", qos=1, properties=properties)
        got = a.next().properties
        assert got.UserProperty == [("k", "v1"), ("k", "v2")] and got.ContentType == "text/plain", got
        assert got.ResponseTopic == base + "/answer" and got.CorrelationData == b"\x00\x01", got
        assert 0 < got.MessageExpiryInterval <= 60, got
    a.subscribe(base + "/will")
    # Gone without DISCONNECT.
    b.client.loop_stop()
    b.client.socket().close()
    assert a.next().payload == b"gone"
    a.end()
    print("paho", "v5" if version == mqtt.MQTTv5 else "v3.1.1", transport, flush=True)


for protocol in (mqtt.MQTTv311, mqtt.MQTTv5):
    for way in ("tcp", "tls", "ws", "wss"):
        everything(protocol, way)
