#!/usr/bin/env bash
# Lets schemathesis try a real node against its own description:
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
trap 'if [ -n "$node" ]; then kill "$node"; wait "$node" || true; fi; rm -rf "$folder"' EXIT

ports() {
  python3 -c 'import socket
held = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
print(*(socket.getsockname()[1] for socket in held))'
}
read -r public admin peer < <(ports)
cat > "$folder/node.toml" <<TOML
[node]
id = 1
data_dir = "$folder/data"
[listen]
public = "127.0.0.1:$public"
admin = "127.0.0.1:$admin"
peer = "127.0.0.1:$peer"
[cluster]
members = [{ id = 1, peer = "127.0.0.1:$peer", public = "http://127.0.0.1:$public" }]
[auth]
mode = "open"
[log]
filter = "error"
TOML
"$program" serve --config "$folder/node.toml" &
node=$!
for _ in $(seq 100); do
  "$program" health --config "$folder/node.toml" 2> "$folder/health" && break
  sleep 0.1
done
"$program" health --config "$folder/node.toml"

# Operations for clients on the public listener, those for operators on the other. A stream of events
# does not end by itself. What operators write comes last, as it may take the node apart; it must answer
# all the same.
# What it remembers goes with the folder.
config=$PWD/tests/schemathesis.toml
run() {
  cd "$folder"
  schemathesis --config-file "$config" run "http://127.0.0.1:$admin/openapi.json" \
    --url "http://127.0.0.1:$1" --checks all --max-examples "$examples" --seed "$seed" \
    --request-timeout 10 --phases examples,coverage,fuzzing "${@:2}"
}
run "$public" --include-tag clients --exclude-operation-id events
run "$admin" --include-tag operators --exclude-method POST
"$program" health --config "$folder/node.toml"
run "$admin" --include-tag operators --exclude-method GET
"$program" health --config "$folder/node.toml" --live
