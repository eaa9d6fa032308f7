#!/usr/bin/env python3
"""The gateway under an even load for a long time, then without its cloud, then with it again.

Resident memory and the outbox over time; how soon what piled up during the outage has left; how soon an alert reaches the cloud, all
the while. The cloud is mosquitto with one subscriber to alerts; the load is `nearside simulate --profile load`; an alert is a low glucose
value every PROBE seconds, on 64 streams in turn, timed from its publication to its arrival at the subscriber. Memory is told as the medians of ten
equal parts of the steady time.

BIN (target/release/nearside), MOSQUITTO, STREAMS (1000), RATE of readings a second (20000), WARM_UP (120), STEADY (1800), OUTAGE (600),
DRAIN, the most that is waited for (600), PROBE (2): seconds. SAMPLES: a file for one line of JSON every 5 s. The last line printed is the result.
"""
import json
import os
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

ENV = os.environ.get
BIN, MOSQUITTO = ENV("BIN", "target/release/nearside"), ENV("MOSQUITTO", "mosquitto")
STREAMS, RATE = int(ENV("STREAMS", "1000")), int(ENV("RATE", "20000"))
WARM_UP, STEADY, OUTAGE, DRAIN = (float(ENV(name, default)) for name, default in
                                  [("WARM_UP", "120"), ("STEADY", "1800"), ("OUTAGE", "600"), ("DRAIN", "600")])
PROBE, EVERY = float(ENV("PROBE", "2")), 5.0
HZ = os.sysconf("SC_CLK_TCK")

SITE = """
[site]
id = "steady"
[broker]
listen = "127.0.0.1:{broker}"
[console]
listen = "127.0.0.1:{console}"
[rollup]
enabled = false
[[stream]]
name = "load"
topic = "load/{{n}}"
format = "json"
timestamp = {{ path = "$.ts", unit = "millis" }}
fields = {{ value = "$.value" }}
windows = [{{ kind = "tumbling", size = "1s" }}]
models = ["robust-z"]
[[stream]]
name = "probe"
topic = "probe/{{n}}"
format = "number"
fields = {{ glucose = {{ path = "$", unit = "mg/dL" }} }}
windows = [{{ kind = "tumbling", size = "1s" }}]
models = ["glucose-range"]
privacy = {{ n = "clear" }}
[uplink]
url = "mqtt://127.0.0.1:{cloud}"
backoff_max = "5s"
"""


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def packet(first, body):
    length, size = b"", len(body)
    while True:
        size, low = size >> 7, size & 127
        length += bytes([low | (128 if size else 0)])
        if not size:
            return bytes([first]) + length + body


def text(value):
    return struct.pack(">H", len(value)) + value


def connect(port, name, patience=20):
    end = time.monotonic() + patience
    while True:
        try:
            s = socket.create_connection(("127.0.0.1", port), timeout=patience)
            break
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.05)
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    s.sendall(packet(0x10, text(b"MQTT") + b"\x04\x02\x00\x00" + text(name.encode())))
    assert exactly(s, 4) == b"\x20\x02\x00\x00", "CONNACK"
    return s


def exactly(s, count):
    data = b""
    while len(data) < count:
        more = s.recv(count - len(data))
        if not more:
            raise OSError("closed")
        data += more
    return data


def receive(s):
    first, size, shift = exactly(s, 1)[0], 0, 0
    while True:
        byte = exactly(s, 1)[0]
        size |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return first, exactly(s, size)


