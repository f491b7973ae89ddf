# options.sh: what the command line of containerd says of its configuration. Functions only: for the node script, and for the
# check that stays on the node.

# options WORD...: in $config_option and $root_option, what a command line gives it. Nothing else of it is kept: it may
# hold a secret.
options() {
    config_option="" root_option="" last=""
    for word do
        case $word in -*=*) last=${word%%=*} word=${word#*=} ;; esac
        word=${word#[\"\']}
        word=${word%[\"\']}
        case $last in
        -c | -config | --config) config_option=$word ;;
        -root | --root) root_option=$word ;;
        esac
        last=$word
    done
}

# options_of SHOWN: of what `systemctl show` says of its units, of which containerd.service is the first. That is what
# systemd starts, with what drop-ins make of it.
options_of() {
    line=${1%%"$newline$newline"*}
    case $line in
    *"argv[]="*) line=${line#*"argv[]="} ;;
    *) line="" ;;
    esac
    set -f
    # shellcheck disable=SC2086 # to split it is the purpose
    options ${line%%" ;"*}
    set +f
}
