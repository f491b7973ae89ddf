# node-programs.sh: what this project put on the node, and other people's programs, as records. Functions only,
# called by node.sh, which has the helpers that they use.

# --- ours --------------------------------------------------------------------------------------------------------

# The kubelet that ran when its range was written: whether it runs still, with the range that it had before.
read_older_kubelet() { # process, its start in ticks, boot
    set -f
    IFS=$tab
    # shellcheck disable=SC2086 # to split it is the purpose
    set -- $1
    unset IFS
    set +f
    process=${1-} ticks=${2-} boot=${3-}
    first_line proc/sys/kernel/random/boot_id && [ "$line" = "$boot" ] && first_line "proc/$process/stat" || return 0
    set -f
    # shellcheck disable=SC2086 # a field a word
    set -- ${line##*) }
    set +f
    [ "${20-}" != "$ticks" ] || record kubelet-older "$process"
}

# Managed files, installed programs and the record of them: what their stat says, and one digest of all that need it.
read_files() {
    recorded_programs="" recorded_unit=- recorded_config=-
    if [ -f "$state/manifest" ] && [ -r "$state/manifest" ]; then
        while IFS= read -r line || [ -n "$line" ]; do
            case $line in
            "file$tab/"*"$tab"*)
                line=${line#*"$tab"}
                record recorded-file "${line%%"$tab"*}" "${line##*"$tab"}"
                case $line in
                "/etc/systemd/system/containerd.service$tab"*) recorded_unit=${line##*"$tab"} ;;
                "/etc/containerd/config.toml$tab"*) recorded_config=${line##*"$tab"} ;;
                esac
                ;;
            "kubelet$tab"*) read_older_kubelet "${line#*"$tab"}" ;;
            "program$tab/"*) recorded_programs=$recorded_programs${line#*"$tab"}$newline ;;
            esac
        done <"$state/manifest"
    fi
    set --
    to_digest=
    for path in $managed; do
        if [ -h "$path" ]; then
            kind="link"
        elif [ -f "$path" ]; then
            kind=file to_digest="$to_digest $path"
        elif [ -d "$path" ]; then
            kind=directory
        elif [ -e "$path" ]; then
            kind=other
        else
            kind=absent
        fi
        record file "/$path" "$kind"
        [ "$kind" = absent ] || set -- "$@" "$path"
    done
    if [ "$#" -gt 0 ]; then
        # shellcheck disable=SC2012 # our own names
        stat -c "stat$tab%a$tab%u:%g$tab/%n" -- "$@" ||
            ls -ldn -- "$@" | while read -r mode _ owner group _ _ _ _ path _; do
                record stat "$mode" "$owner:$group" "/$path"
            done
    fi
    [ ! -f "$state/manifest" ] || to_digest="$to_digest $state/manifest"

    set --
    for path in $programs $(others); do
        # shellcheck disable=SC3013 # dash and busybox know -ef
        case $path in
        usr/local/bin/containerd-shim-*) # a link to the package's, for shims that run by it, is no other program
            if [ -h "$path" ] && [ "$path" -ef "usr/bin/${path##*/}" ]; then continue; fi
            ;;
        esac
        [ ! -f "$path" ] || set -- "$@" "$path"
    done
    stats=
    if [ "$#" -gt 0 ]; then
        stats=$(stat -L -c "%d:%i %u %a %s %i %Y %Z %n" -- "$@" || printf "? ? ? ? ? ? ? %s\n" "$@")
    fi
    undecided=
    trusted=" " # nobody else could have written them
    identities=" "
    IFS=$newline
    for line in $stats; do
        unset IFS
        # shellcheck disable=SC2086 # eight words
        set -- $line
        case $identities in
        *" $1 "*) # one program under two names: what is nowhere expected is not told twice
            case " $programs " in *" $8 "*) ;; *) [ "$1" = "?" ] || continue ;; esac
            ;;
        esac
        identities="$identities$1 "
        recorded "$8"
        if [ "$verify_digests" != yes ] && [ "$4 $5 $6 $7" = "$recorded_stat" ]; then
            trusted="$trusted$8 "
            record binary "/$8" "$component" "$version" "$sum" "$asset"
        else
            to_digest="$to_digest $8"
            undecided="$undecided$2 $3 $8$newline"
        fi
    done
    unset IFS

    # shellcheck disable=SC2086 # a list of known names without blanks
    digests=$newline$([ -z "$to_digest" ] || digest $to_digest)$newline
    IFS=$newline
    for line in $digests; do
        record sha256 "${line%% *}" "/${line#*  }"
    done
    for line in $undecided; do
        unset IFS
        # shellcheck disable=SC2086 # three words
        set -- $line
        recorded "$3"
        # Its mode and owner belong to what was installed: a program that others may write, or that nobody may
        # execute, is none of ours. (Without stat they are not known.)
        case $1:$2:$digests in
        0:755:*"$newline$sum  $3$newline"* | \?:\?:*"$newline$sum  $3$newline"*)
            trusted="$trusted$3 "
            record binary "/$3" "$component" "$version" "$sum" "$asset"
            ;;
        *) unknown_program "$@" ;;
        esac
    done
    unset IFS
}

# others: containerd, runc and crun elsewhere on PATH
others() {
    IFS=:
    for path in $PATH; do
        case $path in
        "" | *[!A-Za-z0-9_./+@~-]*) continue ;;
        esac
        path=${path#/}
        for name in containerd runc crun; do
            if [ ! -h "$path" ] && [ -f "$path/$name" ] && [ -x "$path/$name" ]; then
                case " $programs " in *" $path/$name "*) ;; *) printf "%s\n" "$path/$name" ;; esac
            fi
        done
    done
}

