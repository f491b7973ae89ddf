# activate.sh STAGE        swap the staged set in, restart, check health, and go back where that fails; or, where
#                          STAGE/actions says `rollback`, bring a kept set back (rollback.sh) in the same way
# activate.sh --recover    at boot: undo a change that a crash or a power cut ended half-way
# activate.sh --undo STAGE LOG FILE…    undo it at once, because it was killed; tell it in LOG; remove the files
#
# Follows previous.sh, running.sh, rollback.sh and swap.sh in one text. Runs in a transient systemd unit, so that it goes
# on when the SSH connection dies, and under a lock that the kernel drops with the process. STAGE/actions holds one
# TAB-separated action a line. What makes it safe, wherever it is cut, is the order:
#   1. the set to go back to is saved as STATE/undo;
#   2. the recovery unit and then the mark STATE/activation are written: from here on a boot undoes the change;
#   3. every new file is laid beside its target, and the new containerd reads the new config;
#   4. renames, restart, health check, record; where one of them fails, STATE/undo comes back by renames;
#   5. the mark goes: that is the commit. STATE/undo becomes STATE/previous, and that STATE/previous.2.
# Each step is on the disk before the next one begins.
mark=$state/activation
committed=$state/committed
readiness=/run/userns-node/readiness.json
node_check=/usr/local/libexec/userns-node/check
recovery=$units/userns-node-recover.service
wanted=$units/multi-user.target.wants/userns-node-recover.service
stage="" log=""
new_containerd="" ctr=ctr snapshotter=overlayfs
any_snapshotter="" # whether containerd is healthy with another one too: who set it before may have had another
restart=no went_on=no
phase=beside # how far it came: beside the targets alone; to the swap, which may have touched them; to the restart
needs_no_tasks=no running="" dependents="" down=""
change=swapping undo_is="the previous set"
all_done="all is in place"
unclean="some temporary files (.NAME.userns-node-new or -old) beside the files could not be removed"
stale="another run changed this node since the plan was made; run again"

die() {
    say "error: $*"
    exit 1
}

# Every action of the kind $1, with its fields as the arguments of the function $2. An empty field is written
# "-": a TAB in IFS is white space, so that two of them count as one.
each() {
    while IFS="$tab" read -r kind a b c d e f; do
        [ "$kind" = "$1" ] || continue
        "$2" "$a" "$b" "$c" "$d" "$e" "$f" </dev/null 9>&- || return 1
    done <"$stage/actions"
}
has() { grep -qs "^$1$tab" "$stage/actions"; }

# --- 1. the set to go back to ------------------------------------------------------------------------------------

save_put() { save "$2"; }
save_enable() { systemctl is-enabled --quiet "$1" 2>/dev/null || note disabled "$1"; }
save_service() {
    systemctl is-enabled --quiet $service 2>/dev/null || note disabled $service || return 1
    seen=$(systemctl is-active $service)
    case $seen in activating | failed) say "$seen" >"$saving/down" || return 1 ;; esac
    systemctl is-active --quiet $service || return 0
    note active $service || return 1
    new_ctr=$ctr ctr=ctr any_snapshotter=yes
    ! healthy 0 || note healthy $service
    ctr=$new_ctr any_snapshotter=
}
open_undo() {
    if [ -e "$mark" ] && [ -e "$back/restore" ]; then
        say "an earlier change was cut off: going on from there"
        went_on=yes phase=restart # how far that one came, nobody knows: the way back has to be the long one
        saving=$back list=$back/restore.new
        cp "$back/restore" "$list" || return 1
    else
        tidy || return 1 # of the change before: what it saved would be in the place of what this one saves
        saving=$state/undo.new list=$state/undo.new/restore.new
        rm -rf "$saving" && mkdir -m 700 "$saving" && true >"$list" && save_service || return 1
    fi
    number=$(wc -l <"$list")
}
sync_saved() {
    set --
    for file in "$saving"/*; do # of what else may be in a target's place, a link or a device, there is nothing to sync
        [ -L "$file" ] || [ ! -f "$file" ] || set -- "$@" "$file"
    done
    sync "$@"
}
close_undo() {
    sync_saved && mv -f "$list" "$saving/restore" && sync "$saving" || return 1
    [ "$saving" = "$back" ] || mv "$saving" "$back" || return 1
    sync "$state"
}
save_all() {
    open_undo && each enable save_enable && each metacopy save_metacopy && each user save_user &&
        each package save_package && each hold save_hold && save "$state/manifest" && each put save_put &&
        each remove save && each save save && each record save && close_undo
}

# --- 2. the mark -------------------------------------------------------------------------------------------------

recovery_unit() {
    # local-fs.target waits for no mount with `nofail` or `_netdev`.
    printf '%s\n' "[Unit]
Description=Undo a change by userns-node that was cut off
DefaultDependencies=no
After=local-fs.target
RequiresMountsFor=$state /usr/local/bin /usr/local/sbin /usr/local/libexec /etc/containerd $units
Before=$service shutdown.target
Conflicts=shutdown.target

[Service]
Type=oneshot
ExecStart=/bin/sh -c 'if [ -e $state/activate.sh ]; then exec sh $state/activate.sh --recover; fi; rm -f $recovery $wanted; systemctl daemon-reload'"
}
begin() { # the unit before what it runs: alone, it removes itself at the next boot
    recovery_unit >"$stage/recovery" && replace "$recovery" <"$stage/recovery" &&
        mkdir -p "${wanted%/*}" && ln -sf "../${recovery##*/}" "$wanted" &&
        sync "$units" "${wanted%/*}" && replace "$state/activate.sh" <"$stage/activate.sh" && sync "$state" &&
        say "$change" | replace "$mark" && sync "$state" && reach begun
}
reach() { # The record changes on the way, so that a plan made before a cut can be told from one made after it.
    lines=""
    [ ! -e "$state/manifest" ] || lines=$(cat "$state/manifest") || return 1
    printf '%sunfinished\t%s\t%s\n' "${lines:+$lines
}" "${stage##*/}" "$1" | replace "$state/manifest"
}

