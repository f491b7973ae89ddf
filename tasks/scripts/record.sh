# record.sh: what the record of a change says, on the node and in a kept set: for the change-over, and for the reading of the
# sets. Functions only; $state and $back are those of whoever calls them.

saved_record() { # the number of it in a set, of $back without an argument; nothing where there was none
    awk -F '\t' -v manifest="$state/manifest" '$1 == "put" && $2 == manifest { print $3 }' "${1:-$back}/restore"
}
recorded() { # record target: the digest of what a change had put there, nothing where none had
    awk -F '\t' -v target="$2" '$2 == target { if ($1 == "program") print $5; if ($1 == "file") print $3 }' "$1" 2>/dev/null
}
