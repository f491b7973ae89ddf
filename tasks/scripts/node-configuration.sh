# node-configuration.sh: other people's configuration on this node, as records. Functions only, called by node.sh, which
# has the helpers that they use.

# read_configuration KIND WORD DIRECTORY|FILE...: lines of the files *.conf that concern us. A file hides those of its
# name in later directories.
read_configuration() {
    kind=$1 word=$2 seen=/
    shift 2
    directories=$*
    set --
    for directory in $directories; do
        if [ -d "$directory" ] && [ -h "$directory" ]; then continue; fi # /lib is /usr/lib on most systems
        for file in "$directory" "$directory"/*.conf; do
            [ -f "$file" ] || continue
            case $seen in *"/${file##*/}/"*) continue ;; esac
            seen=$seen${file##*/}/
            if [ -r "$file" ]; then set -- "$@" "$file"; else record "$kind" "/$file" "# unreadable"; fi
        done
    done
    [ "$#" -gt 0 ] || return 0
    # One grep spares the slow reading of all of them where few concern us, as is usual.
    if have grep; then
        told=$newline$(grep -l -e "$word" -- "$@")$newline
        for file do
            case $told in *"$newline$file$newline"*) read_configuration_file ;; esac
        done
    else
        for file do read_configuration_file; done
    fi
}

read_configuration_file() {
    count=0
    # Without -r, read joins lines that end in a backslash, as kmod does.
    # shellcheck disable=SC2162
    while [ "$count" -lt 5000 ] && { read line || [ -n "$line" ]; }; do
        count=$((count + 1))
        case $kind:$line in
        modprobe:[abiors][a-z]*[[:blank:]]*overlay*) record "$kind" "/$file" "$line" ;;
        sysctl:user[./]max_user_namespaces* | sysctl:-user[./]max_user_namespaces* | \
            sysctl:kernel[./]yama[./]ptrace_scope* | sysctl:-kernel[./]yama[./]ptrace_scope*) record "$kind" "/$file" "$line" ;;
        esac
    done <"$file"
}

