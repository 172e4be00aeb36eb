#!/usr/bin/env bash
# Prints the path of a Chromium for the test of the page: the one on PATH, or else the one that the npm package
# @sparticuz/chromium carries with its libraries and fonts, unpacked below DIR and not installed. Needs no root.
#
#   build/unpack-chromium.sh DIR
set -eu

dir=${1:?usage: build/unpack-chromium.sh DIR}
for name in chromium chromium-browser google-chrome; do
  if command -v "$name"; then exit 0; fi
done
if ! [ -x "$dir/run" ]; then
  if ! { command -v npm && command -v node; } >/dev/null; then
    echo "no chromium on PATH, and no npm to take it from" >&2
    exit 1
  fi
  rm -rf "$dir"
  mkdir -p "$dir"
  cd "$dir"
  npm pack --silent @sparticuz/chromium >&2
  tar xzf ./*.tgz --strip-components=2 package/bin
  rm ./*.tgz
  for packed in *.br; do
    node -e '
      const [from, to] = process.argv.slice(1), { brotliDecompressSync: unpack } = require("zlib");
      require("fs").writeFileSync(to, unpack(require("fs").readFileSync(from)));
    ' "$packed" "${packed%.br}"
    rm "$packed"
  done
  for packed in *.tar; do tar xf "$packed" && rm "$packed"; done
  chmod +x chromium
  # Its fonts and no others, so that a picture is the same everywhere.
  printf '<fontconfig><dir>%s</dir><cachedir>%s</cachedir></fontconfig>\n' "$PWD/fonts" "$PWD/cache" >fonts.conf
  printf '#!/bin/sh\nLD_LIBRARY_PATH=%s FONTCONFIG_FILE=%s exec %s "$@"\n' \
    "'$PWD/lib'" "'$PWD/fonts.conf'" "'$PWD/chromium'" >run.new
  chmod +x run.new
  mv run.new run
fi
"$dir/run" --version >&2 || {
  echo "the chromium of npm does not run here: install chromium" >&2
  exit 1
}
echo "$dir/run"
