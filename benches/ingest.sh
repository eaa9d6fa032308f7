#!/usr/bin/env bash
# CPU of the gateway and of mosquitto for the same QoS 1 load, one after the other, several rounds.
set -u
BIN=${BIN:-target/release/nearside}; ROUNDS=${ROUNDS:-3}; RATE=${RATE:-60000}; SECONDS_=${SECS:-10}
W=$(mktemp -d); trap 'kill $(jobs -p) 2>/dev/null; rm -rf $W' EXIT
cat > $W/site.toml <<TOML
[site]
id = "bench"
data_dir = "data"
[broker]
listen = "127.0.0.1:18841"
[console]
listen = "127.0.0.1:18842"
[rollup]
enabled = false
[[stream]]
name = "load"
topic = "load/{n}"
format = "json"
timestamp = { path = "$.ts", unit = "millis" }
fields = { value = "$.value" }
windows = [{ kind = "tumbling", size = "1s" }]
models = ["${MODEL:-robust-z}"]
TOML
printf 'listener 18843 127.0.0.1\nallow_anonymous true\nmax_inflight_messages 0\n' > $W/m.conf
ticks() { awk '{print $14+$15}' /proc/$1/stat; }
HZ=$(getconf CLK_TCK)
measure() { # pid port name
  local before after out acks
  before=$(ticks $1)
  out=$($BIN simulate --profile load --broker mqtt://127.0.0.1:$2 --streams 1000 --rate $RATE --connections 4 --inflight 1000 --seconds $SECONDS_ 2>&1)
  sleep 1.5; after=$(ticks $1)
  acks=$(echo "$out" | sed -n 's/.*"acknowledged":\([0-9]*\).*/\1/p')
  echo "$3 $(awk -v a=$after -v b=$before -v hz=$HZ -v n=$acks 'BEGIN{printf "%.2f us/reading", (a-b)/hz*1e6/n}') $out"
}
for r in $(seq $ROUNDS); do
  $BIN run $W/site.toml > /dev/null 2>$W/err & G=$!
  sleep 1; measure $G 18841 nearside; grep VmRSS /proc/$G/status; kill -TERM $G; wait $G; rm -rf $W/data
  mosquitto -c $W/m.conf > /dev/null 2>&1 & M=$!
  sleep 1; measure $M 18843 mosquitto; kill $M; wait $M
done