# The node's own configuration of containerd, of which the names of runtime handlers are told, and its drop-ins.
read_drop_ins() {
    set --
    file=etc/containerd/config.toml
    if [ -f "$file" ] && [ -r "$file" ]; then set -- "$file"; fi
    directory=etc/containerd/conf.d
    if [ ! -d "$directory" ]; then
        :
    elif [ ! -r "$directory" ] || [ ! -x "$directory" ]; then
        record drop-in "/$directory" unreadable
    else
        for file in "$directory"/*.toml; do
            [ -f "$file" ] || continue
            if [ ! -r "$file" ] || ! have awk; then
                record drop-in "/$file" unreadable
                continue
            fi
            record drop-in "/$file" readable
            set -- "$@" "$file"
        done
    fi
    [ "$#" = 0 ] || ! have awk || awk "$read_toml_awk$drop_ins_awk" "$@"
}

# As much of TOML as it takes to find each key in any spelling, inline tables too, and not within strings: read_toml()
# reads `file`, or standard input where that is "", and calls found(path, said) for each, with its value as it stands
# there ("?": a string of several lines, or what is no TOML), and opened(path) for each `header` and each empty inline table.
# Not on beyond 256 KiB. \047 is the single quote.
read_toml_awk='
function more() {
    if (size > 262144 || (file == "" ? (getline text) : (getline text < file)) <= 0) return 0
    text = substr(text, 1, 20000)
    size += length(text) + 1
    sub(/\r$/, "", text)
    return 1
}
function blanks() { sub(/^[ \t]+/, "", text) }
# A letter that is not printable ASCII becomes "?".
function unescaped(part, all, digits, number) {
    while (match(part, /\\./)) {
        all = all substr(part, 1, RSTART - 1)
        digits = substr(part, RSTART + 1, 1)
        part = substr(part, RSTART + 2)
        if (digits ~ /["\\]/) all = all digits
        else {
            digits = digits == "U" ? 8 : digits == "u" ? 4 : 0
            number = 0
            for (; digits > 0; digits--) {
                number = number * 16 + index("123456789abcdef", tolower(substr(part, 1, 1)))
                part = substr(part, 2)
            }
            all = all (number > 31 && number < 127 ? sprintf("%c", number) : "?")
        }
    }
    return all part
}
function keys(path, part, said) {
    for (;;) {
        blanks()
        if (match(text, /^[A-Za-z0-9_-]+/)) part = substr(text, 1, RLENGTH)
        else if (match(text, /^"([^"\\]|\\.)*"/) || match(text, /^\047[^\047]*\047/)) part = substr(text, 2, RLENGTH - 2)
        else return ""
        said = substr(text, 1, 1)
        text = substr(text, RLENGTH + 1)
        if (said == "\"" && part ~ /\\/) part = unescaped(part)
        gsub(/\t/, "?", part)
        if (part == "") part = "?"
        path = path (path == "" ? "" : "\t") part
        blanks()
        if (text !~ /^\./) return path
        text = substr(text, 2)
    }
}
function string(quote, said) {
    if (substr(text, 1, 3) != quote quote quote) {
        said = "?"
        if (!match(text, quote == "\"" ? "^\"([^\"\\\\]|\\\\.)*\"" : "^\047[^\047]*\047")) text = ""
        else {
            said = substr(text, 1, RLENGTH)
            text = substr(text, RLENGTH + 1)
        }
        return said
    }
    text = substr(text, 4)
    do {
        while (match(text, quote == "\"" ? "\\\\.|\"\"\"" : "\047\047\047")) {
            said = substr(text, RSTART, 1)
            text = substr(text, RSTART + RLENGTH)
            if (said != quote) continue
            while (substr(text, 1, 1) == quote) text = substr(text, 2)
            return "?"
        }
    } while (more())
    text = ""
    return "?"
}
function array(level, all, part, bad) {
    do {
        while (text == "" || text ~ /^#/) if (!more()) return "?"
        if (text ~ /^["\047]/) {
            part = string(substr(text, 1, 1))
            if (part == "?") bad = 1
        } else {
            if (!match(text, /^[^]["\047#]+/)) {
                RLENGTH = 1
                level += text ~ /^\[/ ? 1 : -1
            }
            part = substr(text, 1, RLENGTH)
            text = substr(text, RLENGTH + 1)
            gsub(/[ \t]/, "", part)
        }
        all = all part
    } while (level > 0)
    return bad ? "?" : all
}
function value(path, depth, said, name) {
    blanks()
    if (text ~ /^[{]/ && depth < 20) {
        text = substr(text, 2)
        for (;;) {
            blanks()
            if (sub(/^[}]/, "", text)) {
                if (name == "") opened(path)
                return
            }
            name = keys(path)
            if (name == "" || !sub(/^=/, "", text)) {
                text = ""
                return
            }
            value(name, depth + 1)
            blanks()
            sub(/^,/, "", text)
        }
    }
    if (text ~ /^\[/) said = array(0)
    else if (text ~ /^["\047]/) said = string(substr(text, 1, 1))
    else {
        match(text, /^[^ \t,}#]*/)
        said = substr(text, 1, RLENGTH)
        text = substr(text, RLENGTH + 1)
    }
    found(path, said)
}
function read_toml(path) {
    size = 0
    header = ""
    while (more()) {
        blanks()
        if (text == "" || text ~ /^#/) continue
        if (sub(/^\[\[?/, "", text)) {
            header = keys("")
            if (header == "" || text !~ /^\]/) header = "?"
            else opened(header)
        } else {
            path = keys(header)
            if (path != "" && sub(/^=/, "", text)) value(path, 0)
        }
    }
}
function plain(said) {
    gsub(/[^ -~]/, "?", said)
    return substr(said, 1, 1000)
}
# One name for all ids of CRI, and for a server of containerd in any version. What is below a table of registries is cut
# off: names of hosts.
function canonical(path) {
    if (path == "plugins\tio.containerd.cri.v1.runtime\tstats_collect_period") return path # images has one, too
    if (path ~ /^plugins\tio[.]containerd[.]server[.]v1[.](grpc|grpc-tcp|debug|metrics)\t/) {
        sub(/^plugins\tio[.]containerd[.]server[.]v1[.]/, "", path)
        sub(/^grpc-tcp\t/, "grpc\ttcp_", path)
    }
    sub(/^plugins\t(cri|io[.]containerd[.]grpc[.]v1[.]cri|io[.]containerd[.]cri[.]v1[.](images|runtime))\t/, "cri\t", path)
    if (path ~ /^cri\tcontainerd\t(snapshotter|disable_snapshot_annotations|discard_unpacked_layers)$/) sub(/\tcontainerd/, "", path)
    if (path == "cri\tsandbox_image") path = "cri\tpinned_images\tsandbox"
    return without_hosts(path)
}
function without_hosts(path) {
    if (match(path, /(^|\t)registry\t[^\t]*\t/)) path = substr(path, 1, RSTART + RLENGTH - 2)
    gsub(/[^ -~\t]/, "?", path)
    return substr(path, 1, 1000)
}
'

# What drop-ins open, or set above all tables: that is what userns/containerd/dropins.py goes by. Their keys, and of those
# that a setting of ours writes (userns/containerd/extraconfig.py, TAKEN and UNREAD) their values; of no other one: it may
# be a password.
drop_ins_awk='
function opened(path) {
    if (path !~ /^(plugins|root|state)(\t|$)/) return
    path = without_hosts(path)
    if (path !~ /^p/) sub(/\t.*/, "", path)
    if (file == config && !sub(/^plugins\t[^\t]+\tcontainerd\truntimes\t[^\t]+/, "&\n", path)) return
    sub(/\n.*/, "", path)
    if (((file, path) in tables) || ++opens > 2000) return
    tables[file, path]
    print "table\t/" plain(file) "\t" path
}
function found(path, said, table) {
    table = path
    if (header != "" && header != "plugins") sub(/\t[^\t]*$/, "", table)
    opened(table)
    if (file == config) return
    if (path == "version") {
        version = said + 0
        if (said ~ /^\+?[0-9][0-9A-Za-z_]*$/) print "drop-in-version\t/" plain(file) "\t" substr(said, 1, 20)
    }
    # Of the old id, of which only some keys count any more, each key is told, too.
    if (version > 2 && path ~ /^plugins\t(cri|io[.]containerd[.]grpc[.]v1[.]cri)\t[^\t]+$/) opened(path)
    # containerd 2.x reads under this id what its streaming server is told, and nothing else.
    if (version > 2 && path ~ /^plugins\tio[.]containerd[.]grpc[.]v1[.]cri\t/ && \
        path !~ /\t(disable_tcp_service|stream_[a-z_]*|enable_tls_streaming)$|\tx509_/) return
    if (++count <= 1000) print "drop-in-has\t/" plain(file) "\t" canonical(path)
    if (path ~ reserved) print "drop-in-key\t/" plain(file) "\t" substr(plain(said), 1, 500) "\t" path
}
BEGIN {
    reserved = "^grpc\taddress$|^plugins\tio[.]containerd[.](snapshotter[.]v1[.]overlayfs\t(slow_chown|root_path)|" \
        "cri[.]v1[.]images\t(snapshotter|sandbox_image|pinned_images\tsandbox)|cri[.]v1[.]runtime\t(snapshotter|" \
        "sandbox_image|systemd_cgroup|containerd\t(snapshotter|default_runtime|default_runtime_name|runtimes\t" \
        "(runc|crun)\t(runtime_type|runtime_path|snapshotter|options\t(BinaryName|SystemdCgroup)))))$"
    config = "etc/containerd/config.toml"
    for (each = 1; each < ARGC; each++) {
        file = ARGV[each]
        version = opens = 0
        read_toml()
        close(file)
    }
}
'

# After read_files. What a config.toml that is not as a deploy wrote it sets beside the defaults of its own containerd,
# which is asked for them: many a node has a file with all of them.
read_config_keys() {
    find_config
    [ -f "$toml" ] && [ -r "$toml" ] && have awk || return 0
    case $digests in *"$newline$recorded_config  ${toml#./}$newline"*) return 0 ;; esac
    for program in usr/local/bin/containerd usr/bin/containerd; do
        case $trusted in *" $program "*) break ;; esac
        program=""
    done
    { [ -z "$program" ] || limit 5 "./$program" config default 2>/dev/null; } |
        TOML=$toml awk "$read_toml_awk$config_keys_awk"
}

