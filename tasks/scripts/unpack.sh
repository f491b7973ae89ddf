# unpack.sh: what fetch.sh and receive.sh have in common. Nothing of an asset is unpacked before its digest agrees, and
# nothing outside of the stage is touched, so a cut at any line leaves the node as it was. A failure ends the run for
# this node, so it takes the whole stage along: 90 MB a try would fill the disk of a node that is tried every hour.
set -eu
umask 077

# open_stage STAGE SHA256: makes $stage, and $asset in it for the asset
open_stage() {
    stage=$1 sha256=$2 done=no
    asset=$stage/.asset.$sha256
    trap finish EXIT
    # PIPE: what is said to a connection that was cut must not end this shell before it has cleaned up.
    trap 'exit 130' INT HUP TERM PIPE
    mkdir -p "$stage"
}
finish() {
    rm -rf "$asset" "$asset.d"
    [ "$done" = yes ] || { rm -rf "$stage" && rmdir "${stage%/*}" "${stage%/*/*}" 2>/dev/null; } || :
    at_end
}

# still_there PATH: whoever ends a change drops all stages, also one that is just being filled.
still_there() {
    [ -e "$1" ] || {
        echo "another run changed this node meanwhile; run again" >&2
        exit 1
    }
}

# unpack WHAT MEMBER=NAME…: verify $asset and lay its programs into the stage. MEMBER is a path inside a .tar.gz, or
# empty for a bare binary.
unpack() {
    what=$1
    shift
    still_there "$asset"
    got=$(sha256sum "$asset") || exit 1 # it has said why
    got=${got%% *}
    if [ "$got" != "$sha256" ]; then
        echo "$what is not what the lock file pins: its SHA-256 is $got, expected $sha256; nothing was unpacked" >&2
        exit 1
    fi
    # All members at once: each call of tar would decompress the whole archive.
    mkdir "$asset.d"
    members=
    for program in "$@"; do
        [ -z "${program%%=*}" ] || members="$members ${program%%=*}"
    done
    # -o: to root, and not to whoever packed it.
    # shellcheck disable=SC2086  # paths of our own tables, without blanks
    [ -z "$members" ] || tar -xzof "$asset" -C "$asset.d" $members || {
        echo "$what does not hold all of:$members" >&2
        exit 1
    }
    for program in "$@"; do
        member=${program%%=*} name=${program#*=}
        if [ -z "$member" ]; then
            mv "$asset" "$stage/$name.part"
        else
            # A link inside the archive could point anywhere: only a plain file is taken.
            if [ -L "$asset.d/$member" ] || [ ! -f "$asset.d/$member" ]; then
                echo "$member in $what is not a plain file" >&2
                exit 1
            fi
            mv "$asset.d/$member" "$stage/$name.part"
        fi
        chmod 755 "$stage/$name.part"
        mv -f "$stage/$name.part" "$stage/$name"
    done
    done=yes
}
