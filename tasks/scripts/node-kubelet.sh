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
    ! have awk || read_kubelet_files
}

# One awk for all of it, however many pods and mounts there are. It opens each file by itself, for a pod's may be gone
# by then, and not every awk goes on after that.
read_kubelet_files() {
    set -- ./etc/passwd ./etc/group "./$kubelet_root/config.yaml" ./proc/self/mountinfo "./$kubelet_root"/pods/*/userns
    # The kernel knows a mount by the directory's real name.
    kubelet_real=$(cd "./$kubelet_root" && pwd -P) || kubelet_real=/$kubelet_root
    kubelet_real=${kubelet_real#"$root"}
    for file do
        shift
        [ ! -f "$file" ] || [ ! -r "$file" ] || set -- "$@" "$file"
    done
    [ "$#" -eq 0 ] || KUBELET_ROOT="${kubelet_real%/}" CONFIG="./$kubelet_root/config.yaml" awk "$read_kubelet_awk" "$@"
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
    settings = split("cgroupDriver maxPods idsPerPod UserNamespacesSupport UserNamespacesStatelessPodsSupport", setting_names, " ")
    for (n = 1; n < ARGC; n++) {
        file = ARGV[n]
        text = ""
        for (lines = 0; lines < 100000 && (getline line < file) > 0; lines++) {
            if (file == "./etc/passwd") host_id("user", line)
            else if (file == "./etc/group") host_id("group", line)
            else if (file == ENVIRON["CONFIG"]) setting(line)
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
