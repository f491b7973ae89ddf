# fetch.sh STAGE SHOWN SHA256 MEMBER=NAME… : download one release asset, verify it, and lay its programs into STAGE.
# The URL is the line on stdin: it may hold a mirror's password, and whoever is on a node can read the arguments of all
# its processes. SHOWN is the URL for people.
# MEMBER is a path inside a .tar.gz, or empty for a bare binary. Nothing is unpacked before the digest agrees,
# and nothing outside STAGE is touched, so a cut at any line leaves the node as it was. A failure ends the run for
# this node, so it takes the whole stage along: 90 MB a try would fill the disk of a node that is tried every hour.
set -eu
umask 077
stage=$1 show=$2 sha256=$3
shift 3
IFS= read -r url || {
    echo "no URL came on stdin: does a profile of this node's shell read from it?" >&2
    exit 1
}
mkdir -p "$stage"
asset=$stage/.asset.$sha256
done=no
finish() {
    rm -rf "$asset" "$asset.d"
    [ "$done" = yes ] || { rm -rf "$stage" && rmdir "${stage%/*}" "${stage%/*/*}" 2>/dev/null; }
}
trap finish EXIT
trap 'exit 130' INT HUP TERM

fail() {
    echo "could not download $show" >&2
    exit 1
}
if command -v curl >/dev/null 2>&1; then
    printf 'url = "%s"\n' "$(printf '%s' "$url" | sed 's/[\\"]/\\&/g')" |
        curl --fail --silent --show-error --location --retry 3 --retry-delay 1 --connect-timeout 15 \
            --speed-limit 1024 --speed-time 30 --output "$asset" --config - || fail
elif wget --version 2>/dev/null | grep -q '^GNU Wget'; then
    printf '%s\n' "$url" | wget -q -T 30 -t 3 -O "$asset" -i - || fail
elif command -v wget >/dev/null 2>&1; then # busybox takes a URL as an argument alone
    [ "$url" = "$show" ] || {
        echo "this node's wget would show the password of release_url to its users: install curl" >&2
        exit 1
    }
    wget -q -T 30 -O "$asset" -- "$url" </dev/null || fail
else
    echo "neither curl nor wget is on this node; install one, or use install_from = \"package\"" >&2
    exit 1
fi

got=$(sha256sum "$asset") && got=${got%% *}
if [ "$got" != "$sha256" ]; then
    echo "$show is not what the lock file pins: its SHA-256 is $got, expected $sha256; nothing was unpacked" >&2
    exit 1
fi

# All members at once: each call of tar would decompress the whole archive.
mkdir "$asset.d"
members=
for program in "$@"; do
    [ -z "${program%%=*}" ] || members="$members ${program%%=*}"
done
# shellcheck disable=SC2086  # paths of our own tables, without blanks
[ -z "$members" ] || tar -xzf "$asset" -C "$asset.d" $members || {
    echo "$show does not hold all of:$members" >&2
    exit 1
}
for program in "$@"; do
    member=${program%%=*} name=${program#*=}
    if [ -z "$member" ]; then
        mv "$asset" "$stage/$name.part"
    else
        # A link inside the archive could point anywhere: only a plain file is taken.
        if [ -L "$asset.d/$member" ] || [ ! -f "$asset.d/$member" ]; then
            echo "$member in $show is not a plain file" >&2
            exit 1
        fi
        mv "$asset.d/$member" "$stage/$name.part"
    fi
    chmod 755 "$stage/$name.part"
    mv -f "$stage/$name.part" "$stage/$name"
done
done=yes