# --- 3. beside the targets ---------------------------------------------------------------------------------------

place_beside() { # mode target payload
    new=$(beside "$2" new)
    # shellcheck disable=SC2015
    { [ -d "${2%/*}" ] || { mkdir -p "${2%/*}" && label "${2%/*}"; }; } && rm -f "$new" && cp "$stage/$3" "$new" &&
        chmod "$1" "$new" && chown 0:0 "$new" && sync "$new" || {
        say "could not prepare $2 (is ${2%/*} writable, and is there space?)"
        return 1
    }
}

# --- 4. the swap -------------------------------------------------------------------------------------------------

give_up() { # why
    say "error: $1"
    [ $phase != restart ] || tell_journal
    go_back
    exit 1
}
go_back() { # false where containerd is not healthy with what is there now
    well=yes
    if [ ! -e "$mark" ]; then # it could not be written: no target was touched
        say "nothing was changed"
        abandon
        return
    fi
    if [ $phase = beside ]; then # where a target cannot be written to, that needs no writing either
        say "nothing was changed"
        { bring_record && drop_prepared "$back/restore"; } || die "$unclean; run again, or reboot, to try again"
        abandon
        return
    fi
    restore "$back/restore" "$back" || die "not all of the previous set could be brought back; run again, or reboot, to try again"
    [ -x "$ctr" ] || ctr=ctr
    any_snapshotter=yes
    if [ $phase = swap ]; then
        say "$undo_is is back; containerd was not restarted"
    elif ! was active; then
        systemctl stop $service 2>/dev/null
        systemctl reset-failed $service 2>/dev/null
        say "$undo_is is back (containerd was not running before)"
        try_on
    elif restart_containerd && healthy 60; then
        say "$undo_is is back, and containerd runs it"
    elif was healthy; then
        say "error: $undo_is is back, but containerd is not healthy with it: $why"
        well=no
    else
        say "$undo_is is back; containerd is as unhealthy with it as before: $why"
        well=no
    fi
    start_dependents
    [ $clean = yes ] || die "$unclean; run again, or reboot, to try again"
    abandon
    [ $well = yes ]
}

try_on() { # as systemd did before: where somebody mends by hand what is wrong, it then comes up by itself
    case $(cat "$back/down" 2>/dev/null) in
        activating)
            systemctl --no-block start $service 2>/dev/null
            say "systemd goes on trying to start it. Why it does not start: journalctl -u $service"
            ;;
        failed) say "why it did not start: journalctl -u $service. When that is mended: systemctl start $service" ;;
    esac
}

# --- the record --------------------------------------------------------------------------------------------------

