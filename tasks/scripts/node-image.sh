# node-image.sh: what an image is, as records: a root directory that will boot later. Functions only, called by node.sh,
# which has the helpers that they use. Nothing here asks the kernel that runs: it is the build host's.

# read_image MACHINE: in the place of read_kernel and read_overlay
read_image() {
    machine=$1 container=none kernel=none
    record image "$machine"
    [ -z "${SOURCE_DATE_EPOCH-}" ] || record image-epoch "$SOURCE_DATE_EPOCH"
    for file in "$state"/* "$state"/.[!.]*; do
        case ${file##*/} in
        manifest | image.json | image.cdx.json | replaced) ;;
        *) if [ -e "$file" ] || [ -L "$file" ]; then record image-leftover "${file##*/}"; fi ;;
        esac
    done
    user=$(id -u)
    record user "$user"
    seen=" "
    for directory in usr/lib/modules/* lib/modules/*; do
        kernel=${directory##*/}
        case $seen in *" $kernel "*) continue ;; esac # /lib is /usr/lib on most systems
        # What an upgrade or a driver left behind is no kernel.
        [ -e "$directory/modules.dep" ] || [ -e "$directory/modules.order" ] || [ -e "$directory/modules.builtin" ] || continue
        seen="$seen$kernel "
        read_image_kernel
    done
    ! have systemctl || record systemd "$(limit 5 systemctl --version | { read -r line && echo "$line"; })"
}

read_image_kernel() { # $kernel with its modules in $directory
    overlay="" config=""
    for file in "$directory/kernel/fs/overlayfs"/overlay.ko*; do
        [ ! -e "$file" ] || overlay=module
    done
    for file in "boot/config-$kernel" "$directory/config"; do
        [ -z "$config" ] && [ -f "$file" ] && [ -r "$file" ] && config=$file
    done
    if [ -z "$overlay" ] && [ -f "$directory/modules.builtin" ]; then
        overlay=absent
        ! grep -q "/overlay\.ko" "$directory/modules.builtin" || overlay=builtin
    fi
    record image-kernel "$kernel" "${overlay:-unknown}"
    [ -n "$config" ] || return 0
    for option in CONFIG_USER_NS CONFIG_OVERLAY_FS CONFIG_OVERLAY_FS_METACOPY; do
        line=$(grep -m 1 "^$option=" "$config") || line="$option=n"
        record image-config "$kernel" "$option" "${line#*=}"
    done
}