# recorded PATH: what the manifest says of a program. No program has the digest "-".
recorded() {
    component="" version="" sum=- recorded_stat=- asset=""
    set -f
    IFS=$newline
    for fields in $recorded_programs; do # not by one pattern over all of it, which takes the square of its length
        case $fields in
        "/$1$tab"*)
            IFS=$tab
            # shellcheck disable=SC2086 # to split it is the purpose
            set -- $fields
            component=${2-} version=${3-} sum=${4:--} recorded_stat="${5-} ${6-} ${7-} ${8-}" asset=${9-}
            break
            ;;
        esac
    done
    unset IFS
    set +f
}

# unknown_program OWNER MODE PATH: asked for its version, unless someone other than root could have written it
unknown_program() {
    text=
    case $1:$2:${3##*/} in
    *:*[2367]?:* | *:*[2367]:*) ;;
    0:*:containerd-shim-runc-v2) text=$(limit 5 "./$3" -v) ;;
    0:*)
        trusted="$trusted$3 "
        text=$(limit 5 "./$3" --version)
        ;;
    esac
    record program "/$3" "$text"
}

read_snapshots() {
    directory=$containerd_root/$snapshotter/snapshots
    if [ -r "$directory" ]; then
        for path in "$directory"/*; do
            if [ -e "$path" ] || [ -h "$path" ]; then
                record snapshots yes
                return
            fi
        done
        record snapshots no
    elif [ "$user" = 0 ] && [ ! -e "$directory" ]; then
        record snapshots no
    fi
}

# The overlays of others, which are mounted with the same metacopy: Docker's, Podman's, those of k3s and RKE2.
read_other_layers() {
    for path in var/lib/docker/overlay2/*/diff var/lib/containers/storage/overlay/*/diff \
        var/lib/docker/containerd/daemon/io.containerd.snapshotter.v1.overlayfs/snapshots/* \
        var/lib/rancher/*/agent/containerd/io.containerd.snapshotter.v1.overlayfs/snapshots/*; do
        if [ -e "$path" ] && [ "${path%/*/*}" != "${layers-}" ]; then
            layers=${path%/*/*}
            record layers "/$layers"
        fi
    done
}

read_gpu_hooks() {
    for name in nvidia-container-runtime nvidia-container-runtime-hook nvidia-container-toolkit nvidia-ctk \
        nvidia-cdi-hook nvidia-container-cli amd-container-runtime amd-ctk habana-container-runtime; do
        if have "$name" || [ -x "usr/local/nvidia/toolkit/$name" ]; then record gpu-hook "$name"; fi
    done
}

# --- what runs --------------------------------------------------------------------------------------------------

# Sets $containerds_run, $shims_run and $called_kubelet: the processes of each, by number.
find_running() {
    # shellcheck disable=SC2046 # numbers and names
    set -- $(processes proc)
    containerds_run="" shims_run="" called_kubelet=""
    while [ "$#" -gt 1 ]; do
        case $2 in
        containerd) containerds_run="$containerds_run $1" ;;
        kubelet) called_kubelet="$called_kubelet $1" ;;
        *) shims_run="$shims_run $1" ;;
        esac
        shift 2
    done
}

# What a containerd has open in its root for as long as it runs.
database=io.containerd.metadata.v1.bolt/meta.db

# The shims of running tasks by namespace, and each containerd that is not the unit's, with the root that it uses.
read_running() {
    # shellcheck disable=SC2046,SC2086 # numbers and names
    set -- $(shims proc $shims_run)
    while [ "$#" -gt 0 ]; do
        namespace=$1 count=0
        for each do
            shift
            if [ "$each" = "$namespace" ]; then count=$((count + 1)); else set -- "$@" "$each"; fi
        done
        record shims "$namespace" "$count"
    done
    record shims-read
    for process in $containerds_run; do
        read_other_containerd "proc/$process"
    done
}

read_other_containerd() {
    unit=""
    [ -r "$1/cgroup" ] || return 0 # it has ended
    ! of_the_service "$1" || return 0
    while IFS= read -r line; do
        case $line in
        */user@*) ;;
        *.service | *.service/*)
            unit=${line%%.service*}.service
            unit=${unit##*/}
            ;;
        esac
    done <"$1/cgroup"
    uses=other
    ! has_root_open "$1" || uses=root
    record containerd-process "${1#proc/}" "$(readlink "$1/exe")" "$unit" "$uses"
}

# --- other people's programs -------------------------------------------------------------------------------------

read_packages() {
    set -- containerd containerd.io runc crun docker-ce docker.io moby-engine moby-containerd
    if have dpkg-query && [ -d var/lib/dpkg ]; then
        # It takes some milliseconds, and most nodes have none of them.
        if have grep; then
            printf "Package: %s\n" "$@" | grep -qxF -f - var/lib/dpkg/status || return 0
        fi
        dpkg-query --admindir="$root/var/lib/dpkg" -W \
            -f="package\t\${Package}\t\${Version}\t\${db:Status-Abbrev}\n" "$@"
    elif have rpm; then
        limit 10 rpm -q --qf "package\t%{NAME}\t%{VERSION}-%{RELEASE}\tii\n" "$@" |
            while read -r line; do
                case $line in *"$tab"*) printf "%s\n" "$line" ;; esac
            done
    fi
}
