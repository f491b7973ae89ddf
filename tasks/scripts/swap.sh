# swap.sh: the steps of a change, for activate.sh: put the new set in place, restart containerd, and see how it is.
# Functions only. $stage holds the new set, $service is containerd's, and $why is left for whoever tells a failure.

# `timeout` kills, here and below: whatever this script starts inherits that it ignores SIGTERM.
check_config() { # the config that will be there, read by the containerd that will be there
    binary=$new_containerd becomes="" config=/etc/containerd/config.toml code=0
    [ ! -e "$(beside "$binary" new)" ] || binary=$(beside "$binary" new)
    [ ! -e "$(beside "$config" new)" ] || config=$(beside "$config" new)
    [ -e "$binary" ] && [ -e "$config" ] || return 0
    output=$(timeout -s KILL 30 "$binary" --config "$config" config dump 2>&1 >/dev/null </dev/null) || code=$?
    if [ $code != 0 ]; then
        say "${output:-it did not answer within 30 s}" | sed 's,/\.config\.toml\.userns-node-new,/config.toml,g'
        case $code:$output in # 126 is timeout's own: it could not start it
            *"failed to create new OS thread"* | *"Resource temporarily unavailable"* | *"annot allocate memory"* | *"out of memory"*)
                why="$new_containerd could not read the new config.toml: this node has no processes or memory left for it"
                ;;
            126:*"Operation not permitted"* | 126:*"Permission denied"*) forbidden "$new_containerd run" ;;
            *) why="the new config.toml is refused by $new_containerd itself" ;;
        esac
        return 1
    fi
    printf '%s\n' "$output" | grep -i 'unknown key' | sed 's/^/warning: config-unknown-key: containerd says: /'
    return 0
}

forbidden() { # what
    rule="allow perm=execute all : dir=/usr/local/bin/,/usr/local/sbin/,/usr/local/libexec/userns-node/"
    why="this node does not let $1. What may forbid it: fapolicyd, for each version is a new file to it (a rule that lets it, before those that deny, such as in /etc/fapolicyd/rules.d/25-userns-node.rules: $rule); IMA; or a mount with noexec"
}

# By its own default rules, fapolicyd lets root's shell run what it does not know, and containerd run nothing of it: that
# would start, be healthy, and start no container. One command of containerd's becomes the program that it is given.
check_starts() { # mode target: whether the containerd that will be there may start this new program
    case ${2##*/} in containerd-shim-runc-v2 | runc | crun) ;; *) return 0 ;; esac
    [ -e "$binary" ] || return 0
    if [ -z "$becomes" ]; then # one without that command would begin to serve
        becomes=no
        ! timeout -s KILL 30 "$binary" oci-hook --help 2>/dev/null | grep -q oci-hook || becomes=yes
        printf '{"root": {"path": "/"}}\n' >"$stage/config.json" || return 0
    fi
    [ $becomes = yes ] || return 0
    output=$(printf '{"bundle": "%s"}\n' "$stage" |
        timeout -s KILL 30 "$binary" oci-hook -- "$(beside "$2" new)" -v 2>&1 >/dev/null)
    case $output in # it names the file where it is another one that it may not read
        *"containerd: operation not permitted" | *"containerd: permission denied")
            say "$output"
            forbidden "containerd start $2"
            return 1
            ;;
    esac
}

install_packages() { # all in one transaction, as they may depend on each other's versions
    names=$(awk -F '\t' '$1 == "package" { print $2 }' "$stage/actions")
    set --
    for name in $names; do
        exact=$(cat "$stage/$name.version") && set -- "$@" "$name=$exact" || return 1
    done
    # shellcheck disable=SC2086  # one word for each package
    { apt-mark unhold $names >/dev/null 2>&1; apt_get install --no-remove --reinstall --no-install-recommends "$@"; } &&
        apt-mark hold $names >/dev/null
}
hold_package() { apt-mark hold "$1" >/dev/null; }

add_user() { # name
    getent passwd "$1" >/dev/null 2>&1 && return 0
    # -K SUB_*_COUNT=0: no automatic range, which would stop the kubelet from starting.
    useradd --system --no-create-home --shell /usr/sbin/nologin -K SUB_UID_COUNT=0 -K SUB_GID_COUNT=0 "$1" 2>/dev/null ||
        useradd --system --no-create-home --shell /usr/sbin/nologin "$1"
}

