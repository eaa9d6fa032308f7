#!/usr/bin/env python3
"""Latency of delivery, and the server's CPU a delivered message: 1 publisher to 100 subscribers, and 100 publishers to 1, the gateway and
mosquitto in turns (A B A B) on the same load.

BIN: the gateway (target/release/nearside), MOSQUITTO, ROUNDS (2), SECS a run (6), RATE of deliveries a second (2000), QOS (1), MANY (100).
Publisher and subscribers are one process, so that one clock stamps both ends; each payload carries when it was sent. Its own work is in
both figures. CPU is user and system time of the server's threads.
"""
import os
import selectors
import socket
import struct
import subprocess
import sys
import tempfile
import time

ENV = os.environ.get
BIN, MOSQUITTO = ENV("BIN", "target/release/nearside"), ENV("MOSQUITTO", "mosquitto")
ROUNDS, SECS, RATE = int(ENV("ROUNDS", "2")), float(ENV("SECS", "6")), int(ENV("RATE", "2000"))
QOS, MANY = int(ENV("QOS", "1")), int(ENV("MANY", "100"))
TOPIC = b"bench/t"
WARM_UP_S = 1.0

SITE = """
[site]
id = "bench"
[broker]
listen = "127.0.0.1:{port}"
[console]
listen = "127.0.0.1:0"
[rollup]
enabled = false
[[stream]]
name = "other"
topic = "other/{{n}}"
format = "number"
fields = {{ value = "$" }}
windows = [{{ kind = "tumbling", size = "1m" }}]
"""


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def start(name, folder):
    port = free_port()
    if name == "nearside":
        path = os.path.join(folder, "site.toml")
        text, command = SITE.format(port=port), [BIN, "run", path]
    else:
        path = os.path.join(folder, "mosquitto.conf")
        text = f"listener {port} 127.0.0.1\nallow_anonymous true\nmax_inflight_messages 0\nmax_queued_messages 0\n"
        command = [MOSQUITTO, "-c", path]
    with open(path, "w") as file:
        file.write(text)
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    end = time.monotonic() + 20
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return server, port
        except OSError:
            if time.monotonic() > end or server.poll() is not None:
                sys.exit(f"{name} does not start")
            time.sleep(0.05)


def packet(first, body):
    assert len(body) < 128
    return bytes([first, len(body)]) + body


def text(value):
    return struct.pack(">H", len(value)) + value


def client(port, name):
    s = socket.create_connection(("127.0.0.1", port))
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    s.sendall(packet(0x10, text(b"MQTT") + b"\x04\x02\x00\x3c" + text(name.encode())))
    assert s.recv(4, socket.MSG_WAITALL) == b"\x20\x02\x00\x00", "CONNACK"
    return s


def cpu_seconds(pid):
    """What the scheduler has accounted to the threads that live, in nanoseconds; the ticks of /proc/PID/stat are of 10 ms."""
    total = 0
    for thread in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{thread}/schedstat") as file:
            total += int(file.read().split()[0])
    return total / 1e9


class Load:
    """`publishers` to `subscribers`, RATE deliveries a second in all."""

    def __init__(self, port, publishers, subscribers):
        self.selector, self.latencies, self.buffers = selectors.DefaultSelector(), [], {}
        self.publishers = [client(port, f"p{n}") for n in range(publishers)]
        self.subscribers = [client(port, f"s{n}") for n in range(subscribers)]
        for s in self.subscribers:
            s.sendall(packet(0x82, b"\x00\x01" + text(TOPIC) + bytes([QOS])))
            assert s.recv(5, socket.MSG_WAITALL)[0] == 0x90, "SUBACK"
        for s in self.publishers + self.subscribers:
            s.setblocking(False)
            self.buffers[s] = b""
            self.selector.register(s, selectors.EVENT_READ)
        self.sent = 0

    def publish(self):
        s = self.publishers[self.sent % len(self.publishers)]
        self.sent += 1
        number = struct.pack(">H", self.sent % 65_535 + 1) if QOS else b""
        s.send(packet(0x30 | QOS << 1, text(TOPIC) + number + struct.pack(">d", time.monotonic())))

    def take(self, wait):
        for key, _ in self.selector.select(wait):
            s = key.fileobj
            data = self.buffers[s] + s.recv(1 << 16)
            now, at, answers = time.monotonic(), 0, b""
            while len(data) - at >= 2 and len(data) - at >= 2 + data[at + 1]:
                end = at + 2 + data[at + 1]
                if data[at] & 0xF0 == 0x30:
                    self.latencies.append(now - struct.unpack(">d", data[end - 8 : end])[0])
                    if QOS:
                        answers += b"\x40\x02" + data[end - 10 : end - 8]
                at = end
            self.buffers[s] = data[at:]
            if answers:
                s.send(answers)

    def run(self, secs):
        per_publish = len(self.subscribers)
        interval, begin = per_publish / RATE, time.monotonic()
        count = int(secs / interval)
        for n in range(count):
            while (wait := begin + n * interval - time.monotonic()) > 0:
                self.take(wait)
            self.publish()
        end, due = time.monotonic() + 5, count * per_publish
        while len(self.latencies) < due and time.monotonic() < end:
            self.take(0.1)
        return due


def measure(name, publishers, subscribers):
    with tempfile.TemporaryDirectory() as folder:
        server, port = start(name, folder)
        try:
            load = Load(port, publishers, subscribers)
            load.run(WARM_UP_S)
            load.latencies.clear()
            before = cpu_seconds(server.pid)
            due = load.run(SECS)
            cpu = cpu_seconds(server.pid) - before
            got = sorted(load.latencies)
        finally:
            server.terminate()
            server.wait()
    at = lambda share: got[min(int(len(got) * share), len(got) - 1)] * 1e3
    print(
        f"{publishers:>4} to {subscribers:<4} QoS {QOS}  {name:<10} {len(got)} of {due}  p50 {at(0.5):6.2f} ms  p99 {at(0.99):6.2f} ms  "
        f"CPU {cpu / len(got) * 1e6:6.1f} us a message",
        flush=True,
    )


if __name__ == "__main__":
    for shape in ((1, MANY), (MANY, 1)):
        for _ in range(ROUNDS):
            for who in ("nearside", "mosquitto"):
                measure(who, *shape)
