#!/usr/bin/env bash
# Lets schemathesis try real nodes against their own description: one that is open, so that it gets
# past who may do what, and one that wants tokens, as a stranger and as a user.
#
#   tests/schemathesis.sh [EXAMPLES [SEED]]      how many for each operation, 30; 1
#
# Needs the program (ONCEKEY=…, else target/debug/oncekey) and schemathesis on the path.
set -euo pipefail
cd "$(dirname "$0")/.."
examples=${1:-30} seed=${2:-1}
program=$(realpath "${ONCEKEY:-${CARGO_TARGET_DIR:-target}/debug/oncekey}")

folder=$(mktemp -d)
node=
stop() { if [ -n "$node" ]; then kill "$node"; wait "$node" || true; fi; node=; }
trap 'stop; rm -rf "$folder"' EXIT

ports() {
  python3 -c 'import socket
held = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
print(*(socket.getsockname()[1] for socket in held))'
}
# start NAME AUTH: a node with this section of its configuration.
start() {
  config=$folder/$1.toml
  read -r public admin peer < <(ports)
  cat > "$config" <<TOML
[node]
id = 1
data_dir = "$folder/$1"
[listen]
public = "127.0.0.1:$public"
admin = "127.0.0.1:$admin"
peer = "127.0.0.1:$peer"
[cluster]
members = [{ id = 1, peer = "127.0.0.1:$peer", public = "http://127.0.0.1:$public" }]
[auth]
$2
[log]
filter = "error"
TOML
  "$program" serve --config "$config" &
  node=$!
  well
}
# Waits until the node is well: one that has just formed its cluster may be so, then not, for a moment.
well() {
  for _ in $(seq 600); do
    "$program" health --config "$config" "$@" 2> "$folder/health" && return
    sleep 0.1
  done
  cat "$folder/health"
  return 1
}
# try SETTINGS PORT FILTER…: what schemathesis remembers goes with the folder.
settings=$PWD/tests/schemathesis
try() {
  cd "$folder"
  schemathesis --config-file "$settings/$1.toml" run "http://127.0.0.1:$admin/openapi.json" \
    --url "http://127.0.0.1:$2" --checks all --max-examples "$examples" --seed "$seed" \
    --request-timeout 30 --phases examples,coverage,fuzzing "${@:3}"
}

# Operations for clients are on the public listener, those for operators on the other. A stream of
# events does not end by itself. What operators write comes last, as it may take the node apart; it must
# answer all the same.
start open 'mode = "open"'
try anyone "$public" --include-tag clients --exclude-operation-id events
try anyone "$admin" --include-tag operators --exclude-method POST
well
try anyone "$admin" --include-tag operators --exclude-method GET
well --live
stop

"$program" token key --dir "$folder/issuer" > "$folder/printed"
start tokens "issuer = \"oncekey-trial\"
audience = \"oncekey\"
jwks_file = \"$folder/issuer/jwks.json\""
ONCEKEY_TOKEN=$("$program" token mint --key "$folder/issuer/issuer.jwk" --user bob)
export ONCEKEY_TOKEN ONCEKEY_PASSPHRASE='for a trial only'
device() { "$program" device --home "$folder/bob" "$@" > "$folder/printed"; }
device new --user bob --endpoints "http://127.0.0.1:$public"
device publish
try stranger "$public" --include-tag clients --exclude-operation-id events
try bob "$public" --include-tag clients --exclude-operation-id events \
  --header "Authorization: Bearer $ONCEKEY_TOKEN"
well