# The process of the kubelet that runs, which reads its range only when it starts: a line for the record. A process is
# told from a later one of the same number by its start, in ticks since the boot.
note_kubelet() { # unit
    process=$(systemctl show --property=MainPID --value "$1" 2>/dev/null)
    [ "${process:-0}" != 0 ] && stat=$(cat "/proc/$process/stat" 2>/dev/null) || return 0
    # shellcheck disable=SC2086 # a field a word
    set -- ${stat##*) }
    printf 'kubelet\t%s\t%s\t%s\n' "$process" "${20}" "$(cat /proc/sys/kernel/random/boot_id)"
}

swap_put() { mv -f "$(beside "$2" new)" "$2" && label "$2"; }
swap_remove() { take_away "$1"; }

set_sysctl() { # key value
    key=$(printf '%s' "$1" | tr . /)
    [ "$(cat "/proc/sys/$key")" -ge "$2" ] || printf '%s\n' "$2" >"/proc/sys/$key"
}

set_metacopy() { # value
    parameter=/sys/module/overlay/parameters/metacopy
    [ -e "$parameter" ] || modprobe overlay >/dev/null 2>&1
    printf '%s\n' "$1" >"$parameter"
}

rebuild_initramfs() { # only where overlay is loaded from it: else the root's modprobe.d is what counts
    has initramfs || return 0
    kernel=$(uname -r)
    for image in "/boot/initrd.img-$kernel" "/boot/initramfs-$kernel.img" "/boot/initrd-$kernel"; do
        [ ! -e "$image" ] || break
    done
    [ -e "$image" ] || return 0
    list=$(command -v lsinitramfs || command -v lsinitrd) || return 0
    "$list" "$image" 2>/dev/null | grep -q '/overlay\.ko' || return 0
    say "overlay is in $image: rebuilding it"
    if command -v update-initramfs >/dev/null 2>&1; then # not the newest kernel's, which may be another
        update-initramfs -u -k "$kernel"
    else
        dracut --force "$image" "$kernel"
    fi >/dev/null 2>&1 9>&- ||
        say "warning: $image could not be rebuilt and keeps what it has for overlay; containerd's pre-start hook sets it"
}

enable_unit() { # name; systemd reads all units once, afterwards
    systemctl enable --no-reload "$1" >/dev/null 2>&1 || { say "$1 could not be enabled"; return 1; }
}

restart_containerd() {
    phase=restart why="it did not start"
    systemctl reset-failed $service 2>/dev/null
    timeout -s KILL 180 systemctl restart $service
}

# Units that require containerd (the kubelet of some distributions, Docker's) stop with it, and where its start fails,
# systemd fails theirs for good: Restart= does not count then.
note_dependents() {
    dependents="" down=""
    for name in $(systemctl show --property=RequiredBy,BoundBy,ConsistsOf --value $service 2>/dev/null); do
        if systemctl is-active --quiet "$name"; then
            dependents="$dependents $name"
        elif is_down "$name"; then
            down="$down $name"
        fi
    done
}
is_down() { # unit: whether it does not run and was meant to: it failed, or is enabled and goes on once it is started
    told=$(systemctl show --property=ActiveState,UnitFileState,Type "$1" 2>/dev/null)
    case $told in
        *ActiveState=failed*) return 0 ;;
        *Type=oneshot* | *ActiveState=activating* | *ActiveState=active*) return 1 ;;
        *UnitFileState=enabled*) return 0 ;;
    esac
    return 1
}
start_dependents() {
    for name in $dependents; do
        systemctl is-active --quiet "$name" || systemctl --no-block start "$name" 2>/dev/null || :
    done
    tell_down
}
# What was down before may be so because containerd was, and then nobody starts it; or by somebody's will.
tell_down() {
    [ $phase = restart ] && systemctl is-active --quiet $service || return 0
    left=""
    for name in $down; do
        ! is_down "$name" || left="$left $name"
    done
    [ -z "$left" ] || say "warning: these require $service, were down before this change, and stay down:$left. To start them: systemctl start$left"
}

seconds_up() { read -r seconds _ </proc/uptime && seconds=${seconds%.*}; } # not date: a clock may be set meanwhile
healthy() { # seconds to wait for the socket. What is said there is final: all plugins are loaded by then
    seconds_up
    deadline=$((seconds + $1))
    while :; do
        why="the service is $(systemctl is-active $service)"
        systemctl is-active --quiet $service || return 1
        plugins=$(timeout -s KILL 10 "$ctr" plugins ls 2>/dev/null) && break
        why="its socket does not answer"
        seconds_up
        [ "$seconds" -lt "$deadline" ] || return 1
        sleep 0.2
    done
    why=$(printf '%s\n' "$plugins" | awk -v snapshotter="$snapshotter" -v any="$any_snapshotter" '
        $1 ~ /grpc/ && $2 == "cri" { cri = 1 }
        $1 ~ /snapshotter/ && $2 == snapshotter { seen = 1 }
        ($1 ~ /snapshotter/ && $2 == snapshotter || $1 ~ /cri\.v1/ || $1 ~ /grpc/ && $2 == "cri") && $NF != "ok" {
            bad = bad ", the status of its plugin " $1 "." $2 " is \"" $NF "\""
        }
        END {
            if (!cri) bad = bad ", it has no CRI plugin"
            if (!seen && !any) bad = bad ", it has no snapshotter " snapshotter
            print substr(bad, 3)
        }')
    [ -z "$why" ]
}

tell_journal() { # without containerd's line for each plugin, and systemd's for each shim: a node has hundreds of them
    timeout -s KILL 10 journalctl --sync 2>/dev/null || : # what was said a moment ago may be on its way there
    journalctl --no-pager --quiet --unit $service --since "@$started" --output cat 2>/dev/null |
        grep -v -e 'level=\(info\|debug\)' -e ': Unit process [0-9]* .* remains running after unit stopped' \
            -e ': Found left-over process [0-9]* ' -e ': This usually indicates unclean termination of ' |
        tail -n 20 | sed 's/^/journal: /'
}
