#!/usr/bin/env bash
# Makes what the compose cluster needs to trust: a private authority, certificates, and an account
# system with the tokens of two users. For a trial; see docs/tls.md and docs/authentication.md for production.
set -euo pipefail
cd "$(dirname "$0")"
image=${ONCEKEY_IMAGE:-oncekey}
rm -rf secrets
# The nodes' user writes into it, and so owns its keys.
mkdir -m 0777 secrets
oncekey() {
  docker run --rm --network none --read-only --cap-drop ALL --volume "$PWD/secrets:/secrets" "$image" "$@"
}
{
  oncekey certs ca --dir /secrets
  oncekey certs server --dir /secrets --name node-1 --name node-2 --name node-3
  for id in 1 2 3; do oncekey certs node --dir /secrets --cluster compose --id "$id"; done
  oncekey token key --dir /secrets/issuer
} > /dev/null
for user in alice bob; do
  oncekey token mint --key /secrets/issuer/issuer.jwk --user "$user" --lifetime-s 86400 > "secrets/$user.token"
done
