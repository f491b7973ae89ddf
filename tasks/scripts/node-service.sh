# node-service.sh: with which root and configuration containerd.service runs, as records. Functions only: called by node.sh.

# After read_units.
read_options() {
    options_of "${shown-}"
    [ -z "$config_option$root_option" ] || record containerd-options "$config_option" "$root_option"
}

# After find_drop_ins. What starts another command than the unit's own file says: it stays when that file is replaced.
read_exec_drop_ins() {
    set -f
    IFS=$newline
    # shellcheck disable=SC2086 # a line a name
    set -- $drop_ins
    unset IFS
    set +f
    for file do
        case $file in */50-userns-node.conf) continue ;; esac
        # shellcheck disable=SC2162 # systemd joins lines, too
        while read line || [ -n "$line" ]; do
            case $line in
            ExecStart=?* | "ExecStart "*=?*) read_exec_drop_in "${line#*=}" ;;
            esac
        done <"$file"
    done
}
read_exec_drop_in() { # command line, of $file
    set -f
    # shellcheck disable=SC2086 # to split it is the purpose
    set -- $1
    set +f
    [ "$#" -gt 0 ] || return 0 # an empty one takes away what was there
    options "$@"
    record exec-drop-in "/$file" "$1" "$config_option" "$root_option"
}

# The root that containerd uses now, where it is another than the wanted one and holds snapshots or containers.
read_other_root() {
    now=""
    for process in $containerds_run; do
        ! of_the_service "proc/$process" || used_root "proc/$process"
    done
    [ -n "$now" ] || configured_root
    [ "${now%/}" != "/${containerd_root%/}" ] || return 0
    for path in "${now#/}"/io.containerd.snapshotter.v1.*/snapshots/* "${now#/}"/io.containerd.runtime.v2.task/*/*; do
        if [ -e "$path" ] || [ -h "$path" ]; then
            record other-root "$now"
            return
        fi
    done
}
of_the_service() { # process
    [ -r "$1/cgroup" ] || return 1 # it has ended
    while IFS= read -r line; do
        case $line in */containerd.service | */containerd.service/*) return 0 ;; esac
    done <"$1/cgroup"
    return 1
}
has_root_open() { # process: whether it has the database of the wanted root open
    for file in "$1"/fd/*; do
        # shellcheck disable=SC3013 # dash and busybox know -ef
        [ ! "$file" -ef "$containerd_root/$database" ] || return 0
    done
    return 1
}
# In $now, by the database that it has open, whatever it was started with.
used_root() { # process
    if has_root_open "$1"; then
        now=/$containerd_root
        return
    fi
    set -f
    IFS=$newline
    # shellcheck disable=SC2045 # a line each
    for line in $(ls -l "$1/fd"); do
        case $line in *" -> /"*"/$database") now=${line##* -> } now=${now%"/$database"} ;; esac
    done
    unset IFS
    set +f
}
# In $now, for one that does not run.
configured_root() {
    now=$root_option file=${config_option#/}
    file=${file:-etc/containerd/config.toml}
    if [ -z "$now" ] && [ -f "$file" ] && [ -r "$file" ]; then
        while read -r line || [ -n "$line" ]; do
            case $line in
            "["*) break ;;
            root*=*\"*\"* | root*=*\'*\'*)
                line=${line#*[\"\']}
                now=${line%%[\"\']*}
                break
                ;;
            esac
        done <"$file"
    fi
    now=${now:-/var/lib/containerd}
}
