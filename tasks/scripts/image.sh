# image.sh: what an image answers in the place of a running system. Between previous.sh and activate.sh in one text, so
# that an image is changed by the same steps as a node, up to where something would be started.
#
# The same text is what a boot would undo a cut-off change with: there nothing of this holds.
if [ -n "${USERNS_NODE_IMAGE-}" ]; then
    systemctl() { # links are made and removed, and nothing runs
        case $1 in
        enable | disable | is-enabled) command systemctl "$@" ;; # SYSTEMD_OFFLINE is set
        is-active) return 3 ;;
        *) return 0 ;;
        esac
    }
    # Inodes and times are others once the tree is a disk: the first boot puts them in.
    record_program() {
        sum=$(sha256sum "$1") && printf 'program\t%s\t%s\t%s\t%s\t0\t0\t0\t0\t%s\n' "$1" "$2" "$3" "${sum%% *}" "$4"
    }
fi
