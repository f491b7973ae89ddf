# put.sh STAGE NAME BYTES [TARGET KEPT] : lay the text on stdin into the stage, for root alone from its first byte, and
# keep what lies at TARGET as KEPT.
# Not as an argument, for it may hold a registry's password, and whoever is on a node can read the arguments of all its
# processes. What follows the last byte (pyinfra ends every stdin with a line end) is dropped.
set -eu
umask 077
stage=$1 file=$1/$2 bytes=$3
trap 'rm -rf "$stage"' EXIT # the run ends for this node where its text does not come
trap 'exit 130' INT HUP TERM
mkdir -p "$stage"
head -c "$bytes" >"$file"
came=$(wc -c <"$file")
[ "$came" -eq "$bytes" ] || {
    echo "only $((came)) of $bytes bytes arrived: the connection broke, or a login script of this user (.profile) reads standard input" >&2
    exit 1
}
if [ $# -gt 3 ]; then
    mkdir -p "${5%/*}"
    cp "$4" "$5.new"
    sync -f "$5.new" # without -f that of uutils waits for all file systems
    mv -f "$5.new" "$5"
fi
trap - EXIT
