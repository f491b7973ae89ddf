# node-kubelet.sh: what the kubelet finds on this node, as records. Functions only, called by node.sh, which has the
# helpers that they use.

read_sub_ids() {
    for name in subuid subgid; do
        [ -f "etc/$name" ] && [ -r "etc/$name" ] || continue
        while IFS= read -r line || [ -n "$line" ]; do
            hex=
            case $line in
            *[!\ -~]*) hex=$(printf %s "$line" | od -A n -v -t x1 | tr -d "\n") ;;
            esac
            # Other people's lines are written back as they were: none may lose a byte.
            if [ -n "$hex" ]; then record "$name" "$hex" hex; else record "$name" "$line"; fi
        done <"etc/$name"
    done
}

read_kubelet() {
    user_line=
    if have getent; then
        user_line=$(limit 2 getent passwd kubelet) || user_line=
    elif [ -r etc/passwd ]; then
        while read -r line || [ -n "$line" ]; do
            case $line in kubelet:*) user_line=$line ;; esac
        done <etc/passwd
    fi
    if [ -n "$user_line" ]; then
        record kubelet-user "$user_line"
        # As the kubelet asks. The answer need not come from the files: nsswitch.conf may name another source.
        if have getsubids; then
            ask_getsubids subuid
            ask_getsubids subgid -g
        fi
    fi
    ! have kubelet || record kubelet-version "$(limit 5 kubelet --version)" # a cold one reads 80 MB
    ! first_line sys/module/zfs/version || record zfs-version "$line"
    read_kubelet_flags
    ! have awk || read_kubelet_files
}

# Sets $kubelet_runs to the process of the node's kubelet, "" where there is none or that can't be told, and $words to its
# command line. Everybody may call a process so: it is root's, and neither an operator's nor one that only says its version.
find_kubelet() {
    kubelet_runs="" words="" several=no
    for process in $called_kubelet; do
        # shellcheck disable=SC3067 # dash and busybox know -O
        [ -O "proc/$process" ] && [ -r "proc/$process/cmdline" ] || continue
        line=$(tr "\0" "\n" <"proc/$process/cmdline")
        case $newline$line$newline in
        "$newline$newline" | *"$newline--version"* | *"$newline--help"* | *"$newline-h$newline"*) continue ;;
        esac
        case $(cat "proc/$process/cgroup") in
        */user.slice/*) continue ;;
        */kubelet.service*)
            kubelet_runs=$process words=$line several=no
            break
            ;;
        esac
        [ -z "$kubelet_runs" ] || several=yes
        kubelet_runs=$process words=$line
    done 2>/dev/null
    [ $several = no ] || kubelet_runs=""
}

# How that kubelet was started. Sets $kubelet_configs to the files of its configuration; a later one wins: --config, and
# then *.conf below --config-dir, in the order of Go's WalkDir. Without either it reads none. Flags win over all of them
# (kubernetes cmd/kubelet/app/server.go: mergeKubeletConfigurations, kubeletConfigFlagPrecedence). Where no kubelet runs,
# it is the file that kubeadm writes.
read_kubelet_flags() {
    kubelet_configs=""
    find_kubelet
    if [ -z "$kubelet_runs" ]; then
        add_config "./$kubelet_root/config.yaml"
        [ -z "$kubelet_configs" ] || read_cgroup_driver "./$kubelet_root"
        return
    fi
    config="" flag="" kubelet_dir=/var/lib/kubelet drop_ins=""
    # It may have a root directory of its own, in a container.
    if [ -d "proc/$kubelet_runs/root/" ]; then view=proc/$kubelet_runs/root; else view=.; fi
    set -f
    IFS=$newline
    # shellcheck disable=SC2086 # a word a line
    set -- $words
    unset IFS
    set +f
    for word do
        case $word in
        --*=*) flag=${word%%=*} word=${word#*=} ;;
        --*) # its value comes next, if it takes one
            flag=$word
            continue
            ;;
        esac
        case $word in
        /*) file=$view$word ;;
        *) file=proc/$kubelet_runs/cwd/$word ;;
        esac
        case $flag in
        --root[-_]dir) kubelet_dir=$word ;;
        --config) config=$file ;;
        --config[-_]dir) drop_ins=$file ;;
        --max[-_]pods) record kubelet-flag maxPods "$word" ;;
        --cgroup[-_]driver) record kubelet-flag cgroupDriver "$word" ;;
        --container[-_]runtime[-_]endpoint) record kubelet-flag containerRuntimeEndpoint "$word" ;;
        --feature[-_]gates) record kubelet-flag featureGates "$word" ;;
        --fail[-_]cgroupv1) record kubelet-flag failCgroupV1 "$word" ;;
        esac
        flag=""
    done
    [ -z "$config" ] || add_config "$config"
    drop_ins_seen=0
    [ -z "$drop_ins" ] || [ -L "$drop_ins" ] || add_drop_ins "$drop_ins" # WalkDir follows no link
    # It may not have made its root yet.
    # shellcheck disable=SC3013 # dash and busybox know -ef
    if [ -e "$view$kubelet_dir" ]; then
        [ "$view$kubelet_dir" -ef "./$kubelet_root" ]
    else
        [ "${kubelet_dir%/}" = "/${kubelet_root%/}" ]
    fi && same=yes || same=no
    record kubelet-root "$kubelet_dir" "$same"
    read_cgroup_driver "$view$kubelet_dir"
}
add_config() { [ ! -f "$1" ] || [ ! -r "$1" ] || kubelet_configs=$kubelet_configs$1$newline; }
add_drop_ins() { # directory. Not without end, should it be a wrong one
    for each in "$1"/.[!.]* "$1"/*; do
        drop_ins_seen=$((drop_ins_seen + 1))
        [ "$drop_ins_seen" -le 1000 ] || return 0
        if [ -d "$each" ] && [ ! -L "$each" ]; then
            add_drop_ins "$each"
        else
            case $each in *.conf) add_config "$each" ;; esac
        fi
    done
}

# One awk for all of it, however many pods and mounts there are. It opens each file by itself, for a pod's may be gone
# by then, and not every awk goes on after that.
read_kubelet_files() {
    set -- ./etc/passwd ./etc/group ./proc/self/mountinfo "./$kubelet_root"/pods/*/userns
    # The kernel knows a mount by the directory's real name.
    kubelet_real=$(cd "./$kubelet_root" && pwd -P) || kubelet_real=/$kubelet_root
    kubelet_real=${kubelet_real#"$root"}
    for file do
        shift
        [ ! -f "$file" ] || [ ! -r "$file" ] || set -- "$@" "$file"
    done
    [ -z "$kubelet_configs$*" ] || KUBELET_ROOT="${kubelet_real%/}" CONFIGS=$kubelet_configs awk "$read_kubelet_awk" "$@"
}

