#!/usr/bin/env bash
# Makes this machine able to build, test and run Palomar. Idempotent; says plainly what it lacks.
#   setup.sh run    what running Palomar and its demo needs
#   setup.sh test   that, and what only the tests need
set -euo pipefail
cd "$(dirname "$0")"
purpose=${1:-run}

# Every Debian package once, with its reason.
run_packages=(
  ca-certificates   # pip reaches the package index over TLS
  clang             # compiles bpf/*.c
  libbpf-dev        # bpf_helpers.h
  linux-libc-dev    # the kernel's user-space headers that bpf/ includes
  make              # runs the Makefile
  python3           # the interpreter
  python3-venv      # the isolated environment
  python3-bpfcc     # bcc, the prescribed eBPF bindings (PyPI's "bcc" is another project)
  bpftool           # looks into maps and programs, as the recipes in the docs do
  iproute2          # ip and tc, to look at what was built
  iputils-ping      # ping, in the demo
  nftables          # masquerade of traffic to the world
  etcd-server       # shared state of several nodes
  prometheus        # scrapes the demo; promtool checks metrics and rules
  curl              # the demo's clients
  bind9-dnsutils    # dig, the demo's DNS look-ups
  dnsmasq-base      # the DNS server of the demo application
  util-linux        # nsenter and unshare run the demo's processes in their pods
)
test_packages=(
  iperf3            # TCP streams of the benchmarks
  sockperf          # TCP request and response of the benchmarks
  procps            # ps, pgrep
  chromium          # the browser that looks at the page
)
wanted=("${run_packages[@]}")
[ "$purpose" = test ] && wanted+=("${test_packages[@]}")

missing=()
for package in "${wanted[@]}"; do
  state=$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null || true)
  [ "$state" = installed ] || missing+=("$package")
done
if [ ${#missing[@]} -gt 0 ]; then
  if ! command -v apt-get >/dev/null; then
    echo "setup: this is not Debian; install by hand the equivalents of: ${missing[*]}" >&2
    exit 1
  fi
  if [ "$(id -u)" != 0 ]; then
    echo "setup: not root; as root run: apt-get install --no-install-recommends ${missing[*]}" >&2
    exit 1
  fi
  echo "setup: installing ${missing[*]}"
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq
  # Services of these packages are the demo's to start, not the machine's.
  policy=/usr/sbin/policy-rc.d
  [ -e "$policy" ] || { printf '#!/bin/sh\nexit 101\n' > "$policy"; chmod 755 "$policy"; trap 'rm -f "$policy"' EXIT; }
  apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi

# Debian's interpreter, because Debian's bcc was built beside it.
python=/usr/bin/python3
if ! [ -x .venv/bin/python ] || ! .venv/bin/python -c '' 2>/dev/null; then
  rm -rf .venv
  "$python" -m venv .venv
fi
[ -x .venv/bin/uv ] || .venv/bin/pip install --quiet --disable-pip-version-check "uv>=0.5"
groups=(--no-dev)
[ "$purpose" = test ] && groups=(--group dev)
VIRTUAL_ENV=$PWD/.venv .venv/bin/uv sync --quiet --frozen --inexact --active "${groups[@]}"

# The environment sees Debian's bcc and nothing else of Debian's Python.
mkdir -p .venv/debian
ln -sfn /usr/lib/python3/dist-packages/bcc .venv/debian/bcc
site=$(.venv/bin/python -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')
echo "$PWD/.venv/debian" > "$site/palomar-bcc.pth"
.venv/bin/python -c 'import bcc.libbcc; bcc.libbcc.lib.bpf_object__open_file' || {
  echo "setup: bcc does not load: reinstall python3-bpfcc" >&2
  exit 1
}

if [ "$(id -u)" = 0 ]; then
  mountpoint -q /sys/fs/bpf || mount -t bpf bpf /sys/fs/bpf
else
  echo "setup: not root: pure tests run, everything that touches the kernel does not" >&2
  mountpoint -q /sys/fs/bpf || echo "setup: /sys/fs/bpf is not mounted; as root: mount -t bpf bpf /sys/fs/bpf" >&2
fi
