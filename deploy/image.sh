#!/usr/bin/env bash
# Builds the image of a node: deploy/image.sh [TAG]
#
#   BASE=…      the base image; the default is in the Dockerfile
#   ONCEKEY=…   a program that is built already; else it is built here
set -euo pipefail
cd "$(dirname "$0")/.."
tag=${1:-oncekey}
program=${ONCEKEY:-}
if [ -z "$program" ]; then
  cargo build --release --locked -p oncekey-cli
  program=${CARGO_TARGET_DIR:-target}/release/oncekey
fi

context=$(mktemp -d)
trap 'rm -rf "$context"' EXIT
mkdir "$context/data"
cp deploy/Dockerfile "$context"
# Line tables help to read a backtrace and are nine tenths of the program.
objcopy --strip-debug "$program" "$context/oncekey"
docker build --network none ${BASE:+--build-arg "BASE=$BASE"} --tag "$tag" "$context"
