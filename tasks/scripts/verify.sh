#!/bin/sh
# The proof: start a container in a user namespace with each runtime handler, and print what the kernel says of it.
#
# usage: verify.sh CTR ADDRESS SNAPSHOTTER CONTAINERD VOLUMES REQUESTS HANDLER=BINARY...
#   e.g. verify.sh /usr/local/bin/ctr /run/containerd/containerd.sock overlayfs '' '' '' runc=/usr/local/sbin/runc
#   An empty ADDRESS or SNAPSHOTTER means the default. VERIFY_SECONDS (60) bounds every single call of ctr.
#   With REQUESTS (from userns/proof/cri.py), pods follow where they can be had: see pod.sh, which comes before this text.
#   CONTAINERD is its binary, VOLUMES the directory that those pods' volumes are to lie in.
#
# The image is the node's own /bin/sh and its libraries: no registry, no Python, nothing installed, nothing left.
# The container's shell reports what it sees; this side reports what it sees of that shell.
#
# Output, fields separated by one TAB, in this order (read by userns/proof/__init__.py):
#   userns-node-proof  2  HANDLER HANDLER ...
#   proven|unproven  HANDLER  UID_MAP  GID_MAP  idmapped|chowned|none  HOST_UID  OWNER  yes|no  SECONDS  MOUNT
#       HOST_UID: of the container's root, seen from the node. OWNER: of its /bin/sh, seen from the node.
#       yes|no: it could write to its root directory. MOUNT: of /, as mountinfo says it.
#   failed  HANDLER  SECONDS  ERROR       the container did not start: the last words of ctr and of the runtime
#   untried  ERROR                        nothing could be started at all
#   cri  STATUS                           what CRI says of itself: a frame of gRPC in base64
#   pod  HANDLER  VOLUMES  SECONDS  HOST_UID  OWNER  DISK  TMPFS  REPORT
#       VOLUMES: disk+tmpfs, disk, or plain. DISK, TMPFS: UID:GID, seen from the node, of the file that the container
#       wrote there. REPORT: what its shell said, in base64 the frame that answers ExecSync.
#   pod-failed  HANDLER  VOLUMES  CALL  CODE  ERROR   no VOLUMES: the sandbox itself. ERROR as gRPC encodes it.
#   no-pod  kubelet|network|pause|pods|cri|tools|image|volumes  ERROR    why no (further) pod was tried
#   left  WHAT                            something that could not be cleaned up
#   userns-node-proof-end  0|1|2
# Exit: 0 every handler is proven, 1 one is not, 2 it could not be tried.

# shellcheck disable=SC2016,SC2034,SC2094,SC3013  # words for another shell; fields to skip; fifos; -ef: all have it

set -u
umask 077
LC_ALL=C TZ=UTC0
PATH=${PATH:-/usr/bin:/bin}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export LC_ALL TZ PATH

namespace=userns-node-check
image=userns-node.invalid/check:1
newline='
'
code=2 work='' job='' hung=no used=no run=0 podded=no unfinished=''

# What the container's shell does. It has no other program than itself: builtins only. It lives until it reads a line.
inside='
uid="" gid="" root="" written=no
while read -r a b c; do uid="${uid:+$uid, }$a $b $c"; done </proc/self/uid_map
while read -r a b c; do gid="${gid:+$gid, }$a $b $c"; done </proc/self/gid_map
while read -r a a a a at how; do [ "$at" != / ] || root=$how; done </proc/self/mountinfo
(: >/written) 2>/dev/null && written=yes
printf "%s\n" "uid_map $uid" "gid_map $gid" "mount $root" "written $written" ready
read -r a'

# One call of ctr. None may hang the deploy, and after one that did not answer the others are not tried.
# KILL, because `ctr run` passes TERM on to the container, whose init ignores it.
call() { call_in "$namespace" "$@"; }
call_in() {
    [ "$hung" = no ] || return 137
    within=$1
    shift
    clock
    asked=$now
    timeout -s KILL "$limit" "$ctr" -a "$address" -n "$within" "$@" </dev/null 2>"$work/error" 9<&9
    called=$?
    case $called in
    0) ;;
    124 | 137)
        if late "$asked"; then
            hung=yes
            printf 'ctr: containerd gave no answer to "ctr %s %s" within %s s\n' "$1" "${2-}" "$limit" >>"$work/error"
        else
            printf 'ctr: "ctr %s %s" %s\n' "$1" "${2-}" "$killed" >>"$work/error"
        fi
        ;;
    *) [ -s "$work/error" ] || printf '"ctr %s %s" ended with exit code %s\n' "$1" "${2-}" "$called" >"$work/error" ;;
    esac
    return "$called"
}

