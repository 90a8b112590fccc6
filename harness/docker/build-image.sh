#!/bin/sh
# Builds the embedded broker as a Docker image, from nothing but this repository and this machine.
#
#   harness/docker/build-image.sh [IMAGE] [BINARY]
#
# IMAGE  name to give it; `harness-broker:local` by default
# BINARY harness program to put into it; built by cargo without it
set -eu
image=${1:-harness-broker:local}
here=$(cd "$(dirname "$0")" && pwd)
if [ $# -ge 2 ]; then
    binary=$2
else
    (cd "$here/../.." && cargo build -p harness)
    binary=${CARGO_TARGET_DIR:-$here/../../target}/debug/harness
fi

context=$(mktemp -d)
trap 'rm -rf "$context"' EXIT
root=$context/root
mkdir -p "$root/sessions" "$root/tmp"
cp "$binary" "$root/harness"
strip "$root/harness" 2>/dev/null || true
# Every library by the path the loader looks for it at; the loader itself has no arrow.
ldd "$binary" | sed -n 's/.*=> \(\/[^ ]*\).*/\1/p; s/^[[:space:]]*\(\/[^ ]*\) (.*/\1/p' | while read -r library; do
    mkdir -p "$root$(dirname "$library")"
    cp -L "$library" "$root$library"
done
# What looks names up is loaded by the C library when it is first needed, which ldd does not see (before glibc 2.34).
libc=$(ldd "$binary" | sed -n 's/.*libc\.so\.6 => \(\/[^ ]*\).*/\1/p')
for name in libnss_files.so.2 libnss_dns.so.2 libresolv.so.2; do
    library=$(dirname "$libc")/$name
    if [ -n "$libc" ] && [ -e "$library" ]; then
        mkdir -p "$root$(dirname "$library")"
        cp -L "$library" "$root$library"
    fi
done
cp "$here/Dockerfile" "$context/Dockerfile"
DOCKER_BUILDKIT=0 docker build --quiet --tag "$image" "$context"
