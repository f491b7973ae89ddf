#!/bin/sh
# Prints cloud-init's user-data for nodes that pull, from the files beside this one.
#
# usage: sh examples/pull/user-data.sh PULL.CONF ALLOWED_SIGNERS >user-data
set -eu
if [ $# != 2 ] || [ ! -s "$1" ] || [ ! -s "$2" ]; then
    echo "usage: sh $0 PULL.CONF ALLOWED_SIGNERS >user-data" >&2
    exit 2
fi
refuse() {
    echo "$0: $*" >&2
    exit 2
}
# Many can read user-data: anyone who may start pods, for one, reaches the cloud's metadata service.
for given; do
    ! grep -q 'PRIVATE KEY' "$given" || refuse "$given holds a private key, which belongs on no node: give the public one"
done
grep -q '^[^#]*PULL_REPOSITORY=[^[:space:]]' "$1" || refuse "$1 sets no PULL_REPOSITORY: the first file is pull.conf"
# As ssh-keygen reads it: principals, options (or none), the key's type, the key. A .pub file begins with the type.
awk -v type='^(ssh|ecdsa|sk-ssh|sk-ecdsa)-[a-z0-9@.-]+$' '
    $1 ~ /^#/ || $1 ~ type { next }
    { for (i = 2; i < NF; i++) if ($i ~ type) found = 1 }
    END { exit !found }' <"$2" ||
    refuse "$2 has no line 'PRINCIPAL ssh-ed25519 KEY': the second file is allowed_signers, in which somebody's name is" \
        "before each public key, such as: release@example.internal namespaces=\"git\" ssh-ed25519 AAAA…"
here=$(dirname "$0")

# file PATH MODE SOURCE [SED-SCRIPT]. The indentation is the least that YAML allows, because clouds limit the size. A
# last line without a newline would run into the next path.
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
# The script keeps its head but not the comments below it, and the units lose theirs: they are for those who change
# these files, and would be a fifth of what may be sent.
file /usr/local/sbin/userns-node-pull 0755 "$here/userns-node-pull" '1,/^set -eu/!{/^ *#/d;}'
file /etc/systemd/system/userns-node-pull.service 0644 "$here/userns-node-pull.service" '/^#/d'
file /etc/systemd/system/userns-node-pull.timer 0644 "$here/userns-node-pull.timer" '/^#/d'
file /var/lib/cloud/scripts/per-boot/50-userns-node 0755 "$here/first-boot"