bring_record() { # as it was before the change began
    saved=$(saved_record) || return
    if [ -n "$saved" ]; then bring_back "$state/manifest" "$back/$saved"; else rm -f "$state/manifest"; fi
}
record_put() { # mode target payload component version asset; the last three are "-" for a file that is no program
    [ "$4" = - ] || record_program "$2" "$4" "$5" "$6"
}
record_files() { # what a cut-off run put there, and this plan found right, is in no action: only among the targets
    while IFS= read -r path; do
        if [ "$path" = "$state/manifest" ] || [ ! -f "$path" ] || grep -q "^program$tab$path$tab" "$stage/programs"; then
            continue
        fi
        sum=$(sha256sum "$path") && sum=${sum%% *} || return 1
        # What that run did not come to is the program that it was; `commit` brings its stat up to date.
        was=$(awk -F '\t' -v path="$path" -v sum="$sum" '$1 == "program" && $2 == path && $5 == sum' "$state/manifest")
        printf '%s\n' "${was:-file$tab$path$tab$sum}" || return 1
    done <"$stage/targets"
}
write_manifest() {
    targets "$back/restore" >"$stage/targets" &&
        { each put record_put && each record record_program; } >"$stage/programs" && record_files >"$stage/files" &&
        awk -F '\t' 'FILENAME == ARGV[1] { gone[$0]; next } $1 != "unfinished" && !($2 in gone)' \
            "$stage/targets" "$state/manifest" >"$stage/kept" &&
        sort -u "$stage/kept" "$stage/programs" "$stage/files" "$stage/kubelet" >"$stage/manifest" &&
        replace "$state/manifest" <"$stage/manifest"
}

# --- 5. the commit, and the two ways in --------------------------------------------------------------------------

