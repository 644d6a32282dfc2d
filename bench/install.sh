#!/bin/sh
# Installs the rivals that `peers` measures: etcd, PostgreSQL and Redis, from the packages of
# Debian or a distribution like it. Needs root. May be run again: what is there already stays.
# The services that the packages bring are not started; `peers` starts its own.
set -eu

packages="etcd-server postgresql redis-server"

if [ "$(id -u)" -ne 0 ]; then
    echo "install.sh: must be run as root (it calls apt-get)" >&2
    exit 1
fi
if ! command -v apt-get >/dev/null; then
    echo "install.sh: apt-get not found; install by hand: $packages" >&2
    exit 1
fi

missing=""
for package in $packages; do
    status=$(dpkg-query -W -f '${Status}' "$package" 2>/dev/null || true)
    [ "$status" = "install ok installed" ] || missing="$missing $package"
done

if [ -n "$missing" ]; then
    # invoke-rc.d asks this script before it starts a service; 101 means "do not".
    policy=/usr/sbin/policy-rc.d
    if [ ! -e "$policy" ]; then
        trap 'rm -f "$policy"' EXIT
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod 755 "$policy"
    fi
    apt-get update -q
    # Unquoted on purpose: a list of names.
    # shellcheck disable=SC2086
    DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $missing
fi

for package in $packages; do
    dpkg-query -W -f '${Package} ${Version}\n' "$package"
done
