# launch.sh STAGE TOKEN SCRIPT ACTIONS : run the activation (both texts in base64) in a transient systemd unit and
# wait for it. The unit outlives this shell and its SSH connection; its output goes to a file, because a pipe to a
# dead connection would kill it in the middle. The file is in /run, which is there when the disk is full. At its end
# the unit puts it into the journal: journalctl -u 'userns-node-activate-*'.
set -eu
umask 077
stage=$1 unit=userns-node-activate-$2 log=/run/userns-node-activate-$2.log
script=/run/userns-node-activate-$2.sh undo=/run/systemd/system/userns-node-activate-$2-undo.service
trap 'rm -rf "$stage" "$script" "$undo"' EXIT
mkdir -p "$stage"
printf '%s' "$3" | base64 -d >"$stage/activate.sh"
printf '%s' "$4" | base64 -d >"$stage/actions"
cp "$stage/activate.sh" "$script"

# Where it is killed in the middle (a systemd-oomd does so), systemd starts this unit, which undoes the change at once.
# ExecStopPost would be in the same cgroup and be killed with it.
mkdir -p "${undo%/*}"
printf '%s\n' >"$undo" "[Unit]
Description=Undo a change by userns-node that was killed
CollectMode=inactive-or-failed

[Service]
Type=oneshot
UMask=0077
ExecStart=/bin/sh $script --undo $stage $log $undo $script"
chmod 644 "$undo" # systemd has a line in the journal for one that not everybody may read, at each look
# From here on they are the units'. This shell ends where it stands if it can start no process any more.
trap 'echo "error: nobody waits for the change any more; it ends or is undone without. Run again: the next run waits for it, or goes on from there" >&2' EXIT

# shellcheck disable=SC2016  # expanded by the unit's own shell
systemd-run --quiet --collect --wait --unit="$unit" --description="userns-node: change containerd on this node" \
    --property=UMask=0077 --property=TimeoutStopSec=300 \
    --property=OnFailure="${undo##*/}" \
    /bin/sh -c 'exec 3>&1 >"$1" 2>&1; sh "$2/activate.sh" "$2" 3>&-; code=$?
        # Killed alone: a failed unit is undone as one that was killed whole, or brought to its end after its last step.
        [ "$code" -le 128 ] || exit "$code"
        timeout 5 cat "$1" >&3; echo "activation exits with $code"; rm -f "$3" "$4"' \
    sh "$log" "$stage" "$undo" "$script" || :

# systemd-run may lose the bus while systemd reloads, and `is-active` may fail then: the log's last line is the truth.
gone=0
until grep -qs '^activation exits with ' "$log" || [ "$gone" -ge 25 ]; do
    case $(systemctl is-active "$unit" "${undo##*/}") in
        *activating* | active*) ;; # a oneshot is activating while it runs
        *) gone=$((gone + 1)) ;;
    esac
    sleep 0.2
done
if [ ! -e "$log" ]; then
    trap - EXIT
    rm -rf "$stage" "$undo" "$script"
    echo "systemd did not start the unit $unit; nothing was changed" >&2
    exit 1
fi
output=$(cat "$log")
rm -f "$log" "$undo" "$script"
trap - EXIT
code=$(printf '%s\n' "$output" | sed -n '$s/^activation exits with //p')
[ -n "$code" ] || output="$output
error: the change was cut off on the node before its end; run again: it goes on from there
activation exits with 1"
printf '%s\n' "$output" | sed '$d'
exit "${code:-1}"
