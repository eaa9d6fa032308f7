#!/usr/bin/env python3
"""Memory of the gateway for idle connections: BIN (target/release/nearside), CONNECTIONS (10000). Every client has said CONNECT and
nothing else. Needs that many file descriptors: `ulimit -n 25000`."""
import os
import resource
import tempfile
import time

import fanout

CONNECTIONS = int(os.environ.get("CONNECTIONS", "10000"))


def resident_mb(pid):
    with open(f"/proc/{pid}/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmRSS")) / 1024


if __name__ == "__main__":
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    for who in ("nearside", "mosquitto"):
        with tempfile.TemporaryDirectory() as folder:
            server, port = fanout.start(who, folder)
            try:
                time.sleep(1)
                before = resident_mb(server.pid)
                clients = [fanout.client(port, f"c{n}") for n in range(CONNECTIONS)]
                time.sleep(2)
                after = resident_mb(server.pid)
            finally:
                server.terminate()
                server.wait()
        print(f"{who:<10} {len(clients)} connections: {before:.0f} MB before, {after:.0f} MB with them, {after - before:.0f} MB more")
