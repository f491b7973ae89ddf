# node-kernel.sh: what this node's kernel and file systems are and can, as records. Functions only: called by node.sh, and
# by the check that stays on the node, so that both ask the same questions of the same directories. Follows probe.sh.
#
# For tests: USERNS_NODE_ROOT is a directory to read in the place of /, USERNS_NODE_PATH replaces PATH.

# prepare: the same world for every shell and every login
prepare() {
    set -u
    umask 077
    LC_ALL=C
    export LC_ALL
    unset CDPATH IFS
    root=${USERNS_NODE_ROOT-}
    # A non-interactive login often lacks the sbin directories.
    PATH=${USERNS_NODE_PATH-$PATH:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/opt/bin}
    export PATH
    tab=$(printf '\t')
    newline='
'
    # Without the device, what is meant for it would become a file in an image.
    [ -c /dev/null ] || { echo "there is no /dev/null here: mount or make /dev first" >&2 && exit 1; }
    exec </dev/null 2>/dev/null
    # Every path below is relative to this directory, without the leading slash, but for /proc/self.
    cd "$root/" || exit 1
    snapshotter=io.containerd.snapshotter.v1.overlayfs
    state=var/lib/userns-node
}

# record FIELD...: one record. A byte that is not printable ASCII becomes "?": names may be hostile.
record() {
    record_line=
    for record_field do
        case $record_field in
        *[!\ -~]*) record_field=$(printf %s "$record_field" | tr -c "\040-\176" "?") || record_field="?" ;;
        esac
        record_line=$record_line$tab$record_field
    done
    printf "%.4000s\n" "${record_line#"$tab"}"
}

# first_line FILE: in $line, without blanks around it
first_line() {
    line=
    [ -f "$1" ] && [ -r "$1" ] || return 1
    read -r line <"$1" || [ -n "$line" ]
}

# limit SECONDS COMMAND...: for so long at most
limit() {
    if have timeout; then
        timeout "$@"
        return
    fi
    limit_seconds=$1
    shift
    "$@" &
    limit_pid=$!
    {
        trap "kill \$limit_sleep; exit" TERM
        sleep "$limit_seconds" &
        limit_sleep=$!
        wait "$limit_sleep" && kill -9 "$limit_pid"
    } >/dev/null &
    limit_clock=$!
    wait "$limit_pid"
    limit_status=$?
    kill "$limit_clock"
    return "$limit_status"
}

# digest FILE...: SHA-256, two blanks and the name of each file that can be read
digest() {
    if have sha256sum; then
        sha256sum -- "$@"
    elif have busybox; then
        busybox sha256sum "$@"
    elif have openssl; then
        openssl dgst -sha256 -r "$@" | while read -r digest_sum digest_name; do
            printf "%s  %s\n" "$digest_sum" "${digest_name#\*}"
        done
    fi
}

