# image-launch.sh STAGE SCRIPT ACTIONS: run the activation (all texts in base64) in an image, and leave
# nothing there that belongs to this run. Nothing outlives it: its processes end with it.
set -eu
umask 077
stage=$1 state=/var/lib/userns-node
trap 'rm -rf "$stage"' EXIT
mkdir -p "$stage"
printf '%s' "$2" | base64 -d >"$stage/activate.sh"
printf '%s' "$3" | base64 -d >"$stage/actions"
# What has changed from here on gets the time of SOURCE_DATE_EPOCH; a file's time is coarser than the clock.
touch -d "@$(($(date +%s) - 1))" /run/before
sh "$stage/activate.sh" "$stage"
trap - EXIT

# Sets to go back to, and whether it was proven, are a node's. The lock is held on the tree, by who bakes it. What
# somebody else had written, and the deploy has replaced, is nowhere else.
find "$state" -mindepth 1 -maxdepth 1 ! -name manifest ! -name image.json ! -name image.cdx.json ! -name replaced \
    -exec rm -rf {} +
if [ -n "${SOURCE_DATE_EPOCH-}" ]; then
    find /etc /usr /var -xdev \( -newer /run/before -o -path /var/lib -o -path "$state" -o -path "$state/*" \) \
        -newermt "@$SOURCE_DATE_EPOCH" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
fi
