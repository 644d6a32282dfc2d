#!/bin/busybox sh
# Alice writes letters to Bob through a cluster, each under a one-time prekey of its own, and Bob opens
# all of them at the end. A key that was handed out twice would keep its second letter shut.
set -eu
letters=${LETTERS:-60}
endpoints=https://node-1:8080,https://node-2:8080,https://node-3:8080
export ONCEKEY_PASSPHRASE='for a trial only'
cd /work
device() {
  user=$1; shift
  oncekey device --home "$user" --token-file "/secrets/$user.token" "$@"
}
say() { echo "$(date -u +%H:%M:%S) load: $*"; }

for user in bob alice; do
  device "$user" new --user "$user" --endpoints "$endpoints" --ca /secrets/ca.pem > /dev/null
  device "$user" publish > /dev/null
done
say "bob and alice have published"
letter=0 slowest=0
while [ "$letter" -lt "$letters" ]; do
  before=$(date +%s)
  device alice send bob "letter $letter" > "$letter.letter"
  took=$(($(date +%s) - before))
  if [ "$took" -gt "$slowest" ]; then slowest=$took; fi
  letter=$((letter + 1))
  if [ $((letter % 10)) -eq 0 ]; then say "$letter letters sent, slowest $slowest s"; fi
done
# Fails when a single one is refused.
device bob inbox ./*.letter > opened
opened=$(grep -c 'letter [0-9]' opened)
say "$opened of $letters letters opened"
[ "$opened" -eq "$letters" ]
