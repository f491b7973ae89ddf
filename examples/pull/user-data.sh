#!/bin/sh
# Prints cloud-init's user-data for nodes that pull, from the files beside this one.
#
# usage: sh examples/pull/user-data.sh PULL.CONF ALLOWED_SIGNERS >user-data
set -eu
if [ $# != 2 ] || [ ! -s "$1" ] || [ ! -s "$2" ]; then
    echo "usage: sh $0 PULL.CONF ALLOWED_SIGNERS >user-data" >&2
    exit 2
fi
here=$(dirname "$0")

# file PATH MODE SOURCE [SED-SCRIPT]. As little is indented as YAML allows, since clouds take little. A last line without its
# end would run into the next path.
file() {
    printf '%s\n' - " path: $1" " permissions: \"$2\"" ' content: |'
    sed -e "${4:-}" -e 's/^./  &/' "$3"
    [ -z "$(tail -c 1 "$3")" ] || echo
}

cat <<'YAML'
#cloud-config
packages:
  - git
  - openssh-client
  - python3
  - python3-venv
write_files:
YAML
file /etc/userns-node/pull.conf 0600 "$1"
file /etc/userns-node/allowed_signers 0644 "$2"
# With its head, and without the comments below it: they are for who changes it, and would be an eighth of what may be sent.
file /usr/local/sbin/userns-node-pull 0755 "$here/userns-node-pull" '1,/^set -eu/!{/^ *#/d;}'
file /etc/systemd/system/userns-node-pull.service 0644 "$here/userns-node-pull.service"
file /etc/systemd/system/userns-node-pull.timer 0644 "$here/userns-node-pull.timer"
file /var/lib/cloud/scripts/per-boot/50-userns-node 0755 "$here/first-boot"
