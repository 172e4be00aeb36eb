#!/usr/bin/env bash
# Prints the path of an nginx for the tests of docs/proxy.md: the one on PATH, or else the
# distribution's package, unpacked below DIR and not installed. Needs no root.
#
#   build/unpack-nginx.sh DIR
set -eu

dir=${1:?usage: build/unpack-nginx.sh DIR}
if command -v nginx; then
  exit 0
fi
nginx=$dir/usr/sbin/nginx
if ! [ -x "$nginx" ]; then
  if ! { command -v apt-get && command -v dpkg-deb; } >/dev/null; then
    echo "no nginx on PATH, and no apt-get to take it from" >&2
    exit 1
  fi
  mkdir -p "$dir"
  cd "$dir"
  # A machine that never asked knows of no packages.
  apt-get download -q nginx >&2 || { apt-get update -q >&2 && apt-get download -q nginx >&2; }
  dpkg-deb -x nginx_*.deb .
fi
# What it is linked with may be missing where it was never installed.
"$nginx" -v >&2 || {
  echo "nginx does not run here: install it" >&2
  exit 1
}
echo "$nginx"