# Each key whose value is not the default, and a few whatever it is. Of these the value is told: a path, a name, true or
# false; of no other, for it may be a password. What has no default is one of another version: told where it is more
# than nothing.
config_keys_awk='
function opened(path) { return }
function found(path, said, name, usual, told) {
    name = canonical(path)
    gsub(/\047/, "\"", said)
    gsub(/,]/, "]", said)
    if (file == "") {
        default_of[name] = said
        known = 1
        return
    }
    usual = name in default_of ? said == default_of[name] : said ~ /^(""|"0s"|0|false|\[])$/
    # Not what lies below such a key, which is no table.
    told = name ~ /^(imports|state|grpc\taddress|disabled_plugins|cri\t(snapshotter|enable_cdi|enable_unprivileged_(ports|icmp)|pinned_images\tsandbox|registry\tconfig_path|cni\t(bin_dirs?|conf_dir)))$/ && \
        path !~ /\tconfig_path\t/
    if ((usual && !told) || name in seen || ++count > 200) return
    seen[name] = 1
    print "config-key\t" (usual ? "default" : known ? "set" : "unknown") "\t" (told ? plain(said) : "") "\t" name
}
BEGIN {
    read_toml()
    file = ENVIRON["TOML"]
    read_toml()
}
'

# Where the plugins of CNI are, if not where upstream's containerd looks for them: it needs "loopback" for each pod.
read_cni() {
    [ ! -e opt/cni/bin/loopback ] || return 0
    for path in usr/lib/cni usr/libexec/cni; do
        [ ! -e "$path/loopback" ] || record cni-plugins "/$path"
    done
}

