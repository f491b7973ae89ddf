# rollback.sh: the kept sets, how one of them is brought back, and when an older containerd may take over. Functions
# only: see activate.sh.
#
# STATE/previous and STATE/previous.2 are sets as previous.sh describes them. Each names every target in which it
# differs from what runs now, so that either can be brought back alone. userns/rollback.py decides what of it comes
# back, and writes that down as actions:
#   rollback SET DIGEST           of the set's list, or `undo`: only undo the change that was cut off
#   back KIND NAME DETAIL         a line of that list that is brought back
#   stays TARGET                  what is left as it is now

# --- keeping -----------------------------------------------------------------------------------------------------

# At a commit. The set that makes way is the oldest, or the one that runs now; the set that the change replaced takes
# the first place. But no set makes way for one that differs in nothing that a rollback is for: two releases that change
# the check alone would leave none with the containerd from before. There the kept sets learn what those files were.
# Each line may be the last one before a power cut: the next run goes on from there.
keep_sets() {
    if [ "$(cat "$committed")" = "rollback previous" ]; then
        extend "$state/previous.2"
        rm -rf "$state/previous"
    elif ! grep -q ^rollback "$committed" && slight; then
        extend "$state/previous.2" # first: where `previous` has to go, this is no longer asked
        extend "$state/previous"
        [ ! -e "$state/previous" ] || return 0 # `tidy` removes what was saved
    elif [ -e "$state/previous" ]; then
        extend "$state/previous"
        rm -rf "$state/previous.2"
        [ ! -e "$state/previous" ] || mv "$state/previous" "$state/previous.2"
    fi
    mv "$back" "$state/previous"
}

# Whether the change put there again what the one before had: somebody had edited or removed it by hand. In a set, that
# edit would come back with programs that never ran with it.
repaired() { # target
    record=$(saved_record) && [ -n "$record" ] && sum=$(recorded "$back/$record" "$1") && [ -n "$sum" ] &&
        [ "$sum" = "$(recorded "$state/manifest" "$1")" ] && # before the digest of a large file
        seen=$(sha256sum "$1" 2>/dev/null) && [ "${seen%% *}" = "$sum" ]
}
# So no set has it: the text of an edit is in STATE/replaced. Where this is cut, it is done again.
forget_repaired() {
    while IFS="$tab" read -r kind name detail; do
        # A link is no edit: take_away of previous.sh leaves it, to what may be the same program.
        case $kind in put | absent) [ -L "$back/$detail" ] || ! repaired "$name" || continue ;; esac
        printf '%s\t%s\t%s\n' "$kind" "$name" "$detail" || return
    done <"$back/restore" >"$back/restore.new" && sync "$back/restore.new" &&
        mv -f "$back/restore.new" "$back/restore" && sync "$back"
}

# Whether the change touched no program, unit or config of containerd: only the check, the record of it, and what stays
# in a rollback anyway.
slight() {
    while IFS="$tab" read -r kind name _; do
        case $kind:$name in
            active:* | healthy:* | directory:* | user:*) ;;
            put:"$state/manifest" | absent:"$state/manifest") ;;
            put:/usr/local/libexec/userns-node/check | absent:/usr/local/libexec/userns-node/check) ;;
            put:"$units/userns-node-check.service" | absent:"$units/userns-node-check.service") ;;
            put:/etc/subuid | absent:/etc/subuid | put:/etc/subgid | absent:/etc/subgid) ;;
            put:/etc/sysctl.d/90-userns-node.conf | absent:/etc/sysctl.d/90-userns-node.conf) ;;
            *) return 1 ;;
        esac
    done <"$back/restore"
}

# The change touched more than what this kept set names: there the set is as STATE/undo. One that could not be made
# whole would bring back a mixture, so that it goes.
extend() { # set
    [ -e "$1/restore" ] || { rm -rf "$1" && return 0; }
    number=$(find "$1" -name '[0-9]*' | sed 's,.*/,,' | sort -n | tail -n 1)
    number=${number:-0} list=$1/restore.new broken=no
    cp "$1/restore" "$list" && while IFS="$tab" read -r kind name detail; do
        case $kind in
            put | absent) listed put absent ;;
            hold | unhold) listed hold unhold ;;
            enabled | disabled) listed enabled disabled ;;
            package) listed package package ;;
            *) true ;;
        esac && continue
        if [ "$kind" = put ]; then
            number=$((number + 1))
            rm -f "$1/$number"
            ln -P "$back/$detail" "$1/$number" 2>/dev/null || cp -pP "$back/$detail" "$1/$number" || broken=yes
            detail=$number
        fi
        printf '%s\t%s\t%s\n' "$kind" "$name" "$detail" >>"$list" || broken=yes
    done <"$back/restore" && [ $broken = no ] &&
        { grep "^package$tab" "$list"; grep -v "^package$tab" "$list"; } >"$list.new" && # packages bring files
        sync "$list.new" && mv -f "$list.new" "$1/restore" && rm -f "$list" && sync "$1" || rm -rf "$1"
}
listed() { # kind kind: whether the list has $name as either
    grep -qF -e "$1$tab$name$tab" -e "$2$tab$name$tab" "$list"
}

# --- to an older containerd --------------------------------------------------------------------------------------

