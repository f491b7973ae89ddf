# sets.sh: the sets that are kept on this node and what is there now, as TAB-separated records, for a rollback. Follows
# record.sh and running.sh in one text. Reads only. It asks no more than a rollback needs: it has to answer on a broken node.
set -u
LC_ALL=C
PATH=$PATH:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export LC_ALL PATH
exec </dev/null 2>/dev/null
tab=$(printf '\t')
state=/var/lib/userns-node
unit=/etc/systemd/system/containerd.service

record() {
    line=
    for field do line=$line$tab$field; done
    printf '%s\n' "${line#"$tab"}" | tr -c '\t\n\040-\176' '?'
}
digest() { sum=$(sha256sum "$1") && printf '%s' "${sum%% *}"; }
starts() { # file of a unit: the program that it starts
    sed -n 's/^ExecStart=[-@:+!]*\([^ ]*\).*/\1/p' "$1" | head -n 1
}
# A program with another owner than root is not run, not even for its version.
version() { [ "$(stat -L -c %u "$1")" != 0 ] || timeout -s KILL 5 "$1" --version | head -n 1; }
programs() { # set, file of the record
    while IFS="$tab" read -r what path component release _; do
        [ "$what" != program ] || record program "$1" "$path" "$component" "$release"
    done <"$2"
}
of_unit() { # set, what it starts or "" for its package's
    program=$2
    for directory in /run /usr/local/lib /usr/lib /lib; do
        [ -n "$program" ] || program=$(starts "$directory/systemd/system/containerd.service")
    done
    record starts "$1" "$program"
}
of_config() { # set, file
    record snapshotter "$1" "$(sed -n "s/^ *snapshotter *= *[\"']\([A-Za-z0-9_.-]*\).*/\1/p" "$2" | head -n 1)"
}
# A set ran with what its record names. A copy that is another was edited by hand before it was saved, or damaged since:
# `edited`. Where the node has the right one now, that is what the set has: it does not name it.
read_set() { # its name
    manifest=$state/$1/$(saved_record "$state/$1")
    record set "$1" "$(digest "$state/$1/restore")"
    while IFS="$tab" read -r kind name detail; do
        same=no far=no size=0 saved=$state/$1/$detail was=""
        case $1:$kind in
            undo:*) ;; # is brought back as it was found
            *:put | *:absent) [ ! -f "$manifest" ] || was=$(recorded "$manifest" "$name") ;;
        esac
        if [ -n "$was" ] && [ "$kind$(digest "$saved")" != "put$was" ]; then
            [ "$(digest "$name")" != "$was" ] || continue
            record edited "$1" "$name"
        fi
        case $kind in
            put)
                # shellcheck disable=SC3013 # dash and busybox know -ef
                if [ "$saved" -ef "$name" ] || { [ ! -L "$saved" ] && cmp -s "$saved" "$name"; }; then same=yes; fi
                size=$(stat -c %s "$saved") || same=missing
                directory=${name%/*}
                while [ -n "$directory" ] && [ ! -d "$directory" ]; do directory=${directory%/*}; done
                [ "$(stat -c %d "$state")" = "$(stat -c %d "${directory:-/}")" ] || far=yes
                case $name in
                    */containerd) record version "$1" "$name" "$(version "$saved")" ;;
                    "$state/manifest") programs "$1" "$saved" ;;
                    "$unit") of_unit "$1" "$(starts "$saved")" ;;
                    /etc/containerd/config.toml) of_config "$1" "$saved" ;;
                esac
                ;;
            absent)
                [ -e "$name" ] || [ -L "$name" ] || same=yes
                # What take_away of previous.sh leaves.
                case $name:$(readlink "$name") in "/usr/local/bin/${name##*/}:/usr/bin/${name##*/}") same=yes ;; esac
                [ "$name" != "$unit" ] || of_unit "$1" ""
                ;;
        esac
        record entry "$1" "$kind" "$name" "${detail:--}" "$same" "$far" "${size:-0}"
    done <"$state/$1/restore"
}

record userns-node-begin 1
record user "$(id -u)"
record systemd "$(systemctl --version | head -n 1)"
[ ! -e "$state/activation" ] || record unfinished "$(head -n 1 "$state/activation")"
[ ! -e "$state/manifest" ] || record manifest "$(digest "$state/manifest")"
for set in undo previous previous.2; do
    [ "$set" != undo ] || [ -e "$state/activation" ] || continue
    [ ! -e "$state/$set/restore" ] || read_set "$set"
done
[ ! -e "$state/manifest" ] || programs now "$state/manifest"
for program in /etc/containerd/config.toml "$unit" "$unit.d/50-userns-node.conf"; do # what containerd starts with
    was=$(recorded "$state/manifest" "$program")
    [ -z "$was" ] || [ "$(digest "$program")" = "$was" ] || record edited now "$program"
done
of_config now /etc/containerd/config.toml
program=$(systemctl show --property ExecStart containerd.service | sed -n 's/.*path=\([^ ;]*\).*/\1/p' | head -n 1)
[ -z "$program" ] || record starts now "$program"
# What runs may be another program than the file that has its name.
pid=$(systemctl show --property MainPID --value containerd.service)
[ "${pid:-0}" = 0 ] || record version now running "$(timeout -s KILL 5 "/proc/$pid/exe" --version | head -n 1)"
for program in "$program" /usr/local/bin/containerd /usr/bin/containerd; do
    [ ! -f "$program" ] || record version now "$program" "$(version "$program")"
done
systemctl show --property LoadState,ActiveState containerd.service | while IFS= read -r line; do
    record unit "${line%%=*}" "${line#*=}"
done
[ ! -e /etc/modprobe.d/overlay-metacopy.conf ] || record metacopy
! grep -qx Y /sys/module/overlay/parameters/metacopy || record metacopy-live
for place in "$state" /usr/local/bin; do
    while [ ! -d "$place" ]; do place=${place%/*}; done
    record space "$place" "$(df -Pk "${place:-/}" | sed -n '2s/.* \([0-9]*\)  *[0-9]*% .*/\1/p')"
done
# shellcheck disable=SC2046 # numbers and names
shims /proc $(processes /proc | sed -n 's/ containerd-shim.*//p') | sort | uniq -c |
    while read -r count namespace; do record shims "$namespace" "$count"; done
record shims-read
record userns-node-end
exit 0
