#!/usr/bin/env bash
# Unpacks Debian's Go with its gRPC and protoc below DIR, for the test of docs/clients/go.md where there is
# no Go or no module proxy. Nothing is installed, and no root is needed. Prints what to put into the environment.
#
#   eval "$(build/unpack-go.sh DIR)"
set -eu

mkdir -p "${1:?usage: build/unpack-go.sh DIR}"
dir=$(cd "$1" && pwd)
packages="golang-1.19-go golang-1.19-src protobuf-compiler libprotoc32 libprotobuf32 libprotobuf-dev
  protoc-gen-go-1-5 protoc-gen-go-grpc golang-google-grpc-dev golang-google-protobuf-dev
  golang-google-genproto-dev golang-github-golang-protobuf-1-5-dev golang-golang-x-net-dev
  golang-golang-x-sys-dev golang-golang-x-text-dev"
if ! [ -e "$dir/complete" ]; then
  if ! { command -v apt-get && command -v dpkg-deb; } >/dev/null; then
    echo "no apt-get to take Go from" >&2
    exit 1
  fi
  cd "$dir"
  # A machine that never asked knows of no packages.
  # shellcheck disable=SC2086 # a list of words
  apt-get download -q $packages >&2 || { apt-get update -q >&2 && apt-get download -q $packages >&2; }
  for package in *.deb; do dpkg-deb -x "$package" .; done
  rm ./*.deb
  touch complete
fi
root=$dir/usr/lib/go-1.19
"$root/bin/go" version >&2
cat <<END
export GOROOT='$root' GO111MODULE=off GOPATH='$dir/work:$dir/usr/share/gocode' GOCACHE='$dir/cache'
export PATH='$dir/usr/bin:$root/bin':"\$PATH" LD_LIBRARY_PATH='$dir/usr/lib/x86_64-linux-gnu'
END
