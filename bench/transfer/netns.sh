#!/usr/bin/env bash
# Measures KV transfers between two network namespaces of this machine whose link has a set rate:
#   netns.sh PROGRAM KV.safetensors OUT.json [RATE ...]       RATE in Gb/s, default 1 5 10 25; "-" instead of the
# file takes normally distributed values
# Needs unprivileged user namespaces, ip and tc; no root. Both ends share the machine's cores. Sizes: MB="64 256 1024 2048",
# ROUNDS=3; NOTE goes into the report. The text report goes to standard output; OUT.json and OUT.svg are written by netns_report.py.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
program=$(realpath "$1") data=$2 out=$3
[[ $data == - ]] || data=$(realpath "$data")
shift 3
rates=("$@")
[[ ${#rates[@]} -gt 0 ]] || rates=(1 5 10 25)
sizes=${MB:-"64 256 1024 2048"}
rounds=${ROUNDS:-3}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

cat >"$work/inside.sh" <<'INSIDE'
set -euo pipefail
work=$1 program=$2 data=$3 sizes=$4 rounds=$5
shift 5
largest=0
for mb in $sizes; do ((mb > largest)) && largest=$mb; done
unshare -n sleep infinity &
other=$!
server=
trap 'kill $other $server 2>/dev/null || true' EXIT
for _ in $(seq 100); do
  [[ $(readlink /proc/$other/ns/net) != $(readlink /proc/$$/ns/net) ]] && break
  sleep 0.05
done
# Large packets: one core carries more with them, as with the segmentation offload of real cards.
ip link add va mtu 9000 type veth peer name vb mtu 9000
ip link set vb netns $other
ip addr add 10.77.0.1/24 dev va
ip link set va up
ip link set lo up
nsenter -t $other -n ip addr add 10.77.0.2/24 dev vb
nsenter -t $other -n ip link set vb up
nsenter -t $other -n ip link set lo up
nsenter -t $other -n "$program" serve 10.77.0.2 $((largest << 20)) >"$work/server" &
server=$!
for _ in $(seq 200); do
  grep -q ready "$work/server" && break
  kill -0 $server
  sleep 0.1
done
for rate in "$@"; do
  tc qdisc del dev va root 2>/dev/null || true
  if [[ $rate != 0 ]]; then
    bits=$(awk "BEGIN{printf \"%.0f\", $rate * 1e9}")
    # At least what the rate lets through in two milliseconds, and one large packet.
    burst=$(awk "BEGIN{b = $bits / 8 * 0.002; printf \"%.0f\", (b < 262144 ? 262144 : b)}")
    tc qdisc add dev va root tbf rate ${bits}bit burst $burst latency 50ms
  fi
  for mb in $sizes; do
    echo "# rate $rate Gb/s, $mb MB, load $(cut -d' ' -f1-3 /proc/loadavg)" >&2
    "$program" measure 10.77.0.2 "$data" $((mb << 20)) "$rounds" >"$work/lines"
    sed "s|^{|{\"gbps\":$rate,\"load\":\"$(cut -d' ' -f1-2 /proc/loadavg)\",|" "$work/lines" | tee -a "$work/results" >&2
  done
done
INSIDE

unshare -Urn bash "$work/inside.sh" "$work" "$program" "$data" "$sizes" "$rounds" "${rates[@]}"
python3 -B "$here/netns_report.py" "$work/results" "$out" --data "$(basename "$data")" --rounds "$rounds" --note "${NOTE:-}" \
  --command "bench/transfer/netns.sh build/release/bin/$(basename "$program") $(basename "$data") $out ${rates[*]}"
