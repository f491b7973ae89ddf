# package.sh STAGE PACKAGE VERSION… : find the distribution's version of each upstream VERSION and download it.
# Writes STAGE/PACKAGE.version for the activation. Changes nothing but apt's own lists and cache.
set -eu
umask 022
export DEBIAN_FRONTEND=noninteractive LC_ALL=C
stage=$1
shift
(umask 077 && mkdir -p "$stage") # not for apt, whose files others read
done=no
# A failure ends the run for this node, and nothing uses what it staged.
finish() {
    [ "$done" = yes ] || { rm -rf "$stage" && rmdir "${stage%/*}" "${stage%/*/*}" 2>/dev/null; }
}
trap finish EXIT
trap 'exit 130' INT HUP TERM

command -v apt-get >/dev/null 2>&1 || {
    echo "this node has no apt-get, and install_from = \"package\" knows no other package manager; use \"release\"" >&2
    exit 1
}

# Its last words, and only where it fails.
apt_get() {
    output=$(apt-get -q -o DPkg::Lock::Timeout=120 "$@" 2>&1) || {
        printf '%s\n' "$output" | tail -n 5 >&2
        return 1
    }
}

offered() { apt-cache madison "$1" | sed -n 's/^[^|]*| *\([^ |]*\) *|.*/\1/p'; }

# The upstream part of a Debian version: 1:2.1.9~ds1-1+b2 is 2.1.9, and 2.0.0~rc.1+ds1-1 is 2.0.0-rc.1.
upstream() {
    printf '%s\n' "$1" | sed -e 's/^[0-9]*://' -e 's/~\(alpha\|beta\|rc\)/#\1/' -e 's/[-+~].*//' -e 's/#/-/'
}

find_version() {
    for candidate in $(offered "$1"); do
        if [ "$(upstream "$candidate")" = "$2" ] || [ "$candidate" = "$2" ]; then
            printf '%s\n' "$candidate"
            return 0
        fi
    done
    return 1
}

updated=no
wanted=
while [ $# -gt 1 ]; do
    package=$1 version=$2
    shift 2
    if ! exact=$(find_version "$package" "$version"); then
        if [ "$updated" = no ]; then
            apt_get update || echo "apt-get update failed; going on with the old lists" >&2
            updated=yes
        fi
        exact=$(find_version "$package" "$version") || {
            offers=$(offered "$package" | tr '\n' ' ')
            echo "apt on this node offers no $package $version; it offers: ${offers:-no version of it at all}" >&2
            exit 1
        }
    fi
    wanted="$wanted $package=$exact"
    [ -d "$stage" ] || { # whoever ends a change drops all stages
        echo "another run changed this node meanwhile; run again" >&2
        exit 1
    }
    printf '%s\n' "$exact" >"$stage/$package.version"
done
# shellcheck disable=SC2086  # package=version words, checked above
apt_get -y install --no-remove --download-only --reinstall --no-install-recommends --allow-downgrades --allow-change-held-packages $wanted
done=yes
