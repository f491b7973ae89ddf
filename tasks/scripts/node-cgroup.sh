# node-cgroup.sh: the cgroup driver of containerd's own configuration, as a record. Functions only, called by
# node-kubelet.sh and node-configuration.sh.

# read_cgroup_driver KUBELET_ROOT: what containerd has for a kubelet that works. One that has not come so far as to make
# the directory of its pods, as before it joins a cluster, is to ask, or to be told, yet.
read_cgroup_driver() {
    [ -d "$1/pods" ] || return 0
    find_config
    if [ ! -e "$toml" ]; then
        record cgroup-driver cgroupfs # containerd's default: no drop-in is read where no config.toml imports it
        return
    fi
    [ -f "$toml" ] && [ -r "$toml" ] && have awk || return 0
    find_imports
    set -- "$toml"
    IFS=$newline
    for each in $imports; do # patterns become names here
        [ ! -f "$each" ] || [ ! -r "$each" ] || set -- "$@" "$each"
    done
    unset IFS
    record cgroup-driver "$(awk "$read_toml_awk$cgroup_driver_awk" "$@")"
}

# Sets $toml to the file that the unit's containerd was started with, as Flatcar's is with one of its own. Once: both who
# ask pay for a process otherwise.
find_config() {
    [ -z "${toml-}" ] || return 0
    toml=./etc/containerd/config.toml
    for process in $containerds_run; do
        of_the_service "proc/$process" || continue
        set -f
        IFS=$newline
        # shellcheck disable=SC2046 # a word a line
        options $(tr "\0" "\n" <"proc/$process/cmdline")
        unset IFS
        set +f
        case $config_option in /*) toml=.$config_option ;; esac
    done
}

# Sets $imports to the files that $toml imports, a pattern a line, as they are to be found from here.
find_imports() {
    imports="" listed=no count=0
    while [ "$count" -lt 5000 ] && { read -r line || [ -n "$line" ]; }; do
        count=$((count + 1))
        case $listed:$line in
        no:"["*) return ;; # the first table: from here on it would be a key of that
        no:imports=* | no:imports[[:blank:]]*=*) listed=yes line=${line#*=} ;;
        no:*) continue ;;
        esac
        while [ -n "$line" ]; do
            case $line in
            \"*\"* | \'*\'*)
                each=${line#?}
                line=${each#*[\"\']} each=${each%%[\"\']*}
                case $each in
                /*) imports=$imports.$each$newline ;;
                *) imports=$imports${toml%/*}/$each$newline ;;
                esac
                ;;
            "]"*) return ;;
            "#"*) break ;;
            *) line=${line#?} ;;
            esac
        done
    done <"$toml"
}

# What CRI answers (containerd internal/cri/server/runtime_config_linux.go): by the default handler, else by the first
# one by name that runc's options are for. runc is there without being named, and has options. A drop-in stays where it
# is while config.toml is replaced: systemd in either is no change to systemd.
cgroup_driver_awk='
function quoted(said) {
    return said ~ /^["\047]/ ? substr(said, 2, length(said) - 2) : ""
}
function usable(name) {
    return (name in options) && (type[name] == "" || type[name] == "io.containerd.runc.v2")
}
function on(name, first) {
    if (usable(chosen)) return options[chosen]
    for (name in options) if (usable(name) && (first == "" || name < first)) first = name
    return first != "" && options[first]
}
function opened(path) {
    if (path != header) found(path, "")
}
function found(path, said, part) {
    if (path == "version") version = said + 0
    if (path !~ /^plugins\t/) return
    # What CRI was called until version 2; from then on containerd looks there for the streaming server alone.
    if (version >= 3 && path ~ /^plugins\tio[.]containerd[.]grpc[.]/) return
    if (path ~ /\tcontainerd\tdefault_runtime_name$/) chosen = quoted(said)
    if (!match(path, /\tcontainerd\truntimes\t/)) return
    split(substr(path, RSTART + RLENGTH), part, "\t")
    if (part[2] == "runtime_type") type[part[1]] = quoted(said)
    if (part[2] != "options") return
    options[part[1]] += 0
    if (part[3] == "SystemdCgroup") options[part[1]] = said == "true"
}
BEGIN {
    chosen = "runc"
    options["runc"] = 0
    for (each = 1; each < ARGC; each++) {
        file = ARGV[each]
        version = 0
        read_toml()
        close(file)
        any += on()
    }
    print any ? "systemd" : "cgroupfs"
}'
