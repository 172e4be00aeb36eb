#!/usr/bin/env bash
# Installs what a fresh machine lacks for building billstream, through the
# system's own package manager. Silent when nothing is missing.
#
#   build/install-deps.sh                 C and C++ compilers, cmake, make
#   build/install-deps.sh --distro-grpc   also the distribution's own gRPC, for
#                                         GRPCIO_SYS_USE_PKG_CONFIG=1
#
# Rust is not installed here: rustup does that, for one user, without root.
set -eu

say() { echo "install-deps: $*" >&2; }
die() { say "$*"; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }

distro_grpc=no
case "$#:${1:-}" in
0:) ;;
1:--distro-grpc) distro_grpc=yes ;;
*) die "usage: build/install-deps.sh [--distro-grpc]" ;;
esac

# Programs are looked for, not packages: whoever has a compiler from elsewhere
# needs no second one.
missing() {
  have cc || echo cc
  have c++ || echo c++
  have cmake || echo cmake
  have make || echo make
  if [ "$distro_grpc" = yes ]; then
    # docs/security.md makes certificates with it.
    have openssl || echo openssl
    if ! have pkg-config; then
      echo pkg-config grpc
    elif ! pkg-config --exists grpc; then
      echo grpc
    fi
  fi
}

# The package names of one missing thing, for the package manager in $manager.
packages_of() {
  case "$manager:$1" in
  apt-get:cc) echo gcc libc6-dev ;;
  apt-get:c++) echo g++ ;;
  apt-get:grpc) echo libgrpc-dev ;;
  dnf:cc) echo gcc ;;
  dnf:c++) echo gcc-c++ ;;
  dnf:pkg-config) echo pkgconf-pkg-config ;;
  dnf:grpc) echo grpc-devel ;;
  apk:cc) echo gcc musl-dev linux-headers ;;
  apk:c++) echo g++ linux-headers ;;
  apk:pkg-config) echo pkgconf ;;
  apk:grpc) echo grpc-dev ;;
  pacman:cc | pacman:c++) echo gcc ;;
  pacman:pkg-config) echo pkgconf ;;
  *) echo "$1" ;;
  esac
}

# Homebrew refuses to run as root; the others need it.
as_root() {
  if [ "$(id -u)" = 0 ]; then
    "$@"
  elif have sudo; then
    sudo "$@"
  else
    die "not root and no sudo; as root, run: $*"
  fi
}

install() {
  case "$manager" in
  apt-get)
    as_root apt-get update -q
    as_root env DEBIAN_FRONTEND=noninteractive \
      apt-get install -q -y --no-install-recommends "$@" ;;
  dnf) as_root dnf install -y "$@" ;;
  apk) as_root apk add "$@" ;;
  # Not -Sy: a partial upgrade is what breaks an Arch machine.
  pacman) as_root pacman -S --needed --noconfirm "$@" ;;
  brew) brew install "$@" ;;
  esac
}

lacking=$(missing | tr '\n' ' ')
[ -n "$lacking" ] || exit 0

manager=
for m in apt-get dnf apk pacman brew; do
  if have "$m"; then manager=$m; break; fi
done
[ -n "$manager" ] || die "missing: ${lacking% }; no apt-get, dnf, apk, pacman or brew here: install by hand"

# Apple's compilers and make come from elsewhere.
if [ "$manager" = brew ] && ! { have c++ && have make; }; then
  die "missing: ${lacking% }; run 'xcode-select --install', then this again"
fi

packages=
for thing in $lacking; do
  for package in $(packages_of "$thing"); do
    case " $packages" in *" $package "*) ;; *) packages="$packages$package " ;; esac
  done
done
say "missing: ${lacking% }; installing with $manager: ${packages% }"
# shellcheck disable=SC2086 # a list of words
install $packages >&2 || die "$manager failed; install by hand: ${packages% }"

lacking=$(missing | tr '\n' ' ')
[ -z "$lacking" ] || die "still missing after the installation: ${lacking% }"
