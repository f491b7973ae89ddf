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

# file PATH MODE SOURCE. Little is indented, since clouds take little. A last line without its end would run into the next path.
file() {
    printf '%s\n' "- path: $1" "  permissions: \"$2\"" '  content: |'
    sed 's/^./    &/' "$3"
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
file /usr/local/sbin/userns-node-pull 0755 "$here/userns-node-pull"
file /etc/systemd/system/userns-node-pull.service 0644 "$here/userns-node-pull.service"
file /etc/systemd/system/userns-node-pull.timer 0644 "$here/userns-node-pull.timer"
cat <<'YAML'
runcmd:
  - [systemctl, daemon-reload]
  # The first run. A repository that is not reached yet (3) and another run (75) may pass; nothing else does.
  - |
    for try in 1 2 3 4 5 6 7 8 9 10; do
      code=0
      /usr/local/sbin/userns-node-pull || code=$?
      case $code in 3 | 75) sleep 30 ;; *) break ;; esac
    done
    # Only where it is proven what makes this machine a node: put your own command here.
    [ "$code" != 0 ] || echo 'this node is ready to join'
  # After that: a run of the timer's would have the lock, and this machine would not join.
  - [systemctl, enable, --now, userns-node-pull.timer]
YAML
