#!/usr/bin/env bash
# Builds the image, runs the compose cluster, kills a node under load and brings it back:
#
#   deploy/test.sh [LOG]
#
#   ONCEKEY=…   a program that is built already
#   BASE=…      the base image; made from this machine's libraries when not said
#
# Needs docker, docker-compose and busybox-static, as in Debian's docker.io, docker-compose and
# busybox-static. Starts a daemon of its own when none answers, and ends it. No network is needed.
set -euo pipefail
cd "$(dirname "$0")/.."
log=${1:-deploy-test.log}
exec > >(tee "$log") 2>&1

folder=$(mktemp -d)
daemon=
end() {
  local status=$?
  if [ "$status" -ne 0 ]; then compose logs --tail 20 || true; fi
  compose --profile load down --volumes --timeout 10 > /dev/null 2>&1 || true
  if [ -n "$daemon" ]; then kill "$daemon"; wait "$daemon" || true; fi
  rm -rf "$folder"
  say "exit status $status"
}
say() { printf '%s %s\n' "$(date -u +%H:%M:%S)" "$*"; }
compose() { docker-compose --file deploy/compose/compose.yaml --project-name oncekey-test "$@"; }
trap end EXIT

if ! docker info > /dev/null 2>&1; then
  export DOCKER_HOST=unix://$folder/docker.sock
  dockerd --host "$DOCKER_HOST" --data-root "$folder/data" --exec-root "$folder/exec" \
    --pidfile "$folder/pid" > "$folder/dockerd.log" 2>&1 &
  daemon=$!
  for _ in $(seq 100); do docker info > /dev/null 2>&1 && break; sleep 0.2; done
  say "started a daemon of $(docker version --format '{{.Server.Version}}')"
fi

program=${ONCEKEY:-target/release/oncekey}
[ -n "${ONCEKEY:-}" ] || cargo build --release --locked -p oncekey-cli
if [ -z "${BASE:-}" ]; then
  deploy/base.sh "$program" oncekey-base > /dev/null
  export BASE=oncekey-base
fi
ONCEKEY=$program deploy/image.sh oncekey > /dev/null
mkdir "$folder/load"
cp deploy/compose/load.Dockerfile deploy/compose/load.sh /bin/busybox "$folder/load"
docker build --network none --file "$folder/load/load.Dockerfile" --tag oncekey-load "$folder/load" > /dev/null
say "built the image: $(docker image inspect --format '{{.Size}}' oncekey) bytes, user $(docker image inspect --format '{{.Config.User}}' oncekey)"
deploy/compose/setup.sh
say "made an authority, certificates and tokens"

node() { compose ps --quiet "node-$1"; }
health() { docker inspect --format '{{.State.Health.Status}}' "$(node "$1")"; }
healthy() {
  local deadline=$((SECONDS + 120))
  while [ "$SECONDS" -lt "$deadline" ]; do
    [ "$(health "$1")" = healthy ] && return
    sleep 0.2
  done
  say "node $1 is $(health "$1")"
  return 1
}

compose up --detach node-1 node-2 node-3
for id in 1 2 3; do healthy "$id"; done
say "three nodes in three regions are healthy"
for id in 1 2 3; do
  docker inspect --format '{{.HostConfig.ReadonlyRootfs}} {{.Config.User}} {{.HostConfig.CapDrop}}' "$(node "$id")" \
    | grep -qx 'true 10001:10001 \[ALL\]'
done
say "each without root, without capabilities, on a read-only file system"

compose run --rm load &
load=$!
sleep 10
victim=$(node 2)
docker kill --signal KILL "$victim" > /dev/null
say "killed node 2 (exit code $(docker inspect --format '{{.State.ExitCode}}' "$victim"))"
sleep 5
docker start "$victim" > /dev/null
healthy 2
say "node 2 is back and healthy"
wait "$load"
say "the load is done: no letter failed, and every letter was opened"

compose stop --timeout 30 node-1 node-2 node-3
for id in 1 2 3; do
  code=$(docker inspect --format '{{.State.ExitCode}}' "$(compose ps --all --quiet "node-$id")")
  [ "$code" -eq 0 ] || { say "node $id ended with $code"; exit 1; }
done
say "all nodes ended in good order"