check_anew() { # What it found after the last boot is no longer true. That it finds fault with the node is no fault here.
    rm -f "$readiness" # first: the set that came back may have no check, and nobody would write it anew
    [ -e "$node_check" ] || forget_metrics "$state/metrics"
    [ ! -e "$state/baking" ] || return 0 # an image, in which nothing is started
    timeout -s KILL 150 systemctl restart userns-node-check.service 2>/dev/null
    [ ! -e "$node_check" ] || [ -e "$readiness" ] ||
        say "warning: userns-node-check.service left no $readiness: systemctl status userns-node-check says why"
}
commit() {
    mv -f "$mark" "$committed" && sync "$state" && say "$all_done" && tidy || return 1
    [ $went_on = no ] || refresh_manifest
    drop_stages
}
abandon() { rm -f "$mark" && sync "$state" && tidy && refresh_manifest && drop_stages; }
drop_stages() { rm -rf "$state/staged"/*; } # whoever filled them made a plan that is no longer true
tidy() { # after either, or where one of them was cut
    clear_uncleared
    # A deploy is unproven until a controller has seen its proof; a set that comes back was there before.
    [ ! -e "$committed" ] || grep -q ^rollback "$committed" || true >"$state/unproven"
    if [ -e "$back/restore" ]; then
        # The new: of a change that was cut, and that this one went on from with other files.
        clear_beside "$back/restore" "$back/restore.new"
        if [ -e "$committed" ]; then
            forget_repaired
            # A change of no file leaves the last set that a rollback can go back to, and so does one that only put right
            # what somebody had edited. (One of them is the record.)
            named=$(targets "$back/restore") || return 1
            case $named in *"
"*) keep_sets ;; esac
        fi
    fi
    rm -rf "$back" "$committed"
}
leave() {
    if [ -e "$state/undo.new" ]; then
        clear_beside "$state/undo.new"/restore*
        rm -rf "$state/undo.new"
        refresh_manifest
    fi
    rm -rf "$state"/*.new "$recovery.new"
    [ -z "$stage" ] || rm -rf "$stage"
    [ ! -e "$mark" ] || return 0
    [ ! -e "$committed" ] || tidy || return 0 # a step of it failed before, and if it fails again, a boot does it
    clear_uncleared || { say "warning: $unclean; the next change, or boot, removes them" && return; }
    # First: where this is cut, a boot removes the unit that would run it. Where it can't be removed, the unit stays too:
    # that boot runs it, and it removes both.
    rm -f "$state/activate.sh" || return 0
    # Without a reload it is listed as not found, or still as loaded where a killed change had just removed it.
    if [ -e "$recovery" ] || [ -n "$log" ]; then rm -f "$recovery" "$wanted" && reload_units; fi
}

lock() { # seconds
    true >>"$state/lock" || die "cannot write $state" # exec would end the shell without a word
    exec 9>>"$state/lock"
    flock -w "$1" 9 9>&9 || case $? in # 9>&9: mksh gives a program nothing that exec has opened
        1) die "another run has been changing this node for $(($1 / 60)) minutes; try again later" ;;
        *) die "$state/lock cannot be locked" ;; # flock has said why
    esac
    trap leave EXIT
}

recover() {
    booting=yes
    lock 60
    if [ -e "$mark" ]; then
        restore "$back/restore" "$back" || die "not all of the previous set could be brought back; deploy again, or reboot, to try again"
        # This boot may have decided to start them already, for they were enabled until now.
        while IFS="$tab" read -r kind name _; do
            [ "$kind" != disabled ] || systemctl --no-block stop "$name"
        done <"$back/restore"
        [ $clean = yes ] || die "$unclean; deploy again, or reboot, to try again"
        say "an unfinished change was undone: the previous set is back"
        abandon
    else
        tidy
    fi
    drop_stages
}

undo() { # right after somebody killed the change that had filled the stage
    cut="the change was cut off on the node before its end"
    trap '' INT HUP TERM
    lock 280 # another run may have waited for it, and may go on from there
    if [ -e "$mark" ]; then
        phase=restart started=$(date +%s)
        give_up "$cut"
    fi
    if [ -e "$committed" ] || grep -qxF "$all_done" "$log"; then
        tidy
        say "the change was cut off on the node after its last step: it stays"
        return
    fi
    tidy
    [ -e "$stage" ] || die "$cut, and nothing of it is left: run again" # another run has undone it, and dropped all stages
    die "$cut; nothing was changed"
}

take_lock() {
    trap 'rm -rf "$stage"' EXIT
    # Once: systemd sends a second SIGTERM when its first one has ended the shell around this one, and `leave` is to end.
    trap "trap '' INT HUP TERM; exit 130" INT HUP TERM
    lock 300
    [ -e "$stage/actions" ] || die "$stale"
}
expect_record() { # the digest of the record that the plan was made from, "-" where there was none
    seen=-
    [ ! -e "$state/manifest" ] || { seen=$(sha256sum "$state/manifest") && seen=${seen%% *}; }
    [ "$seen" = "$1" ] || die "$stale"
}
activate() {
    take_lock
    while IFS="$tab" read -r kind a b c _; do
        case $kind in
            expect) expect_record "$a" ;;
            unchanged) # other people's lines are in it, and would go with the old text
                seen=-
                [ ! -e "$a" ] || { seen=$(sha256sum "$a") && seen=${seen%% *}; }
                [ "$seen" = "$b" ] || die "$a has changed since the plan was made; nothing was changed, run again"
                ;;
            put)
                [ -e "$stage/$c" ] || die "$stale"
                [ ! -d "$b" ] || die "$b is a directory, expected a file; nothing was changed"
                ;;
            health) ctr=$a snapshotter=$b ;;
            containerd) new_containerd=$a ;;
            no-tasks) needs_no_tasks=yes ;;
            restart) restart=yes ;;
        esac
    done <"$stage/actions"
    [ $needs_no_tasks = no ] || refuse_tasks
    save_all || die "could not save what is there now (is there space on $state?); nothing was changed"
    # A stop of this unit must not cut what follows: systemd sends SIGTERM at shutdown.
    trap '' INT HUP TERM
    started=$(date +%s)
    note_dependents
    begin || give_up "could not write to $state and $units"
    each put place_beside || give_up "the new files could not be prepared"
    has package || { check_config && each put check_starts; } || give_up "$why"
    reach swapping || give_up "the record could not be written"
    [ $phase = restart ] || phase=swap
    each range note_kubelet >"$stage/kubelet" || give_up "the record could not be written"
    [ $needs_no_tasks = no ] || stop_for_older
    if has package; then
        phase=restart # by the packages' own scripts
        install_packages 9>&- </dev/null || give_up "the packages could not be installed"
        check_config || give_up "$why"
    fi
    each user add_user || give_up "the user could not be created"
    each put swap_put && each remove swap_remove && flush_targets "$back/restore" && reach swapped ||
        give_up "a file could not be put in place"
    rebuild_initramfs
    each sysctl set_sysctl || give_up "a kernel setting could not be raised"
    each metacopy set_metacopy || give_up "overlay's metacopy could not be set"
    each enable enable_unit || give_up "a unit could not be enabled"
    reload_units || give_up "systemd did not read its units again" # what starts then would be the old unit
    if [ $restart = yes ]; then
        restart_containerd || give_up "$service did not start"
        healthy 60 || give_up "containerd is not healthy: $why"
    fi
    start_dependents
    each hold hold_package || give_up "a package could not be held"
    write_manifest || give_up "the record could not be written"
    sync "$state"
    commit || [ ! -e "$mark" ] || give_up "the change could not be committed"
    check_anew
    say "done"
}

case $1 in
    --recover) recover ;;
    --undo)
        stage=$2 log=$3
        (undo) >>"$log" 2>&1
        code=$?
        shift 3
        timeout 5 cat "$log"
        rm -f "$@"
        echo "activation exits with $code" >>"$log"
        ;;
    *)
        stage=$1
        if has rollback; then roll_back; else activate; fi
        ;;
esac
