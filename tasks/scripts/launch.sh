# launch.sh STAGE TOKEN SCRIPT ACTIONS : run the activation (both texts in base64) in a transient systemd unit and
# wait for it. The unit outlives this shell and its SSH connection; its output goes to a file, because a pipe to a
# dead connection would kill it in the middle. The file is in /run, which is there when the disk is full. At its end
# the unit puts it into the journal: journalctl -u 'userns-node-activate-*'.
set -eu
umask 077
stage=$1 unit=userns-node-activate-$2 log=/run/userns-node-activate-$2.log
trap 'rm -rf "$stage"' EXIT
mkdir -p "$stage"
printf '%s' "$3" | base64 -d >"$stage/activate.sh"
printf '%s' "$4" | base64 -d >"$stage/actions"
trap - EXIT # from here on the stage is the unit's

# shellcheck disable=SC2016  # expanded by the unit's own shell
systemd-run --quiet --collect --wait --unit="$unit" --description="userns-node: change containerd on this node" \
    --property=UMask=0077 --property=TimeoutStopSec=300 \
    /bin/sh -c 'exec 3>&1 >"$1" 2>&1; sh "$2/activate.sh" "$2" 3>&-; code=$?
        timeout 5 cat "$1" >&3; echo "activation exits with $code"' sh "$log" "$stage" || :

# systemd-run may lose the bus while systemd reloads, and `is-active` may fail then: the log's last line is the truth.
gone=0
until grep -qs '^activation exits with ' "$log" || [ "$gone" -ge 10 ]; do
    systemctl is-active --quiet "$unit" || gone=$((gone + 1))
    sleep 0.2
done
if [ ! -e "$log" ]; then
    rm -rf "$stage"
    echo "systemd did not start the unit $unit; nothing was changed" >&2
    exit 1
fi
output=$(cat "$log")
rm -f "$log"
code=$(printf '%s\n' "$output" | sed -n '$s/^activation exits with //p')
[ -n "$code" ] || output="$output
error: the change was cut off on the node before its end; run again: it goes on from there
activation exits with 1"
printf '%s\n' "$output" | sed '$d'
exit "${code:-1}"