# The last words in a file of error output, on one line: from the last "ctr: " on, or all where ctr said nothing.
words() {
    sed -n -e '/^ctr: /h' -e '/^ctr: /!{/./H' -e '}' -e '${x' -e 's/^\n//' -e 's/\n/; /g' -e 'p' -e '}' "$1" |
        tr -s '\000-\037\177' ' ' | sed -e 's/ *$//'
}

untried() {
    trap '' HUP INT PIPE TERM # printing may be what raises PIPE
    printf 'untried\t%s\n' "$1"
    code=2
    exit 2
}

# Sets $now to hundredths of a second since boot: date +%N is not everywhere.
clock() {
    read -r now a </proc/uptime
    now=${now%.*}${now#*.}
}

# Whether it was `timeout` that has ended what began then, and nobody else.
late() {
    clock
    [ $((now - $1)) -ge $((limit * 100 - 50)) ]
}
killed='was killed (SIGKILL: the kernel does that where memory runs out)'

# Take a directory away, and first what is mounted below it: ctr or a shim that was killed leaves its mounts. The kernel
# has them without the links that lead there, as a kubelet's root may be one.
discard() {
    real=$(cd "$1" 2>/dev/null && pwd -P) || real=$1
    grep -F " $real/" /proc/self/mountinfo | while read -r a a a a name line; do umount -l "$name"; done
    rm -rf "${1:?}"
}

# What containerd lost sight of, because its client was killed in the middle of a start: shims, the processes and
# mounts of their containers, and files. The lock says that none of it belongs to a run that is alive. Processes of
# nodes that are containers on this one are seen from here too: they have a PID namespace of their own.
bury() {
    for name in /proc/[0-9]*; do
        line=''
        { read -r line <"$name/cmdline"; } 2>/dev/null # the words without the NUL between them
        case $line in
        *containerd-shim*"-namespace$namespace-"* | *"--root"*"/$namespace--log"*)
            [ ! "$name/ns/pid" -ef "/proc/$$/ns/pid" ] || kill -KILL "${name#/proc/}"
            ;;
        esac
    done
    for name in /sys/fs/cgroup/userns-node-check-* /sys/fs/cgroup/*/userns-node-check-*; do
        [ -d "$name" ] || continue
        while read -r pid; do kill -KILL "$pid"; done <"$name/cgroup.procs"
        for pass in 1 2 3 4 5; do
            rmdir "$name" && break
            sleep 0.1 || sleep 1
        done
    done
    for name in $kept; do discard "$name/$namespace"; done
} 2>/dev/null

# Remove everything in our namespace of containerd, in the order in which it lets go. GC would free what is no
# longer referred to, and --sync makes it do so now; what is left after that is removed by name.
sweep() {
    call tasks ls -q >"$work/list" && while IFS= read -r name; do
        call tasks rm -f "$name" >/dev/null
    done <"$work/list"
    bury
    call containers ls -q >"$work/list" && while IFS= read -r name; do
        call containers rm "$name" >/dev/null
    done <"$work/list"
    call images ls -q >"$work/list" && while IFS= read -r name; do
        call images rm --sync "$name" >/dev/null
    done <"$work/list"
    call leases ls -q >"$work/list" && while IFS= read -r name; do
        call leases rm --sync "$name" >/dev/null
    done <"$work/list"
    pass=0
    while [ "$pass" -lt 4 ]; do # a snapshot goes only after its children
        call snapshots --snapshotter "$snapshotter" ls >"$work/list" || break
        [ "$(wc -l <"$work/list")" -gt 1 ] || break
        while read -r name a; do
            [ "$name" = KEY ] || call snapshots --snapshotter "$snapshotter" rm "$name" >/dev/null
        done <"$work/list"
        pass=$((pass + 1))
    done
    call content ls -q >"$work/list" && while IFS= read -r name; do
        call content rm "$name" >/dev/null
    done <"$work/list"
    call namespaces rm "$namespace" >/dev/null
}

# Runs whatever happens.
finish() {
    trap '' HUP INT PIPE TERM
    exec 8>&-
    [ -z "$job" ] || wait "$job"
    finish_pods
    for name in $unfinished; do discard "$name"; done
    if [ "$used" = yes ]; then
        call images rm --sync "$image" >/dev/null
        call namespaces rm "$namespace" >/dev/null || sweep ||
            printf 'left\tnamespace %s: %s\n' "$namespace" "$(words "$work/error")"
        for name in $kept; do
            [ ! -d "$name/$namespace" ] || rmdir "$name/$namespace" || printf 'left\t%s\n' "$name/$namespace"
        done
    fi
    [ -z "$work" ] || discard "$work" || printf 'left\t%s\n' "$work"
    printf 'userns-node-proof-end\t%s\n' "$code"
    exit "$code"
}

# The files that /bin/sh needs beside itself, one a line: none where it is static. ldd is a script that may be absent;
# the ELF interpreter can say the same.
libraries() {
    for loader in ldd /lib*/ld-linux-*.so.* /lib*/ld64.so.* /lib/ld-musl-*.so.*; do
        command -v "$loader" >/dev/null 2>&1 || continue
        case $loader in
        ldd) listed=$(ldd /bin/sh 2>/dev/null) || continue ;;
        *) listed=$("$loader" --list /bin/sh 2>/dev/null) || continue ;;
        esac
        printf '%s\n' "$listed" | tr -s ' \t' '\n' | grep '^/'
        return
    done
}

