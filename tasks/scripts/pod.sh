#!/bin/sh
# The strongest part of the proof, where a node has what it takes: pods over CRI, as a kubelet starts them. Functions
# for verify.sh, which calls `pods`; its head says what is printed. The requests come ready from userns/proof/cri.py, one a
# line: NAME METHOD HEAD TAIL, the bytes before and behind the ID of a sandbox or container, in base64.
#
# Only while no kubelet runs, as one ends every pod that it does not know. What a pod needs is made for the occasion:
# the image of verify.sh in containerd's namespace k8s.io, and below the kubelet's root a directory and a tmpfs, as
# volumes. All of it goes again, and the next run takes away what a killed one left.

# shellcheck disable=SC2016,SC2034,SC2094,SC2154,SC3013  # as in verify.sh, of which this is a part

# One call of CRI. Arguments: the name of a request, an ID where it needs one, and the seconds that it may take.
# Leaves the answer in $work/answer; where it fails, gRPC's code or curl's in $status, and the words in $said.
rpc() {
    method='' head='' tail=''
    case $newline$requests in
        *"$newline$1 "*)
            a=${newline}$requests
            a=${a#*"$newline$1 "}
            a=${a%%"$newline"*}
            method=${a%% *} a=${a#* }
            head=${a%% *}
            tail=${a#"$head"} tail=${tail# }
            ;;
    esac
    rm -f "$work/answer" "$work/head"
    status='' said='no room for a request'
    {
        printf %s "$head" | base64 -d && printf %s "$2" && printf %s "$tail" | base64 -d
    } >"$work/request" || return
    # grpc-timeout: containerd gives up by itself, and cleans up after itself.
    curl -q --silent --show-error --noproxy '*' --http2-prior-knowledge --unix-socket "$address" \
        --max-time "$(($3 + 5))" -H 'content-type: application/grpc' -H 'te: trailers' -H "grpc-timeout: $3S" \
        --data-binary "@$work/request" --dump-header "$work/head" --output "$work/answer" \
        "http://localhost/$method" </dev/null 2>"$work/error"
    status=curl-$?
    said=$(tr -s '\000-\037' ' ' <"$work/error")
    [ "$status" = curl-0 ] || return
    status=$(sed -n 's/^grpc-status: *\([0-9]*\).*/\1/p' "$work/head" | sed '$!d')
    said=$(sed -n 's/^grpc-message: *//p' "$work/head" | sed '$!d' | tr -s '\000-\037' ' ')
    [ -n "$status" ] || said=$(sed '1!d' "$work/head" | tr -d '\r')
    [ "$status" = 0 ]
}

# The only ID in an answer, a text of 64 digits at its end.
answered() {
    id=$(tail -c 64 "$work/answer" | tr -cd 0-9a-f)
    [ ${#id} = 64 ]
}

# Why no pod was tried. First a word for it, then what is known.
no_pod() {
    printf 'no-pod\t%s\t%s\n' "$1" "$(printf %s "$2" | tr -s '\000-\037' ' ')"
}

# A unit that is about to start one again counts. Containers have PID namespaces of their own. K3s and MicroK8s have
# the kubelet within a process of another name; RKE2 and k0s start one.
kubelet_runs() {
    for line in $(systemctl is-active $kubelet_units 2>/dev/null); do
        case $line in active | activating | reloading | refreshing) return 0 ;; esac
    done
    for name in /proc/[0-9]*; do
        line=''
        { read -r line <"$name/comm"; } 2>/dev/null
        case $line in
        kubelet | kubelite | k3s-server | k3s-agent) [ ! "$name/ns/pid" -ef "/proc/$$/ns/pid" ] || return 0 ;;
        esac
    done
    return 1
}
kubelet_units="kubelet.service k3s.service k3s-agent.service snap.microk8s.daemon-kubelite.service"

# ctr in the namespace of CRI.
in_k8s() { call_in k8s.io "$@"; }

# Take an image out of CRI's namespace, under each name that CRI gave it, but for those in the list of a time before.
unload() {
    in_k8s images ls >"$work/list" || return
    digest=''
    while read -r name a line; do [ "$name" != "$1" ] || digest=${line%% *}; done <"$work/list"
    [ -n "$digest" ] || return 0
    while read -r name a line; do
        [ "${line%% *}" = "$digest" ] && ! grep -qxF "$name" "$2" || continue
        in_k8s images rm --sync "$name" >/dev/null || return
    done <"$work/list"
}

# End and remove every pod of this check; nobody else has its label. A pod's containers go with it.
end_pods() {
    rpc ListPodSandbox '' "$limit" || return
    for pod in $(tr -c 0-9a-f '\n' <"$work/answer" | grep -x '.\{64\}'); do
        rpc StopPodSandbox "$pod" "$patience" && rpc RemovePodSandbox "$pod" "$patience" ||
            printf 'left\tpod %s: %s\n' "$pod" "$said"
    done
}

# The volumes lie where a kubelet has them. A node that has no kubelet yet may lack the directories above them.
make_volumes() {
    top=$volumes
    while [ ! -e "${top%/*}/." ]; do top=${top%/*}; done
    (umask 027 && mkdir -p "${volumes%/*}") && mkdir -p "$volumes/disk" "$volumes/tmpfs" && printf '%s\n' "$top" >"$volumes/top" &&
        mount -t tmpfs -o size=64k,mode=755 userns-node-check "$volumes/tmpfs" &&
        : >"$volumes/disk/seed" && : >"$volumes/tmpfs/seed" || return
    # As a kubelet's are labelled: containerd may relabel only those, where SELinux confines it.
    [ ! -e /sys/fs/selinux/enforce ] || restorecon -R "$volumes" >/dev/null 2>&1 || :
}

drop_volumes() {
    [ -d "$volumes" ] && [ ! -L "$volumes" ] || return 0
    top=''
    { read -r top <"$volumes/top"; } 2>/dev/null
    discard "$volumes" || printf 'left\t%s\n' "$volumes"
    case $volumes in "${top:-$volumes}" | "${top:-$volumes}"/*) ;; *) return ;; esac
    name=$volumes
    until [ "$name" = "${top:-$name}" ]; do
        name=${name%/*}
        rmdir "$name" || return
    done
}

# What an earlier run left, where it was killed.
sweep_pods() {
    end_pods
    drop_volumes
    unload "$image" /dev/null
    for past in $unfinished; do
        pulled=$(cat "$past/pulled")
        kubelet_runs || [ -z "$pulled" ] || unload "$pulled" "$past/names" # else it is the kubelet's now
        discard "$past"
    done
    unfinished=''
}

# After the last pod, in whatever way the run ends.
finish_pods() {
    [ "$podded" = yes ] || return 0
    podded=no
    end_pods || printf 'left\tpods: %s\n' "$said"
    drop_volumes
    unload "$image" /dev/null || printf 'left\timage %s: %s\n' "$image" "$(words "$work/error")"
    if [ -f "$work/pulled" ] && ! kubelet_runs; then
        unload "$pause" "$work/names" || printf 'left\timage %s: %s\n' "$pause" "$(words "$work/error")"
    fi
}

# The image that pods begin with, by containerd's own word. $paused is whether it is there.
find_pause() {
    pause=$(timeout -s KILL "$limit" "$containerd" config dump </dev/null 2>/dev/null |
        sed -n -e 's/^ *sandbox = ["'\'']\(.*\)["'\'']$/\1/p' -e 's/^ *sandbox_image = ["'\'']\(.*\)["'\'']$/\1/p' |
        sed '1!d')
    in_k8s images ls -q >"$work/names" || return
    paused=yes
    [ -z "$pause" ] || grep -qxF "$pause" "$work/names" || paused=no
}

# Bring the image to CRI, which hears of it from containerd a moment later.
load() {
    in_k8s images import --no-unpack "$work/image.tar" >/dev/null || return
    tries=0
    until rpc ImageStatus '' "$limit" && [ "$(wc -c <"$work/answer")" -gt 5 ]; do
        tries=$((tries + 1))
        if [ "$tries" -gt 100 ]; then
            echo 'ctr: CRI does not see the image that was imported' >"$work/error"
            return 1
        fi
        sleep 0.1 || sleep 1
    done
}

# A container in the pod. Arguments: handler, volumes by name.
try_container() {
    rm -f "$volumes/disk/written" "$volumes/tmpfs/written"
    step=CreateContainer
    if rpc "CreateContainer.$2" "$sandbox" "$patience" && answered; then
        step=StartContainer container=$id
        if rpc StartContainer "$container" "$patience"; then
            step=ExecSync
            if rpc ExecSync "$container" "$patience"; then
                pid='' host='' owner=''
                { read -r pid; } 2>/dev/null <"$state/io.containerd.runtime.v2.task/k8s.io/$container/init.pid"
                if [ -n "$pid" ]; then
                    while read -r key value a; do [ "$key" != Uid: ] || host=$value; done <"/proc/$pid/status"
                    owner=$(stat -c %u "/proc/$pid/root/bin/sh")
                fi
                clock
                took=$((now - began))
                printf 'pod\t%s\t%s\t%d.%02d\t%s\t%s\t%s\t%s\t%s\n' "$1" "$2" $((took / 100)) $((took % 100)) \
                    "$host" "$owner" "$(stat -c %u:%g "$volumes/disk/written" 2>/dev/null)" \
                    "$(stat -c %u:%g "$volumes/tmpfs/written" 2>/dev/null)" "$(base64 <"$work/answer" | tr -d '\n')"
                return
            fi
        fi
    fi
    failed "$1" "$2" "$step"
    return 1
}

# Tell of a call that failed. Arguments: handler, volumes, call. Sets $gone where there is no use in going on.
failed() {
    # Of one that timed out, the next ones would too, and all together they are to be bounded.
    case $status in 4 | curl-*) gone=yes ;; esac
    if kubelet_runs; then
        no_pod kubelet 'it started meanwhile'
        gone=yes
    else
        printf 'pod-failed\t%s\t%s\t%s\t%s\t%s\n' "$1" "$2" "$3" "$status" "$said"
    fi
}

# A pod with one handler: the container with all volumes, and where that fails one with fewer.
try_pod() {
    clock
    began=$now
    if [ "$paused" = yes ]; then
        seconds=$patience
    else
        seconds=$limit # containerd pulls it now
        printf '%s\n' "$pause" >"$work/pulled"
    fi
    if ! rpc "RunPodSandbox.$1" '' "$seconds" || ! answered; then
        in_k8s images ls -q >"$work/list"
        if [ "$paused" = no ] && ! grep -qxF "$pause" "$work/list"; then
            no_pod pause "$pause: $said"
            gone=yes
            return
        fi
        # A network plugin may need a cluster that this node is not in. That says nothing of user namespaces.
        case $said in
        *'failed to setup network for sandbox'* | *'cni plugin not initialized'*)
            no_pod network "$said"
            gone=yes
            ;;
        *)
            first=$status why=$said
            if rpc "RunPodSandbox.$1.host" '' "$patience"; then
                end_pods
                status=$first said=$why
                failed "$1" '' RunPodSandbox
            else
                no_pod pods "$why"
            fi
            ;;
        esac
        return
    fi
    paused=yes sandbox=$id
    for attempt in $attempts; do
        if try_container "$1" "$attempt" || [ "$gone" = yes ]; then break; fi
    done
    end_pods || printf 'left\tpods: %s\n' "$said"
}

# Everything. Arguments: the handlers that a container was proven with.
pods() {
    patience=$((limit * 4)) gone=no attempts='' said='containerd does not answer'
    for name in curl base64 mount umount tail; do
        if ! command -v "$name" >/dev/null; then
            no_pod tools "the node has no $name"
            return
        fi
    done
    case $(curl -q --version) in
    *HTTP2*) ;;
    *)
        no_pod tools "the node's curl has no HTTP/2"
        return
        ;;
    esac
    if [ "$hung" = yes ] || ! rpc Status '' "$limit"; then
        no_pod cri "$said"
        return
    fi
    printf 'cri\t%s\n' "$(base64 <"$work/answer" | tr -d '\n')"
    if grep -q NetworkPluginNotReady "$work/answer"; then ready=no; else ready=yes; fi
    sweep_pods
    if kubelet_runs; then
        no_pod kubelet ''
    elif [ "$ready" = no ]; then
        no_pod network ''
    elif [ $# -gt 0 ]; then
        for name in $requests; do # and what else stands there, in base64
            case $name in CreateContainer.*) attempts="$attempts ${name#*.}" ;; esac
        done
        podded=yes
        if ! find_pause || ! load; then
            no_pod image "$(words "$work/error")"
        elif ! trouble=$(make_volumes 2>&1); then
            no_pod volumes "$trouble"
        else
            for handler; do [ "$gone" = yes ] || try_pod "$handler"; done
        fi
        finish_pods
    fi
}

