#!/bin/sh
# previous.sh: the set to go back to. It is saved before a change, and brought back by renames where the change
# fails or is cut. Precedes activate.sh in one text.
#
# The set is a directory: a numbered file for each target, and the list `restore` with one TAB-separated line each:
#   put TARGET NUMBER · absent TARGET · directory PATH (was not there) · keep TARGET (is never taken away again)
#   active, healthy: what containerd.service was · disabled UNIT · enabled UNIT · package NAME VERSION · hold NAME
#   unhold NAME · user NAME (was not there)
# and the file `down` where containerd.service was on its way up or had failed: it says which.
# `sync` is always given names: without them it waits for every file system of the node, and for that of a dead
# NFS server for ever.
# No here-documents, here and in all of the change-over: bash before 5.1 and lksh write each into a file in /tmp, and where
# that disk is full the command that reads it is not run.
set -u
umask 022
LC_ALL=C
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export LC_ALL PATH
state=/var/lib/userns-node
back=$state/undo
units=/etc/systemd/system
service=containerd.service
uncleared=$state/uncleared # a list like `restore`: beside some of its targets lies what could not be removed yet
tab=$(printf '\t')
newline='
'
booting=no clean=yes

say() { printf '%s\n' "$*"; }

# That of uutils (Ubuntu from 25.10 on) takes no heed of names without -f (uutils/coreutils#14591), and with it waits for
# the file systems that they are on. Any other one does just what is asked, and a busybox does not know the question.
# It is asked at the first call, for what runs before a trap is set is not cleaned up after.
whose_sync=""
sync() {
    [ -n "$whose_sync" ] || case $(command sync --version 2>/dev/null) in
        *'(uutils '*) whose_sync=uutils ;;
        *) whose_sync=other ;;
    esac
    if [ $whose_sync = uutils ]; then command sync -f "$@"; else command sync "$@"; fi
}
replace() { # file, with its text on stdin: by rename, and durable
    cat >"$1.new" && settle "$1"
}
settle() { sync "$1.new" && mv -f "$1.new" "$1"; } # file, whose text is in FILE.new
beside() { printf '%s/.%s.userns-node-%s' "${1%/*}" "${1##*/}" "$2"; } # target new|old
targets() { awk -F '\t' '$1 == "put" || $1 == "absent" { print $2 }' "$1"; } # list
drop_beside() { # list, new, old or both; false where one of them stays
    named=$(targets "$1") || return 1 # no pipe: its end would take an awk that did not start for an empty list
    shift
    dropped=yes
    set -f && IFS=$newline
    for target in $named; do
        for age; do rm -f "$(beside "$target" "$age")" || dropped=no; done
    done
    set +f && unset IFS
    [ $dropped = yes ]
}
clear_beside() { # list…: what a change that is over has left; what stays is written down
    for list; do
        [ -e "$list" ] || continue
        drop_beside "$list" old new || cat "$list" >>"$uncleared"
    done
}
clear_uncleared() { # false where some of it stays
    [ -e "$uncleared" ] || return 0
    drop_beside "$uncleared" old new && rm -f "$uncleared" && refresh_manifest
}
flush_targets() { # list: the renames themselves
    named=$(targets "$1") || return 1
    flushed=: durable=yes
    set -f && IFS=$newline
    for target in $named; do
        directory=${target%/*}
        case $flushed in *":$directory:"*) continue ;; esac
        flushed=$flushed$directory:
        [ ! -d "$directory" ] || sync "$directory" || durable=no
    done
    set +f && unset IFS
    [ $durable = yes ]
}
was() { grep -q "^$1$tab" "$back/restore"; } # active|healthy

# --- saving ------------------------------------------------------------------------------------------------------

note() { # kind name detail; what an earlier run that was cut has noted stays
    grep -qF "$1$tab$2$tab" "$list" || printf '%s\t%s\t%s\n' "$1" "$2" "${3:--}" >>"$list"
}

save() { # target, by a hard link where that works: a rename does not change the file that a link holds
    # After a cut the last good set is there already, and what lies on the node now is not good.
    named=$(targets "$list") || return 1
    ! printf '%s\n' "$named" | grep -qxF "$1" || return 0
    if [ -L "$1" ] || [ -e "$1" ]; then
        number=$((number + 1))
        rm -f "$saving/$number" # a copy would be written into the file that an old link holds
        # In the list first: by it goes what lies beside the target, where what follows fails.
        note put "$1" "$number" && { ln -P "$1" "$saving/$number" 2>/dev/null || save_far "$1"; }
    else
        note absent "$1" || return 1
        directory=${1%/*}
        while [ -n "$directory" ] && [ ! -d "$directory" ]; do
            note directory "$directory" || return 1
            directory=${directory%/*}
        done
    fi
}
save_far() { # on another file system: a copy, and a link beside the target, so that the way back needs no space
    rm -f "$(beside "$1" old)"
    ln -P "$1" "$(beside "$1" old)" 2>/dev/null
    cp -pP "$1" "$saving/$number"
}
save_user() { getent passwd "$1" >/dev/null 2>&1 || note user "$1"; }
save_package() {
    case $(dpkg-query -W -f='${db:Status-Status}' "$1" 2>/dev/null) in
        installed) note package "$1" "$(dpkg-query -W -f='${Version}' "$1")" ;;
        *) note package "$1" ;;
    esac || return 1
    ! apt-mark showhold "$1" | grep -qx "$1" || note hold "$1"
}
save_hold() { apt-mark showhold "$1" | grep -qx "$1" || note unhold "$1"; }
save_metacopy() { # layers made with it are unreadable without it: what sets it at boot has to stay
    note keep /etc/modprobe.d/overlay-metacopy.conf && note keep /usr/local/libexec/userns-node/pre-start &&
        note keep "$units/$service.d/50-userns-node.conf"
}

# --- bringing back -----------------------------------------------------------------------------------------------

bring_back() { # target saved
    new=$(beside "$1" new) from=$2
    case $2 in "$back"/*) # of that set alone there may be a link beside the target
        if [ -e "$(beside "$1" old)" ] || [ -L "$(beside "$1" old)" ]; then from=$(beside "$1" old); fi ;;
    esac
    # What was never swapped still is the saved file, and mv refuses to rename a file to itself. A link counts as itself.
    [ "$(stat -c %d:%i "$from")" = "$(stat -c %d:%i "$1" 2>/dev/null)" ] && return 0
    rm -f "$new"
    { ln -P "$from" "$new" 2>/dev/null || cp -pP "$from" "$new"; } && { [ -L "$new" ] || sync "$new"; } &&
        mv -f "$new" "$1" && label "$1"
}
label() { # for SELinux: a file knows its type by its own name alone, and a copy has that of its directory
    [ ! -e /sys/fs/selinux/enforce ] || restorecon "$1" >/dev/null 2>&1 || :
}

# A containerd that starts takes up each shim by the path of its program, and where that is gone it forgets the shim and
# its tasks for good (containerd#14145). So while any shim runs, the release's path stays, as a link to the package's. (Which
# path a shim was started by is not seen from its process: it starts itself again, and by then links are resolved.)
take_away() { # target
    packaged=/usr/bin/${1##*/}
    case $1 in
        /usr/local/bin/containerd-shim-*)
            if [ -x "$packaged" ] && processes /proc | grep -q ' containerd-shim'; then
                rm -f "$(beside "$1" new)"
                ln -s "$packaged" "$(beside "$1" new)" && mv -f "$(beside "$1" new)" "$1"
                return
            fi
            ;;
    esac
    rm -f "$1"
}

