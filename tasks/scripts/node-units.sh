# node-units.sh: the units of systemd that concern us, as records. Functions only, called by node.sh, which has the
# helpers that they use.

units="containerd.service docker.service kubelet.service podman.socket crio.service k3s.service k3s-agent.service
rke2-server.service rke2-agent.service snap.microk8s.daemon-kubelite.service nodeadm-run.service
userns-node-check.service"

# Where systemd looks for the file of a unit (systemd.unit(5)).
unit_directories="etc/systemd/system.control run/systemd/system.control run/systemd/transient run/systemd/generator.early
etc/systemd/system etc/systemd/system.attached run/systemd/system run/systemd/system.attached run/systemd/generator
usr/local/lib/systemd/system usr/lib/systemd/system lib/systemd/system run/systemd/generator.late"

# Sets $known_units. systemd searches for each unit that it is asked about, which takes most of its time, and there are
# ten container runtimes of which a node has one. Of containerd and the kubelet it may know more than there are files.
know_units() {
    known_units=""
    for name in $units; do
        for directory in $unit_directories; do
            case $name in containerd.service | kubelet.service) break ;; esac
            [ ! -e "$directory/$name" ] && [ ! -h "$directory/$name" ] || break
            directory=""
        done
        # One whose file is gone while it runs.
        [ ! -d "sys/fs/cgroup/system.slice/$name" ] || directory=/
        [ -z "$directory" ] || known_units="$known_units $name"
    done
}

read_units() {
    know_units
    # shellcheck disable=SC2086 # a list
    set -- $known_units
    if [ -d run/systemd/system ] && have systemctl; then
        line=$(systemctl --version) # asks nobody
        record systemd "${line%%"$newline"*}"
        # Without an answer nothing is known of them, and that is not the same as that they are not there.
        shown=$(limit 30 systemctl show --no-pager \
            --property=LoadState,ActiveState,SubState,UnitFileState,FragmentPath,ExecStart "$@") || {
            record no-units "systemctl show ended with $? (124: no answer within 30 s)"
            return
        }
        printf '%s\n' "$shown" |
            while IFS= read -r line; do
                case $line in
                "") shift ;;
                ExecStart=*path=*) # its arguments may hold a secret
                    line=${line#*path=}
                    record unit "${1-}" ExecStart "${line%% ;*}"
                    ;;
                *=*)
                    record unit "${1-}" "${line%%=*}" "${line#*=}"
                    case ${1-}:$line in
                    containerd.service:FragmentPath=/*) read_unit_settings "${line#FragmentPath=/}" ;;
                    esac
                    ;;
                esac
            done
        return
    fi
    for name do # no systemd runs here: what its files say
        for directory in etc/systemd/system run/systemd/system usr/local/lib/systemd/system usr/lib/systemd/system \
            lib/systemd/system; do
            file=$directory/$name
            [ -e "$file" ] || [ -h "$file" ] || continue
            record unit "$name" FragmentPath "/$file"
            if [ ! -f "$file" ] || [ ! -s "$file" ]; then
                record unit "$name" LoadState masked
                break
            fi
            record unit "$name" LoadState loaded
            while read -r line || [ -n "$line" ]; do
                case $line in
                ExecStart=?*)
                    line=${line#ExecStart=}
                    record unit "$name" ExecStart "${line%% *}"
                    ;;
                esac
            done <"$file"
            [ "$name" != containerd.service ] || read_unit_settings "$file"
            line=disabled
            for file in etc/systemd/system/*.wants/"$name"; do
                [ ! -h "$file" ] || line=enabled
            done
            record unit "$name" UnitFileState "$line"
            break
        done
    done
}

# Sets $drop_ins: those that systemd reads with containerd.service, by line. Each hides those of its name that come later
# (systemd.unit(5)).
find_drop_ins() {
    drop_ins="" hidden=/
    for kind in containerd.service.d service.d; do
        for directory in $unit_directories; do
            for file in "$directory/$kind"/*.conf; do
                case $hidden in *"/${file##*/}/"*) continue ;; esac
                hidden=$hidden${file##*/}/
                [ ! -f "$file" ] || [ ! -r "$file" ] || drop_ins=$drop_ins$newline$file
            done
        done
    done
}

# read_unit_settings FILE: what containerd.service's own file sets and ours would not, unless a drop-in sets it again: those
# stay. Nothing of a file that a deploy wrote. By awk: systemd has a syntax of its own for quotes and joined lines.
read_unit_settings() {
    [ -f "$1" ] && [ -r "$1" ] && have awk || return 0
    case $1:$digests in
    "etc/systemd/system/containerd.service:"*"$newline$recorded_unit  $1$newline"*) return 0 ;;
    esac
    set -- "./$1"
    set -f
    IFS=$newline
    for file in $drop_ins; do set -- "$@" "./$file"; done
    unset IFS
    set +f
    awk "$read_unit_awk" "$@"
}

# Of a variable its name alone: the value may be a proxy with its password. Where the text does not look like variables,
# the rest of it is passed over, so that no part of a value is taken for a name. \047 is the single quote.
read_unit_awk='
function give(kind, what, i) {
    gsub(/[^ -~]/, "?", what)
    what = substr(what, 1, 500)
    for (i = 1; i <= count; i++)
        if (found[i] == kind "\t" what || ((what == "" || kind == "LimitNOFILE") && index(found[i], kind "\t") == 1)) found[i] = ""
    if (FILENAME == ARGV[1] && what != "" && count < 200) found[++count] = kind "\t" what
}
function variables(text, quote, name) {
    for (;;) {
        sub(/^[ \t]+/, "", text)
        quote = ""
        if (text ~ /^["\047]/) {
            quote = substr(text, 1, 1)
            text = substr(text, 2)
        }
        if (!match(text, /^[A-Za-z_][A-Za-z0-9_]*=/)) return
        name = substr(text, 1, RLENGTH - 1)
        text = substr(text, RLENGTH + 1)
        give("Environment", name)
        for (;;) {
            if (quote == "\"") {
                if (!match(text, /^([^"\\]|\\.)*"/)) return
            } else if (quote != "") {
                if (!match(text, /^([^\047\\]|\\.)*\047/)) return
            } else match(text, /^([^ \t"\047\\]|\\.)*/)
            text = substr(text, RLENGTH + 1)
            quote = quote == "" ? substr(text, 1, 1) : ""
            if (quote != "" && quote != "\"" && quote != "\047") break
            if (quote != "") text = substr(text, 2)
            if (text == "" && quote == "") return
        }
    }
}
function setting(line, name) {
    if (line ~ /^\[/) section = line
    if (section !~ /^\[Service\]/ || !match(line, /^[A-Za-z]+[ \t]*=[ \t]*/)) return
    name = substr(line, 1, RLENGTH)
    line = substr(line, RLENGTH + 1)
    sub(/[ \t]*=.*/, "", name)
    sub(/[ \t\r]+$/, "", line)
    if (name == "Environment" && line != "") variables(line)
    else if (name ~ /^(LimitNOFILE|Environment|EnvironmentFile)$/) give(name, line)
}
FNR == 1 { section = joined = "" }
{
    sub(/^[ \t]+/, "")
    if (/^[#;]/) next
    joined = joined $0
    if (sub(/\\$/, " ", joined)) next
    setting(joined)
    joined = ""
}
END {
    for (i = 1; i <= count; i++) if (found[i] != "") print "unit-setting\t" found[i]
}
'