# mountinfo writes a blank, a tab, a newline and a backslash as three octal digits (proc(5)).
read_kubelet_awk='
function clean(text) {
    gsub(/[^ -~]/, "?", text)
    return substr(text, 1, 500)
}
function number_after(text, name) {
    if (!match(text, "\"" name "\"[ ]*:[ ]*[0-9]+")) return ""
    text = substr(text, RSTART, RLENGTH)
    sub(/^.*:[ ]*/, "", text)
    return substr(text, 1, 10)
}
function host_id(kind, line, fields) {
    if (split(line, fields, ":") < 3 || fields[3] !~ /^[0-9]+$/ || length(fields[3]) > 10 || fields[3] + 0 < 65536) return
    if (++ids[kind] <= 200) {
        print "host-ids\t" kind "\t" clean(fields[1]) "\t" fields[3] "\t" fields[3] "\t1"
        return
    }
    if (!(kind in more) || fields[3] + 0 < lowest[kind] + 0) lowest[kind] = fields[3]
    if (!(kind in more) || fields[3] + 0 > highest[kind] + 0) highest[kind] = fields[3]
    more[kind]++
}
function setting(line, name, n) {
    sub(/#.*/, "", line)
    for (n = 1; n <= settings; n++) {
        name = setting_names[n]
        if (!match(line, "(^|[^A-Za-z])" name "\"? *: *\"?[A-Za-z0-9]+")) continue
        line_part = substr(line, RSTART, RLENGTH)
        sub(/^.*[^A-Za-z0-9]/, "", line_part)
        print "kubelet-config\t" name "\t" line_part
    }
    if (match(line, "(^|[^A-Za-z])containerRuntimeEndpoint\"? *: *[^ ,}]+")) {
        line_part = substr(line, RSTART, RLENGTH)
        sub(/^[^:]*: */, "", line_part)
        gsub(/["\047\r]/, "", line_part)
        print "kubelet-config\tcontainerRuntimeEndpoint\t" clean(line_part)
    }
}
function mount(line, fields, count, n, path) {
    count = split(line, fields, " ")
    path = fields[5]
    if (index(path, "\\")) {
        gsub(/\\040/, " ", path)
        gsub(/\\011/, "\t", path)
        gsub(/\\012/, "\n", path)
        gsub(/\\134/, "\\", path)
    }
    # The root itself, or its pods, is probed. So is tmpfs, which every pod has one of.
    if (root == "" || index(path, root "/") != 1 || path == root "/pods") return
    for (n = 7; n < count; n++) if (fields[n] == "-") break
    if (!(path in type)) paths[++mounts] = path
    type[path] = fields[n + 1]
}
BEGIN {
    root = ENVIRON["KUBELET_ROOT"]
    settings = split("cgroupDriver maxPods idsPerPod failCgroupV1 UserNamespacesSupport UserNamespacesStatelessPodsSupport", setting_names, " ")
    files = split(ENVIRON["CONFIGS"], configs, "\n")
    for (n = 1; n < files; n++) {
        for (lines = 0; lines < 100000 && (getline line < configs[n]) > 0; lines++) setting(line)
        close(configs[n])
    }
    for (n = 1; n < ARGC; n++) {
        file = ARGV[n]
        text = ""
        for (lines = 0; lines < 100000 && (getline line < file) > 0; lines++) {
            if (file == "./etc/passwd") host_id("user", line)
            else if (file == "./etc/group") host_id("group", line)
            else if (file == "./proc/self/mountinfo") mount(line)
            else if (length(text) < 2000) text = text " " line
        }
        close(file)
        if (text != "" && ++pods <= 500) {
            sub(/\/userns$/, "", file)
            sub(/^.*\//, "", file)
            print "pod-ids\t" clean(file) "\t" number_after(text, "hostId") "\t" number_after(text, "length")
        }
    }
    for (kind in more) print "host-ids\t" kind "\t\t" lowest[kind] "\t" highest[kind] "\t" more[kind]
    if (pods > 500) print "pods-untold\t" (pods - 500)
    for (n = 1; n <= mounts; n++) {
        name = type[paths[n]]
        if (name != "tmpfs" && ++counts[name] <= 200) print "kubelet-mount\t" clean(name) "\t" clean(paths[n])
    }
    for (name in counts) print "kubelet-mounts\t" clean(name) "\t" counts[name]
}'