# What an older containerd could not talk to, once more: under the lock, and then with no containerd that could start
# another one.
no_tasks() {
    # shellcheck disable=SC2046 # numbers
    running=$(shims /proc $(processes /proc | sed -n 's/ containerd-shim.*//p') | sort | uniq -c)
    [ -z "$running" ] || {
        # shellcheck disable=SC2086 # on one line
        running=$(echo $running)
        return 1
    }
}
refuse_tasks() { # before anything is touched
    no_tasks || die "tasks run here that the older containerd could not talk to ($running); nothing was changed"
}
stop_for_older() {
    phase=restart
    timeout -s KILL 180 systemctl stop $service 2>/dev/null # which fails where there is none yet
    ! systemctl is-active --quiet $service || give_up "$service could not be stopped"
    no_tasks || give_up "tasks run here that the older containerd could not talk to ($running)"
}

# --- bringing back -----------------------------------------------------------------------------------------------

back_lines() { sed -n "s/^back$tab//p" "$stage/actions"; }

save_line() { # kind name: what is there now instead
    case $1 in
        put | absent) save "$2" ;;
        package) save_package "$2" ;;
        hold | unhold) if apt-mark showhold "$2" | grep -qx "$2"; then note hold "$2"; else note unhold "$2"; fi ;;
        enabled | disabled) if systemctl is-enabled --quiet "$2" 2>/dev/null; then note enabled "$2"; else note disabled "$2"; fi ;;
    esac
}
save_for_rollback() {
    open_undo && save "$state/manifest" && while IFS="$tab" read -r kind name _; do
        save_line "$kind" "$name" </dev/null 9>&- || return 1
    done <"$stage/restore" && close_undo
}

# A program that was cut short in the set, or is another one. A text may be another: somebody had edited it, and it ran.
refuse_damaged() {
    record=$(saved_record "$state/$set")
    [ -n "$record" ] || return 0
    while IFS="$tab" read -r kind name detail; do
        [ "$kind" = put ] && grep -q "^program$tab$name$tab" "$state/$set/$record" || continue
        seen=$(sha256sum "$state/$set/$detail" 2>/dev/null)
        [ "${seen%% *}" = "$(recorded "$state/$set/$record" "$name")" ] || cmp -s "$state/$set/$detail" "$name" ||
            die "$state/$set/$detail is not the $name that the record of this set names (cut short, or another one); nothing was changed, deploy the wanted versions instead"
    done <"$stage/restore"
}

# The record comes back with the set, but for what was left as it is.
settle_manifest() {
    now=$(saved_record)
    sed -n "s/^stays$tab//p" "$stage/actions" >"$stage/stay"
    true >"$stage/now" && true >"$stage/then" || return 1
    [ -z "$now" ] || cp "$back/$now" "$stage/now" || return 1
    [ ! -e "$state/manifest" ] || cp "$state/manifest" "$stage/then" || return 1
    awk -F '\t' 'FILENAME == ARGV[1] { stays[$1]; next } $1 == "unfinished" { next }
        $1 == "kubelet" { if (FILENAME == ARGV[2]) print; next }
        FILENAME == ARGV[2] ? $2 in stays : !($2 in stays)' "$stage/stay" "$stage/now" "$stage/then" |
        sort >"$stage/manifest" || return 1
    if [ -s "$stage/manifest" ]; then replace "$state/manifest" <"$stage/manifest"; else rm -f "$state/manifest"; fi
}

roll_back() {
    # Not "run again": where that run was a rollback too, a second one would take it back.
    stale="another run changed this node since the plan was made; look first what would come back now (--dry): a second previous_set goes forward again"
    take_lock
    while IFS="$tab" read -r kind a b _; do
        case $kind in
            expect) expect_record "$a" ;;
            rollback) set=$a digest=$b ;;
            health) ctr=$a snapshotter=$b ;;
            no-tasks) needs_no_tasks=yes ;;
        esac
    done <"$stage/actions"
    started=$(date +%s)
    note_dependents
    if [ "$set" = undo ]; then
        [ -e "$mark" ] && [ -e "$back/restore" ] || die "$stale"
        [ $needs_no_tasks = no ] || refuse_tasks
        trap '' INT HUP TERM
        phase=restart
        go_back && exit 0
        exit 1
    fi
    [ -e "$mark" ] || tidy || die "$stale" # which may move the sets
    seen=$(sha256sum "$state/$set/restore" 2>/dev/null)
    [ "${seen%% *}" = "$digest" ] || die "$stale"
    back_lines >"$stage/restore"
    refuse_damaged
    [ $needs_no_tasks = no ] || refuse_tasks
    save_for_rollback || die "could not save what is there now (is there space on $state?); nothing was changed"
    trap '' INT HUP TERM
    change="rollback $set" undo_is="the set from before the rollback"
    begin || give_up "could not write to $state and $units"
    [ $phase = restart ] || phase=swap
    [ $needs_no_tasks = no ] || stop_for_older
    restore "$stage/restore" "$state/$set" || give_up "not all of the kept set could be brought back"
    settle_manifest || give_up "the record could not be written"
    [ -x "$ctr" ] || ctr=ctr
    restart_containerd || give_up "$service did not start with the kept set"
    healthy 60 || give_up "containerd is not healthy with the kept set: $why"
    start_dependents
    sync "$state"
    commit || [ ! -e "$mark" ] || give_up "the rollback could not be committed"
    refresh_manifest # its programs were links into a set that is gone
    check_anew
    say "done: the kept set is back, and containerd runs it"
}
