# fetch.sh STAGE SHOWN SHA256 MEMBER=NAME… : download one release asset, verify it, and lay its programs into STAGE.
# Follows unpack.sh in one text. The URL is the line on stdin, and a second one is that of a proxy: they may hold
# passwords, and whoever is on a node can read the arguments of all its processes. SHOWN is the URL for people.
at_end() { :; }
open_stage "$1" "$3"
show=$2
shift 3
IFS= read -r url || {
    echo "the URL did not arrive: a login script of this user (.profile) reads standard input" >&2
    exit 1
}
if IFS= read -r proxy && [ -n "$proxy" ]; then
    export http_proxy="$proxy" https_proxy="$proxy" no_proxy=
    unset HTTPS_PROXY NO_PROXY ALL_PROXY all_proxy
fi

fail() {
    still_there "$stage"
    echo "could not download $show" >&2
    exit 1
}
# A mirror may send without an end, or one byte a second: no more than 1 GiB (in blocks of 512 bytes), within an hour.
bounded() (
    ulimit -f 2097152
    if command -v timeout >/dev/null 2>&1; then exec timeout -k 5 3600 "$@"; fi
    "$@"
)
# The URL by a here-document: where printf is a program (mksh), its arguments are to be read as well.
# One that restarts refuses connections for a moment: a dead one costs three seconds for that.
if command -v curl >/dev/null 2>&1; then
    sed 's/[\\"]/\\&/g; s/.*/url = "&"/' <<URL |
$url
URL
        bounded curl --fail --silent --show-error --globoff --location --retry 3 --retry-connrefused --retry-delay 1 \
            --connect-timeout 15 --speed-limit 1024 --speed-time 30 --output "$asset" --config - || fail
elif wget --version 2>/dev/null | grep -q '^GNU Wget'; then
    bounded wget -q -T 30 -t 3 --retry-connrefused -O "$asset" -i - <<URL || fail
$url
URL
elif command -v wget >/dev/null 2>&1; then # busybox takes a URL as an argument alone, and Debian 12's dies of -T
    [ "$url" = "$show" ] || {
        echo "this node's wget would show the password of release_url to its users: install curl" >&2
        exit 1
    }
    case $proxy,$url in
    ?*,https:*)
        echo "this node's wget cannot fetch https through a proxy: install curl" >&2
        exit 1
        ;;
    esac
    bounded wget -q -O "$asset" -- "$url" </dev/null || fail
else
    echo "neither curl nor wget is on this node; install one, or use install_from = \"package\" or \"bundle\"" >&2
    exit 1
fi
unpack "$show" "$@"