# Whether the check's unit has left a file of metrics that it would write no more: see metrics.sh.
read_metrics() {
    if [ -n "$image" ] || ! first_line "$state/metrics" || [ ! -f "${line#/}" ] || ! have systemctl; then return; fi
    file=$line
    told=$newline$(limit 10 systemctl show --no-pager \
        --property=LoadState,Environment,EnvironmentFiles,PassEnvironment,ExecStart userns-node-check.service)$newline
    case $told in
    # Where it writes is not to be told from here.
    *EnvironmentFiles=/* | *PassEnvironment=*USERNS_NODE_METRICS* | *--metrics* | *[\"\']USERNS_NODE_METRICS=*) return ;;
    *"${newline}LoadState=loaded$newline"*) ;;
    *) return ;;
    esac
    case $told in
    *USERNS_NODE_METRICS=*)
        directory=${told#*USERNS_NODE_METRICS=}
        directory=${directory%%[!A-Za-z0-9/._-]*}
        case $told in
        *"USERNS_NODE_METRICS=$directory$newline"* | *"USERNS_NODE_METRICS=$directory "*) ;;
        *) return ;; # a name with what systemd quotes
        esac
        [ "$directory/userns_node.prom" != "$file" ] || return 0
        ;;
    esac
    record stale-metrics "$file"
}