# nearest DIRECTORY: in $directory, it or the nearest one above it that exists
nearest() {
    directory=${1%/}
    until [ -d "./$directory" ]; do
        case $directory in
        */*) directory=${directory%/*} ;;
        *) directory= ;;
        esac
    done
}

# nearest_to ROOT PART: ROOT/PART where that is a directory, for it may be a mount of its own; else nearest ROOT
nearest_to() {
    directory=${1%/}/$2
    [ -d "$directory" ] || nearest "$1"
}

# --- the machine -------------------------------------------------------------------------------------------------

# read_kernel: also in $kernel, $machine, $user and $container. The IDs are those that the node has by itself, none of
# which a pod can get from elsewhere: all of them, but for a container in a user namespace of its own.
read_kernel() {
    # shellcheck disable=SC2046 # two words
    set -- $(uname -r -m)
    kernel=${1-} machine=${2-}
    [ -n "$kernel" ] || read -r kernel </proc/sys/kernel/osrelease
    record kernel "$kernel" "$machine"

    user=
    while read -r key _ user _; do # real and effective ID: sudo sets both
        [ "$key" != Uid: ] || break
    done </proc/self/status
    [ -n "$user" ] || user=$(id -u) # a chroot without /proc
    record user "$user"
    for name in uid gid; do
        while read -r key _ line; do
            record own-ids "$name" "$key" "$line"
        done <"/proc/self/${name}_map"
    done

    container=$(systemd-detect-virt --container) # reads files
    [ -n "$container" ] || find_container
    record container "$container"
}

find_container() { # no systemd-detect-virt: PID 1 may carry the mark, or a file at the root
    container=none
    if [ -r proc/1/environ ]; then
        for line in $(tr "\0\040*?[" "\n____" <proc/1/environ); do
            case $line in container=?*) container=${line#container=} ;; esac
        done
    fi
    if [ "$container" = none ]; then
        if [ -e .dockerenv ]; then container=docker; elif [ -e run/.containerenv ]; then container=podman; fi
    fi
}

# ask_selinux PROGRAM...: the domain that systemd would start this containerd in, and what the policy denies it there of
# what each pod with a user namespace needs (userns/tracing.py). Asked of the policy that is loaded, booleans and all,
# before there is such a program; nothing where SELinux is not enforced, or does not answer.
ask_selinux() {
    { first_line sys/fs/selinux/enforce && [ "$line" = 1 ] && have matchpathcon; } || return 0
    for program do
        key=$(matchpathcon -N -n -m file "/$program") && [ -n "$key" ] &&
            first_line sys/fs/selinux/class/process/index && class=$line && first_line proc/1/attr/current &&
            ask_policy create "$line $key $class" || continue
        domain=$answer denied=
        asked=process:ptrace
        ! at_least 6 1 || asked="process:ptrace user_namespace:create" # an older kernel asks nobody
        for key in $asked; do # nor does an older policy know a class user_namespace
            { first_line "sys/fs/selinux/class/${key%:*}/index" && class=$line &&
                first_line "sys/fs/selinux/class/${key%:*}/perms/${key#*:}" &&
                ask_policy access "$domain $domain $class"; } || continue
            # Hexadecimal: what is allowed, a bit a permission, and last the flags, of which 1 is a permissive domain.
            case "$line:${answer%% *}${answer##* }" in *[!0-9a-f:]*) continue ;; esac
            [ $((0x${answer%% *} >> (line - 1) & 1 | 0x${answer##* } & 1)) = 1 ] || denied="$denied $key"
        done
        record selinux-domain "/$program" "$domain" "${denied# }"
    done
}

# ask_policy FILE QUESTION: in $answer. One open file takes one question, and gives its answer.
ask_policy() {
    answer=
    { printf %s "$2" >&7 && { read -r answer <&7 || :; }; } 7<>"sys/fs/selinux/$1"
    [ -n "$answer" ]
}

# ask_getsubids NAME [OPTION]: the ranges of the user kubelet, asked for as the kubelet asks
ask_getsubids() {
    answer=$(limit 5 getsubids ${2-} kubelet) || answer=
    set -f
    IFS=$newline
    for line in $answer; do
        unset IFS
        record getsubids "$1" "$line"
    done
    unset IFS
    set +f
}

# --- overlay -----------------------------------------------------------------------------------------------------

read_overlay() {
    overlay=unknown
    if [ -e sys/module/overlay/initstate ]; then
        overlay=loaded # only a loadable module has an initstate
    elif [ -d sys/module/overlay ]; then
        overlay=builtin
    elif [ -r proc/filesystems ]; then
        while read -r key line; do
            case " $key $line " in *" overlay "*) overlay=builtin ;; esac
        done <proc/filesystems
        if [ "$overlay" = unknown ]; then find_overlay_on_disk; fi
    fi
    line="" built=""
    first_line sys/module/overlay/parameters/metacopy || [ "$overlay" != module ] || find_metacopy_default
    record overlay "$overlay" "$line" "$built"
}

# What the kernel was built to load the module with; modprobe.d may say otherwise.
find_metacopy_default() {
    have grep || return 0
    for file in "boot/config-$kernel" "lib/modules/$kernel/config" proc/config.gz; do
        [ -f "$file" ] && [ -r "$file" ] || continue
        case $file in *.gz) have gzip || continue ;; esac
        built=N
        ! case $file in *.gz) gzip -dc ;; *) cat ;; esac <"$file" | grep -qx CONFIG_OVERLAY_FS_METACOPY=y || built=Y
        return
    done
}

find_overlay_on_disk() {
    for file in "lib/modules/$kernel/kernel/fs/overlayfs"/overlay.ko*; do
        [ ! -e "$file" ] || overlay=module
    done
    if [ "$overlay" = unknown ] && modinfo -b "$root/" -k "$kernel" overlay >/dev/null; then overlay=module; fi
    # A container's /lib/modules is not the kernel's.
    if [ "$overlay" = unknown ] && [ "$container" = none ]; then overlay=absent; fi
}

# --- file systems ------------------------------------------------------------------------------------------------

read_file_systems() {
    set --
    ids=" "
    for name in containerd-root kubelet-root state install; do
        case $name in
        containerd-root) path=$containerd_root && nearest_to "$path" "$snapshotter" && containerd_directory=$directory ;;
        kubelet-root) path=$kubelet_root && nearest_to "$path" pods && kubelet_directory=$directory ;;
        state) path=$state && nearest "$path" ;;
        install) path=usr/local/bin && nearest "$path" ;;
        esac
        id=
        { # what mount an open directory is on, whatever was mounted over what, and under what name
            while read -r key line; do
                [ "$key" != mnt_id: ] || id=$line
            done </proc/self/fdinfo/9
        } 9<"./$directory"
        record filesystem "$name" "/$path" "/$directory" "$id"
        set -- "$@" "./$directory"
        ids="$ids$id "
    done
    stat -f -c "space$tab%a$tab%S$tab%T$tab%n" -- "$@"
    awk -v ids="$ids" '
        index(ids, " " $1 " ") {
            for (i = 7; i < NF && $i != "-"; i++);
            if (i < NF) print "mount\t" $1 "\t" $(i + 1) "\t" ("," $6 "," $NF "," ~ /,ro,/ ? "ro" : "rw")
        }
    ' /proc/self/mountinfo
}

# --- the probes --------------------------------------------------------------------------------------------------

ask_kernel() {
    set -- idmap containerd-root "$root/$containerd_directory" idmap kubelet-root "$root/$kubelet_directory" \
        tmpfs tmpfs - overlay overlay "$root/$containerd_directory"
    if ! at_least 5 19; then
        temporary_directory
        set -- "$@" check containerd-check "$temporary"
    fi
    if [ "$user" != 0 ]; then
        probe_unknown user "only root can ask the kernel" "$@"
    elif [ "$container" = none ]; then
        probe "$machine" yes "$@"
    else # the kernel is shared: what is not loaded is not ours to load
        probe "$machine" no "$@"
    fi
}

# at_least MAJOR MINOR: whether the kernel is
at_least() {
    major=${kernel%%.*}
    line=${kernel#*.}
    minor=${line%%[!0-9]*}
    case $major:$minor in
    : | *: | :* | *[!0-9:]*) return 1 ;;
    esac
    [ "$major" -gt "$1" ] || { [ "$major" -eq "$1" ] && [ "$minor" -ge "$2" ]; }
}

# temporary_directory: in $temporary, the directory that containerd makes its own test in
temporary_directory() {
    temporary=
    if [ -d run/systemd/system ] && have systemctl; then
        line=$(limit 5 systemctl show --property=MainPID,Environment containerd.service)
        case $line in *MainPID=[1-9]*)
            key=${line#*MainPID=}
            key=${key%%[!0-9]*}
            IFS=$newline
            for key in $(tr "\0" "\n" <"proc/$key/environ" | tr "*?[" ___); do
                case $key in TMPDIR=?*) temporary=${key#TMPDIR=} ;; esac
            done
            unset IFS
            ;;
        *Environment=*) # no other variable whose name ends like that
            line=" ${line#*Environment=}"
            case $line in *[\ \"]TMPDIR=?*) temporary=${line#*[\ \"]TMPDIR=} ;; esac
            temporary=${temporary%%[ \""$newline"]*}
            ;;
        esac
    fi
    [ -n "$temporary" ] && [ -d "$temporary" ] || temporary=/tmp
}