# Put a file into the image's directory of blobs, and set $descriptor to what OCI calls it: type, digest, size.
blob() {
    digest=$(sha256sum <"$1") && digest=sha256:${digest%% *} && size=$(($(wc -c <"$1"))) &&
        mv "$1" "$work/layout/blobs/sha256/${digest#*:}" || return
    descriptor=$(printf '"mediaType":"application/vnd.oci.image.%s","digest":"%s","size":%s' "$2" "$digest" "$size")
}

# The OCI image, in $work/image.tar. Every run on a node makes the same bytes.
build() {
    case $(uname -m) in
    x86_64) arch=amd64 ;;
    aarch64) arch=arm64 ;;
    armv7*) arch=arm ;;
    loongarch64) arch=loong64 ;;
    *) arch=$(uname -m) ;; # ppc64le, riscv64, s390x: Go's names
    esac
    mkdir -p "$work/root/bin" "$work/layout/blobs/sha256" || return
    set -- dev proc run sys tmp
    for name; do mkdir "$work/root/$name" || return; done
    cp -L /bin/sh "$work/root/bin/sh" || return
    set -- "$@" bin/sh
    path=''
    for name in $(libraries); do
        [ ! -e "$work/root$name" ] || continue
        mkdir -p "$work/root${name%/*}" && cp -L "$name" "$work/root$name" || return
        set -- "$@" "${name#/}"
        case :$path: in *:"${name%/*}":*) ;; *) path=${path:+$path:}${name%/*} ;; esac
    done
    # Only leaves are named, so that tar needs no option to keep from descending; containerd makes their parents.
    (cd "$work/root" && chmod 755 "$@" && touch -t 197001010000.00 "$@" && tar -cf ../layer "$@") || return
    blob "$work/layer" layer.v1.tar || return
    layer=$descriptor
    # No ld.so.cache in there: LD_LIBRARY_PATH finds libraries that lie in a directory of the node's own.
    {
        printf '{"architecture":"%s","os":"linux",' "$arch"
        printf '"config":{"Env":["PATH=/bin","LD_LIBRARY_PATH=%s"]},' "$path"
        printf '"rootfs":{"type":"layers","diff_ids":["%s"]}}' "$digest"
    } >"$work/config" && blob "$work/config" config.v1+json || return
    {
        printf '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json",'
        printf '"config":{%s},"layers":[{%s}]}' "$descriptor" "$layer"
    } >"$work/manifest" && blob "$work/manifest" manifest.v1+json || return
    {
        printf '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json",'
        printf '"manifests":[{%s,' "$descriptor"
        printf '"platform":{"architecture":"%s","os":"linux"},' "$arch"
        printf '"annotations":{"io.containerd.image.name":"%s"}}]}' "$image"
    } >"$work/layout/index.json" && printf '{"imageLayoutVersion":"1.0.0"}' >"$work/layout/oci-layout" &&
        (cd "$work/layout" && tar -cf ../image.tar oci-layout index.json blobs)
}

# Find a directory with room for the image: a few MB, and nothing in it is executed.
prepare() {
    trouble='no temporary directory can be made'
    set -- "${TMPDIR:-/tmp}" /tmp /var/tmp /run
    # What a killed run left: the lock says that no other run is alive.
    for base; do
        for name in "$base"/userns-node-check.*; do
            [ -d "$name" ] && [ ! -L "$name" ] && [ -O "$name" ] || continue
            if [ -f "$name/pulled" ]; then unfinished="$unfinished $name"; else discard "$name"; fi
        done
    done
    for base; do
        work=$(mktemp -d "$base/userns-node-check.XXXXXX" 2>/dev/null) || continue
        if trouble=$(build 2>&1); then
            export TMPDIR="$work" # ctr mounts the container's files for a moment in its own
            return
        fi
        rm -rf "$work"
        work=''
    done
    untried "cannot make the image: $(printf %s "$trouble" | tr -s '\000-\037' ' ')"
}

# One handler: start, ask, look, stop. Arguments: its name, its binary, and "again" in a second try.
prove() {
    run=$((run + 1)) uid='' gid='' mount='' written='' ready=no
    clock
    began=$now
    if [ ! -x "$2" ]; then
        printf 'failed\t%s\t0.00\tno executable at %s\n' "$1" "$2"
        return 1
    fi
    if [ "$hung" = yes ]; then
        printf 'failed\t%s\t0.00\tnot tried: containerd does not answer\n' "$1"
        return 1
    fi
    rm -f "$work/in" "$work/out" "$work/pid" && mkfifo "$work/in" "$work/out" || return
    # Both ends of both fifos are opened here, so that nobody can be left waiting for the other side. When this script
    # ends in whatever way, 8 is closed, cat ends, and the line after it ends the container: ctr forgets to pass on
    # an end of file that it meets before the container runs, but not a line. --rm then removes the container.
    exec 8<>"$work/in" 5<"$work/in" 7<>"$work/out" 6<"$work/out"
    # --remap-labels: without it ctr itself chowns the files, and neither the snapshotter nor the kernel is tried.
    # --cpu-shares 0: else ctr asks for the cpu controller, which need not be there. --cgroup: one level, so that the
    # runtime removes all of it.
    # (exec closes for good; redirections of a group would keep copies, and cat would wait for ever.)
    (exec <&5 5<&- 6<&- 7>&- 8>&- && cat && echo) |
        timeout -s KILL "$limit" "$ctr" -a "$address" -n "$namespace" run --rm --snapshotter "$snapshotter" \
            --runc-binary "$2" --remap-labels --uidmap 0:65536:65536 --gidmap 0:65536:65536 --cpu-shares 0 \
            --cgroup "/userns-node-check-$$-$run" --pid-file "$work/pid" \
            "$image" "check-$$-$run" /bin/sh -c "$inside" >&7 2>"$work/error" 5<&- 6<&- 7>&- 8>&- 9<&9 &
    job=$!
    exec 5<&- 7>&-
    while read -r key value; do
        case $key in
        uid_map) uid=$value ;;
        gid_map) gid=$value ;;
        mount) mount=$value ;;
        written) written=$value ;;
        ready)
            ready=yes
            break
            ;;
        esac
    done <&6
    clock
    took=$((now - began))
    took=$(printf '%d.%02d' $((took / 100)) $((took % 100)))
    host='' owner=''
    if [ "$ready" = yes ]; then
        pid=$(cat "$work/pid") # without a line end, so that read would call it a failure
        while read -r key value a; do [ "$key" != Uid: ] || host=$value; done <"/proc/$pid/status"
        owner=$(stat -c %u "/proc/$pid/root/bin/sh")
    fi
    exec 8>&-
    wait "$job"
    ended=$?
    job=''
    exec 6<&-
    if [ "$ready" = no ]; then
        case $ended in
        124 | 137)
            if late "$began"; then printf 'ctr: the container did not start within %s s\n' "$limit"; else
                printf 'ctr: "ctr run" %s\n' "$killed"
            fi >>"$work/error"
            ;;
        *) [ -s "$work/error" ] || printf '"ctr run" ended with exit code %s\n' "$ended" >"$work/error" ;;
        esac
        error=$(words "$work/error")
        [ "$ended" -lt 124 ] || call namespaces ls -q >/dev/null # is it the runtime that hangs, or containerd?
        # containerd's GC may take the chowned layer of the handler before, which nothing refers to any more, just when
        # this one builds on it. Measured in 2.1.9: once in 60 starts.
        case $error/${3-} in *'parent snapshot'*'not found'/)
            prove "$1" "$2" again
            return
            ;;
        esac
        printf 'failed\t%s\t%s\t%s\n' "$1" "$took" "$error"
        return 1
    fi
    # Where idmapped mounts are used, either the lower layers are idmapped copies, or / itself is (mount option).
    case $mount in
    *lowerdir*/ovl-idmapped* | idmapped,* | *,idmapped,* | *,idmapped\ *) rootfs=idmapped ;;
    *) if [ "$owner" = 65536 ]; then rootfs=chowned; else rootfs=none; fi ;;
    esac
    verdict=unproven
    case "$uid/$gid/$host/$owner/$written" in "0 65536 65536/0 65536 65536/65536/65536/yes") verdict=proven ;; esac
    printf '%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n' \
        "$verdict" "$1" "$uid" "$gid" "$rootfs" "$host" "$owner" "$written" "$took" "$mount"
    [ "$verdict" = proven ]
}

