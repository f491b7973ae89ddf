# running.sh: which containerd, shims and kubelet run: for the node script, the change-over and seal.sh. Functions only.
#
# By process, and not by what containerd says: it may be down, and 1.7 does not know the shims of 2.x. A shim lives
# for as long as one of its tasks (one for each pod under CRI), in whatever namespace of containerd's that is.

# processes PROC: "PID NAME" of each, by the name that the kernel keeps (15 bytes of it).
processes() {
    # 2 is of a process that ended meanwhile. From 126 on it did not run: it is not there, or so many are no arguments.
    { grep -s -e '^containerd' -e '^kubelet$' /dev/null "$1"/[0-9]*/comm || [ "$?" -lt 126 ] ||
        for comm in "$1"/[0-9]*/comm; do
            ! read -r name <"$comm" || case $name in containerd* | kubelet) echo "$comm:$name" ;; esac
        done; } 2>/dev/null | while IFS=: read -r process name; do
        process=${process%/comm}
        case $name in
        containerd | containerd-shim* | kubelet) ;;
        *) continue ;;
        esac
        # One inside of a container (kind, Docker in Docker) is that container's.
        # shellcheck disable=SC3013  # dash and busybox know -ef
        if [ ! -e "$1/self/ns/pid" ] || [ "$process/ns/pid" -ef "$1/self/ns/pid" ]; then
            printf '%s %s\n' "${process##*/}" "$name"
        fi
    done
}

# shims PROC PID...: "NAMESPACE" for each shim that belongs to a containerd of its own standing, not to Docker's or k3s's.
shims() {
    proc=$1
    shift
    for shim do
        shift
        set -- "$@" "$proc/$shim/cmdline"
    done
    [ "$#" -gt 0 ] || return 0
    namespace="" foreign=yes last=""
    # Each word of all of them in a row; a program begins the next one. The last line is there to end the last one.
    { cat "$@" 2>/dev/null | tr '\0' '\n'; printf '/containerd-shim-end\n'; } |
        while IFS= read -r word; do
            case $last:$word in
            -namespace:*[!A-Za-z0-9._-]*) ;;
            -namespace:*) namespace=$word ;;
            -address:*/docker/* | -address:*/k3s/* | -address:*/microk8s/*) foreign=yes ;;
            -*:*) ;;
            *:*containerd-shim-*)
                [ $foreign = yes ] || printf '%s\n' "${namespace:-unknown}"
                namespace="" foreign=no
                ;;
            esac
            case $word in -debug | -v) word="" ;; esac # the flags without a value
            last=$word
        done
}
