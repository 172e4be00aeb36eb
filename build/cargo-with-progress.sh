#!/usr/bin/env bash
# Runs a cargo command; while the gRPC C core is being compiled under it, says
# so on stderr: at the start, and then every half minute.
#
#   build/cargo-with-progress.sh cargo build --release
#
# Cargo shows nothing of a build script's work, and this one takes minutes.
set -eu

# As measured with gcc 12 on x86-64; both are only for the messages.
cpu_minutes=11
files=1100

target=${CARGO_TARGET_DIR:-target}
previous=
for argument in "$@"; do
  case "$previous:$argument" in
  --target-dir:*) target=$argument ;;
  *:--target-dir=*) target=${argument#*=} ;;
  esac
  previous=$argument
done

# Object files younger than $1 minutes in the C core's build directories. (The
# age in minutes is what GNU, BSD and busybox find have in common.)
objects() {
  find "$target" -path '*/build/grpcio-sys-*/out/*' -name '*.o' -mmin "-$1" 2>/dev/null | wc -l
}

built_before() {
  [ -n "$(find "$target" -path '*/build/grpcio-sys-*/out/libgrpc_wrap.a' 2>/dev/null | head -n 1)" ]
}

# Ends with the process $1, within a second: whoever reads our stderr through a
# pipe waits for this one too.
report() {
  local seconds=0 last=0 now
  while kill -0 "$1" 2>/dev/null; do
    sleep 1
    seconds=$((seconds + 1))
    if [ $((seconds % 30)) = 0 ]; then
      now=$(objects $((seconds / 60 + 1)) | tr -d " ")
      if [ "$now" -gt "$last" ]; then
        echo "gRPC C core: $now of about $files files, $((seconds / 60)) min $((seconds % 60)) s" >&2
      fi
      last=$now
    fi
  done
}

if [ "${GRPCIO_SYS_USE_PKG_CONFIG:-0}" != 1 ]; then
  if ! built_before; then
    cores=$(nproc 2>/dev/null || getconf _NPROCESSORS_ONLN)
    # One minute more for what only one core can do.
    minutes=$((1 + (cpu_minutes + cores - 1) / cores))
    echo "First build in $target: SQLite, BoringSSL and the gRPC C core are compiled from source," \
      "about $minutes minutes on $cores idle cores. Later builds do not repeat it." >&2
  fi
  report $$ </dev/null >/dev/null &
fi

# Exec, so that signals and the exit status are cargo's own.
exec "$@"
