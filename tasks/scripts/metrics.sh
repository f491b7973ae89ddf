# metrics.sh: how the file of metrics goes that the check's unit wrote for node_exporter. Functions only, in the text of
# the check and in that of the change-over.

# forget_metrics RECORD: RECORD names the file. Nobody writes it any more, and a collector would tell for ever what it
# says. Only what begins like a check's metrics is removed: by now the name may be somebody else's.
forget_metrics() {
    metrics_file="" metrics_line=""
    ! { IFS= read -r metrics_file <"$1"; } 2>/dev/null || case $metrics_file in
    /*/userns_node.prom)
        ! { IFS= read -r metrics_line <"$metrics_file"; } 2>/dev/null || case $metrics_line in
        "# HELP userns_node_ready "*) rm -f "$metrics_file" || return 0 ;; # the record stays, for the next try
        esac
        ;;
    esac
    rm -f "$1"
}
