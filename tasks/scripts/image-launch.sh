# image-launch.sh STAGE SCRIPT ACTIONS: run the activation (all texts in base64) in an image, and leave
# nothing there that belongs to this run. Nothing outlives it: its processes end with it.
set -eu
umask 077
stage=$1 state=/var/lib/userns-node
# The first thing that a change makes, and the last one that it removes: where it is still there, the bake was cut off,
# and the next one brings it to its end.
baking=$state/baking
mkdir -p "$stage"
new=""
for made in "$baking" "$state/lock"; do [ -e "$made" ] || new="$new $made"; done
leave() { # nothing of a change that was refused; what one needs that can't be undone yet stays
    rm -rf "$stage"
    [ ! -e "$state/activation" ] && [ ! -e "$state/committed" ] || return 0
    # shellcheck disable=SC2086  # two names without blanks
    rm -f $new
    rmdir "$state/staged" "$state" 2>/dev/null || :
}
trap leave EXIT
# What has changed from then on gets the time of SOURCE_DATE_EPOCH; a file's time is coarser than the clock.
[ -e "$baking" ] || touch -d "@$(($(date +%s) - 1))" "$baking"
printf '%s' "$2" | base64 -d >"$stage/activate.sh"
printf '%s' "$3" | base64 -d >"$stage/actions"
sh "$stage/activate.sh" "$stage"
trap - EXIT

# Sets to go back to, and whether it was proven, are a node's. The lock is held on the tree, by who bakes it. What
# somebody else had written, and the deploy has replaced, is nowhere else. The slash: it may be a link.
find "$state/" -mindepth 1 -maxdepth 1 ! -name manifest ! -name image.json ! -name image.cdx.json ! -name replaced \
    ! -name baking -exec rm -rf {} +
if [ -n "${SOURCE_DATE_EPOCH-}" ]; then
    find /etc /usr /var -xdev \( -newer "$baking" -o -path /var/lib \) ! -path "$baking" -newermt "@$SOURCE_DATE_EPOCH" \
        -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
    find "$state/" -mindepth 1 ! -name baking -newermt "@$SOURCE_DATE_EPOCH" \
        -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
fi
rm -f "$baking"
[ -z "${SOURCE_DATE_EPOCH-}" ] || touch -d "@$SOURCE_DATE_EPOCH" "$state/"