apt_get() {
    output=$(DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=120 --allow-downgrades \
        -o Dpkg::Options::=--force-confold "$@" 2>&1) || {
        printf '%s\n' "$output" | tail -n 5
        return 1
    }
}
bring_back_package() { # name version
    apt-mark unhold "$1" >/dev/null 2>&1
    if [ "$2" = - ]; then apt_get remove "$1"; else
        apt_get install --no-remove "$1=$2" || say "warning: package $1 $2 cannot be installed again; its programs are brought back"
    fi
}

drop_prepared() { # list: what was made for the swap; false where some of it stays
    dropped=yes
    drop_beside "$1" new || dropped=no
    while IFS="$tab" read -r kind name _; do
        [ "$kind" != directory ] || rmdir "$name" 2>/dev/null
    done <"$1"
    [ $dropped = yes ]
}

restore() { # list, directory of its numbers; false where not all of it could be brought back. Sets $clean
    complete=yes clean=yes
    while IFS="$tab" read -r kind name _; do # while their files are there, which say where they are enabled
        [ "$kind" != disabled ] || systemctl disable "$name" >/dev/null 2>&1
    done <"$1" 9>&-
    while IFS="$tab" read -r kind name detail; do
        case $kind in
            package) [ $booting = yes ] || bring_back_package "$name" "$detail" </dev/null ;; # dpkg needs a booted system
            hold | unhold) apt-mark "$kind" "$name" >/dev/null </dev/null ;;
            user) userdel "$name" >/dev/null 2>&1 </dev/null ;;
            put | absent)
                grep -qF "keep$tab$name$tab" "$1" && continue
                if [ "$kind" = put ]; then bring_back "$name" "$2/$detail"; else take_away "$name"; fi || {
                    say "error: could not bring $name back"
                    complete=no
                }
                ;;
        esac
    done <"$1" 9>&-
    drop_prepared "$1" || clean=no
    while IFS="$tab" read -r kind name _; do
        [ "$kind" != enabled ] || systemctl enable "$name" >/dev/null 2>&1
    done <"$1" 9>&-
    flush_targets "$1" || complete=no
    reload_units
    [ $complete = yes ]
}
# A busy systemd may not answer in time, and nobody asks it again after a change.
reload_units() { systemctl daemon-reload || { sleep 1 && systemctl daemon-reload; }; }

# --- the record --------------------------------------------------------------------------------------------------

record_program() { # path component version asset: with the stat that tells a later run that nothing has changed
    sum=$(sha256sum "$1") && record_digested "$1" "$2" "$3" "${sum%% *}" "$4"
}
record_digested() { # path component version digest asset
    stats=$(stat -c '%s %i %Y %Z' "$1" | tr ' ' '\t') &&
        printf 'program\t%s\t%s\t%s\t%s\t%s\t%s\n' "$1" "$2" "$3" "$4" "$stats" "$5"
}

# A link made or removed gives a program a new ctime: without this every later run would digest it again.
refresh_manifest() {
    [ -e "$state/manifest" ] || return 0
    while IFS= read -r line; do
        set -f && IFS=$tab
        # shellcheck disable=SC2086 # program path component version digest size inode mtime ctime asset
        set -- $line
        set +f && unset IFS
        if [ "${1-}" = program ] && [ $# -ge 10 ]; then
            now=$(sha256sum "$2" 2>/dev/null)
            if [ "${now%% *}" = "$5" ] && now=$(record_digested "$2" "$3" "$4" "$5" "${10}"); then line=$now; fi
        fi
        printf '%s\n' "$line" || return 1
    done <"$state/manifest" >"$state/manifest.new" && settle "$state/manifest"
}