class Cloud:
    """mosquitto, and who listens for alerts there."""

    def __init__(self, folder):
        # By stream, the times at which alerts arrived.
        self.port, self.arrived, self.alerts = free_port(), {}, 0
        self.conf = os.path.join(folder, "mosquitto.conf")
        with open(self.conf, "w") as file:
            file.write(f"listener {self.port} 127.0.0.1\nallow_anonymous true\nmax_inflight_messages 0\nmax_queued_messages 0\n")

    def start(self):
        self.server = subprocess.Popen([MOSQUITTO, "-c", self.conf], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        s = connect(self.port, "listener")
        s.settimeout(None)
        s.sendall(packet(0x82, b"\x00\x01" + text(b"nearside/+/alert") + b"\x00"))
        assert receive(s)[0] == 0x90, "SUBACK"
        threading.Thread(target=self.listen, args=(s,), daemon=True).start()

    def stop(self):
        self.server.kill()
        self.server.wait()

    def listen(self, s):
        try:
            while True:
                first, body = receive(s)
                if first >> 4 != 3:
                    continue
                now = time.monotonic()
                data = json.loads(body[2 + struct.unpack(">H", body[:2])[0]:])["data"]
                self.alerts += 1
                if data["stream"] == "probe":
                    self.arrived.setdefault(int(data["key"]["n"]), []).append(now)
        except OSError:
            pass


class Probes(threading.Thread):
    """An alert every PROBE seconds, on STREAMS streams in turn: each has a window of its own."""

    STREAMS = 64

    def __init__(self, port):
        super().__init__(daemon=True)
        self.port, self.sent, self.stopping = port, {}, threading.Event()

    def run(self):
        s, n = connect(self.port, "probe"), 0
        while not self.stopping.wait(PROBE):
            n += 1
            self.sent[n] = time.monotonic()
            topic = f"probe/{n % self.STREAMS}".encode()
            s.sendall(packet(0x32, text(topic) + struct.pack(">H", n % 60_000 + 1) + b"40"))
            receive(s)


class Watch:
    """Samples of the gateway."""

    def __init__(self, server, console, folder):
        self.server, self.console, self.folder = server, console, folder
        self.samples, self.began = [], time.monotonic()
        self.file = open(ENV("SAMPLES", os.devnull), "w")

    def metrics(self):
        found = {}
        with urllib.request.urlopen(f"http://127.0.0.1:{self.console}/metrics", timeout=30) as page:
            for line in page.read().decode().splitlines():
                if not line.startswith("#"):
                    name, value = line.rsplit(" ", 1)
                    found[name] = float(value)
        return found

    def sample(self, phase):
        assert self.server.poll() is None, "the gateway has ended"
        metrics = self.metrics()
        total = lambda prefix: sum(value for name, value in metrics.items() if name.startswith(prefix))
        with open(f"/proc/{self.server.pid}/status") as file:
            resident_kib = next(int(line.split()[1]) for line in file if line.startswith("VmRSS"))
        with open(f"/proc/{self.server.pid}/stat") as file:
            fields = file.read().rsplit(")", 1)[1].split()
        sample = {
            "at": round(time.monotonic() - self.began, 1),
            "phase": phase,
            "resident_mb": round(resident_kib / 1024, 1),
            "cpu_seconds": (int(fields[11]) + int(fields[12])) / HZ,
            "readings": total("nearside_readings_total"),
            "set_aside": total("nearside_readings_set_aside_total"),
            "sealed": total("nearside_summaries_sealed_total"),
            "outbox_items": total("nearside_outbox_items"),
            "outbox_shed": total("nearside_outbox_shed_total"),
            "sent": total("nearside_uplink_sent_total"),
            "connected": total("nearside_uplink_connected"),
            "waits": total("nearside_stage_waits_total"),
            "outbox_file_mb": round(os.path.getsize(os.path.join(self.folder, "data/outbox.redb")) / 2**20, 1),
            "journal_mb": round(total("nearside_journal_size_bytes") / 2**20, 1),
        }
        self.samples.append(sample)
        print(json.dumps(sample), file=self.file, flush=True)
        return sample

    def during(self, phase, seconds, until=lambda sample: False):
        """Samples for so long, or until a sample says it is over. Gives back whether one did."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if until(self.sample(phase)):
                return True
            time.sleep(min(EVERY, max(0.0, end - time.monotonic())))
        return False


def latencies(probes, cloud, begin, end):
    """Seconds of the alerts that were sent between the two times; and how many have not come."""
    # The first arrival of its stream after an alert was sent is its own: the stream's next one is sent much later.
    sent = [(n % probes.STREAMS, at) for n, at in probes.sent.items() if begin <= at < end]
    came = [next((time for time in cloud.arrived.get(stream, []) if time > at), None) for stream, at in sent]
    took = sorted(time - at for (_, at), time in zip(sent, came) if time is not None)
    missing = len(sent) - len(took)
    if not took:
        return {"alerts": 0, "missing": missing}
    return {"alerts": len(took), "missing": missing, "p50_s": round(took[len(took) // 2], 3), "max_s": round(took[-1], 3)}


def main():
    with tempfile.TemporaryDirectory() as folder:
        cloud, ports = Cloud(folder), {"broker": free_port(), "console": free_port()}
        path = os.path.join(folder, "site.toml")
        with open(path, "w") as file:
            file.write(SITE.format(cloud=cloud.port, **ports))
        cloud.start()
        said = open(os.path.join(folder, "stderr.txt"), "w")
        server = subprocess.Popen([BIN, "run", path], stdout=subprocess.DEVNULL, stderr=said)
        seconds = int(WARM_UP + STEADY + OUTAGE + DRAIN + 60)
        load = None
        try:
            connect(ports["broker"], "first").close()
            load = subprocess.Popen([BIN, "simulate", "--profile", "load", "--broker", f"mqtt://127.0.0.1:{ports['broker']}", "--streams",
                                     str(STREAMS), "--rate", str(RATE), "--connections", "4", "--inflight", "1000", "--seconds",
                                     str(seconds)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            probes, watch = Probes(ports["broker"]), Watch(server, ports["console"], folder)
            probes.start()
            result(probes, watch, cloud)
        finally:
            for process in [load, server, cloud.server]:
                if process:
                    process.kill()
                    process.wait()
            with open(os.path.join(folder, "stderr.txt")) as file:
                sys.stderr.write(file.read()[-2_000:])


def result(probes, watch, cloud):
    watch.during("warm-up", WARM_UP)
    times = [time.monotonic()]
    watch.during("steady", STEADY)
    times.append(time.monotonic())
    cloud.stop()
    watch.during("outage", OUTAGE)
    piled_up = watch.sample("outage")["outbox_items"]
    back = time.monotonic()
    cloud.start()
    # Until the gateway tries again: at most `backoff_max`.
    while not watch.metrics().get("nearside_uplink_connected{}", 0):
        time.sleep(0.1)
    again = time.monotonic()
    # What is new is in the outbox for a moment: about a second's worth.
    drained = watch.during("drain", DRAIN, lambda sample: sample["outbox_items"] < 2 * STREAMS)
    drained_after = time.monotonic() - again
    time.sleep(10)
    probes.stopping.set()
    time.sleep(5)
    steady = [sample for sample in watch.samples if sample["phase"] == "steady"]
    resident = [sample["resident_mb"] for sample in steady]
    tenth = max(1, len(resident) // 10)
    medians = [sorted(part)[len(part) // 2] for part in (resident[n:n + tenth] for n in range(0, len(resident), tenth))][:10]
    mean = sum(medians) / len(medians)
    first, last = steady[0], steady[-1]
    readings = last["readings"] - first["readings"]
    print(json.dumps({
        "readings_per_second": round(readings / (last["at"] - first["at"])),
        "cpu_us_a_reading": round((last["cpu_seconds"] - first["cpu_seconds"]) * 1e6 / readings, 2),
        "resident_mb": {"medians": medians, "least": min(resident), "most": max(resident),
                        "most_in_all": max(sample["resident_mb"] for sample in watch.samples)},
        "medians_within_percent": round(max(max(medians) - mean, mean - min(medians)) / mean * 100, 1),
        "piled_up": piled_up,
        "drained": drained,
        "connected_again_after_s": round(again - back, 1),
        "drained_after_s": round(drained_after, 1),
        "alerts_steady": latencies(probes, cloud, *times),
        "alerts_while_draining": latencies(probes, cloud, again, again + drained_after),
        "alerts_of_the_outage": latencies(probes, cloud, times[1], again),
        "other_alerts": cloud.alerts - sum(len(times) for times in cloud.arrived.values()),
        "set_aside": watch.samples[-1]["set_aside"],
        "outbox_shed": watch.samples[-1]["outbox_shed"],
        "outbox_file_mb": watch.samples[-1]["outbox_file_mb"],
    }))


main()
