#!/usr/bin/env bash
# Makes a base image without a registry, from the libraries that a program links on this machine:
# deploy/base.sh PROGRAM TAG. For tests and machines without a network; in production a base that is
# kept up to date is better.
set -euo pipefail
program=$1 tag=$2
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
ldd "$program" | grep -o '/[^ ]*' | while read -r library; do
  install -D -m 0755 "$(readlink -f "$library")" "$root$library"
done
install -d -m 1777 "$root/tmp"
install -d "$root/etc"
echo 'oncekey:x:10001:10001::/var/lib/oncekey:/sbin/nologin' > "$root/etc/passwd"
echo 'hosts: files dns' > "$root/etc/nsswitch.conf"
tar --create --owner 0 --group 0 --directory "$root" . | docker import - "$tag"
