# check-tell.sh: how the check tells what it found, as JSON and as metrics. Functions only, in the text of
# templates/check.sh.j2, whose variables they read.

# shellcheck disable=SC2034,SC2154 # that text sets what is read here, and reads what is set

# quote TEXT: in $quoted, as a JSON string; all of it is printable ASCII
quote() {
    quoted=$1
    case $quoted in
    *[\\\"]*) quoted=$(printf "%s\n" "$quoted" | sed 's/[\\"]/\\&/g') ;;
    esac
    quoted=\"$quoted\"
}

json() {
    quote "$kernel" && kernel_quoted=$quoted
    quote "$container" && container_quoted=$quoted
    list=
    for each in $versions; do
        quote "${each%%=*}" && list="$list${list:+, }$quoted: "
        quote "${each#*=}" && list="$list$quoted"
    done
    case $user_namespaces in "" | *[!0-9]*) user_namespaces=null ;; esac
    printf '{
  "format": 1,
  "verdict": "%s",
  "tier": "%s",
  "expected_tier": "%s",
  "rootfs": "%s",
  "volumes": "%s",
  "time": %s,
' "$verdict" "$tier" "$expected_tier" "$rootfs" "$volumes" "${time:-0}"
    printf '  "kernel": %s,
  "container": %s,
  "containerd": {"active": "%s", "enabled": "%s"},
  "versions": {%s},
  "metacopy": "%s",
  "max_user_namespaces": %s,
' "$kernel_quoted" "$container_quoted" "$active" "$enabled" "$list" "$metacopy" "$user_namespaces"
    printf '  "probes": {%s},
  "findings": [%s]
}
' "$probes${probes:+$newline  }" "$findings${findings:+$newline  }"
}

metrics() {
    is_ready=1 is_degraded=0
    [ "$code" != 2 ] || is_ready=0
    [ "$code" != 1 ] || is_degraded=1
    printf '%s\n' '# HELP userns_node_ready Whether pods with hostUsers: false can run on this node.' \
        '# TYPE userns_node_ready gauge' \
        "userns_node_ready $is_ready" \
        '# HELP userns_node_degraded Whether they can, but something is not as the last deploy left it.' \
        '# TYPE userns_node_degraded gauge' \
        "userns_node_degraded $is_degraded" \
        '# HELP userns_node_tier_info What pods with hostUsers: false get here, and what they got at the last deploy.' \
        '# TYPE userns_node_tier_info gauge' \
        "userns_node_tier_info{tier=\"$tier\",expected=\"$expected_tier\"} 1" \
        '# HELP userns_node_finding What was noticed, by its stable id.' \
        '# TYPE userns_node_finding gauge' \
        "$metrics_of_findings# HELP userns_node_component_info The versions that the last deploy installed." \
        '# TYPE userns_node_component_info gauge'
    for each in $versions; do
        printf 'userns_node_component_info{component="%s",version="%s"} 1\n' "${each%%=*}" "${each#*=}"
    done
    printf '%s\n' '# HELP userns_node_check_timestamp_seconds When this was found.' \
        '# TYPE userns_node_check_timestamp_seconds gauge' \
        "userns_node_check_timestamp_seconds ${time:-0}"
}

# place_metrics FILE: the unit writes FILE from now on, "" for none. What it wrote elsewhere before goes.
place_metrics() {
    placed=${USERNS_NODE_ROOT-}/var/lib/userns-node/metrics
    file=""
    [ ! -f "$placed" ] || IFS= read -r file <"$placed" || :
    [ "$file" != "$1" ] || return 0
    forget_metrics "$placed"
    # Before the file itself: a record of nothing does no harm.
    if [ -n "$1" ] && [ -d "${placed%/*}" ]; then printf '%s\n' "$1" | put "$placed" || :; fi
}

# put FILE: standard input, by rename, readable for all. A link is replaced: root must not write where somebody else's leads.
put() {
    case $1 in
    */*) beside=${1%/*}/ ;;
    *) beside=./ ;;
    esac
    if [ -d "$1" ] || [ -b "$1" ]; then
        : # a rename would move it into the one, and the other may be a disk
    elif stays "$1" "$beside"; then
        into "$1" 2>&4 && return
    else
        beside=$beside.${1##*/}.$$
        # shellcheck disable=SC2094 # another file
        if cat >"$beside" && [ -s "$beside" ] && chmod 644 "$beside" && mv -f -- "$beside" "$1"; then return; fi
        rm -f -- "$beside"
    fi
    echo "check: $1 cannot be written" >&4
    return 1
}

# into FILE: standard input. A FIFO may have no reader, and standard error be a file that has more than this.
into() {
    have timeout || {
        cat >>"$1" # limit would take standard input away
        return
    }
    # shellcheck disable=SC2016 # for the other shell
    timeout 10 sh -c 'cat >>"$1"' sh "$1"
}

# stays FILE DIRECTORY: whether it is no file of its own, which a rename would take away: a device, a FIFO, /dev/stderr.
stays() {
    if [ -e "$1" ] && [ ! -f "$1" ]; then return; fi
    [ -h "$1" ] || return 1
    case $(readlink -f -- "$2") in
    /dev | /proc/*) ;; # the kernel's links
    *) return 1 ;;
    esac
}
