# receive.sh STAGE WHAT SIZE SHA256 MEMBER=NAME… : take one release asset from stdin, verify it, and lay its programs
# into STAGE. Follows unpack.sh in one text. WHAT names the asset for messages, SIZE is in bytes.
#
# The controller listens when it has said all: where this fails, what is still to come is read and dropped. An hour is
# for a connection that died without a word, which only the kernel's own patience would end.
at_end() { timeout 3600 cat >/dev/null 2>&1 || :; }
open_stage "$1" "$4"
what=$2 size=$3
shift 4

timeout 3600 cat >"$asset" || {
    still_there "$stage"
    echo "could not store $what in $stage: is there space?" >&2
    exit 1
}
still_there "$asset"
got=$(wc -c <"$asset")
if [ "$got" -ne "$size" ]; then
    echo "only $((got)) of $size bytes of $what arrived; nothing was unpacked" >&2
    exit 1
fi
unpack "what arrived as $what" "$@"