main() {
    ctr=${1:-ctr} address=${2:-/run/containerd/containerd.sock} snapshotter=${3:-overlayfs} limit=${VERIFY_SECONDS:-60}
    address=${address#unix://}
    state=${address%/*} # containerd's own directory in /run
    containerd=${4:-containerd} volumes=${5-} requests=${6-}
    if [ $# -gt 6 ]; then shift 6; else set -- runc="$(command -v runc)"; fi
    handlers=''
    for spec; do handlers="$handlers ${spec%%=*}"; done
    printf 'userns-node-proof\t2\t%s\n' "${handlers# }"
    trap finish EXIT
    for signal in HUP INT PIPE TERM; do
        # shellcheck disable=SC2064
        trap "untried 'stopped by SIG$signal'" "$signal"
    done

    for tool in cat chmod cp flock grep id mkdir mkfifo mktemp mv rm \
        sed sha256sum stat tar timeout touch tr uname wc; do
        command -v "$tool" >/dev/null || untried "the node has no $tool"
    done
    [ "$(id -u)" = 0 ] || untried 'this needs root'
    command -v "$ctr" >/dev/null || untried "no executable at $ctr"
    [ -S "$address" ] || untried "no containerd socket at $address"
    # One run at a time. A directory can be locked, and leaves no file. The calls of ctr inherit the lock, so it holds
    # while one of a killed run is still at work. (9<&9: mksh gives a program nothing that exec has opened.)
    exec 9</run
    timeout -s KILL 60 flock 9 </dev/null 9<&9 || case $? in
    124 | 137) untried 'another run has held the lock on /run for 60 s' ;;
    *) untried '/run cannot be locked' ;; # flock has said why
    esac
    prepare
    call namespaces ls -q >"$work/list" || untried "$(words "$work/error")"
    call plugins ls -d id==content >"$work/plugins" || untried "$(words "$work/error")"
    root=$(sed -n 's:^ *root  *\(/.*\)/io\.containerd\.content\.v1\.content *$:\1:p' "$work/plugins")
    # Where containerd, its shim and the runtimes keep a directory for each namespace, and do not remove it.
    kept="/run/containerd/runc $state/io.containerd.runtime.v2.task ${root:+$root/io.containerd.runtime.v2.task}"
    if grep -qx "$namespace" "$work/list" || [ -d "/run/containerd/runc/$namespace" ]; then sweep; fi
    used=yes
    # --no-unpack: `ctr run` unpacks, for any snapshotter; the transfer service does so only for configured ones.
    call images import --no-unpack "$work/image.tar" >/dev/null || untried "$(words "$work/error")"
    result=0 proven=''
    for spec; do
        if prove "${spec%%=*}" "${spec#*=}"; then proven="$proven ${spec%%=*}"; else result=1; fi
    done
    # shellcheck disable=SC2086
    [ -z "$requests" ] || pods $proven
    code=$result
}

main "$@"
