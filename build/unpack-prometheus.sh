#!/usr/bin/env bash
# Prints the directory of a prometheus and a promtool for the tests of metrics: the one on PATH, or else the
# distribution's package, unpacked below DIR and not installed. Needs no root.
#
#   build/unpack-prometheus.sh DIR
set -eu

dir=${1:?usage: build/unpack-prometheus.sh DIR}
if command -v promtool >/dev/null && command -v prometheus >/dev/null; then
  dirname "$(command -v prometheus)"
  exit 0
fi
bin=$dir/usr/bin
if ! [ -x "$bin/promtool" ]; then
  if ! { command -v apt-get && command -v dpkg-deb; } >/dev/null; then
    echo "no prometheus on PATH, and no apt-get to take it from" >&2
    exit 1
  fi
  mkdir -p "$dir"
  cd "$dir"
  # A machine that never asked knows of no packages.
  apt-get download -q prometheus >&2 || { apt-get update -q >&2 && apt-get download -q prometheus >&2; }
  dpkg-deb -x prometheus_*.deb .
fi
"$bin/promtool" --version >&2 || {
  echo "promtool does not run here: install prometheus" >&2
  exit 1
}
echo "$bin"
