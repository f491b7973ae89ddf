# text.sh PATH… : the text of each file as one base64 line, "-" where there is none, for a diff on the controller.
# Read once, when the operator asks for a diff and the digest differs; a file over 256 KiB is not a config file.
for path in "$@"; do
    if [ -f "$path" ] && [ -r "$path" ]; then
        printf '=' # which no shell has to have built in: the text may be secret, and no argument
        head -c 262144 "$path" | base64 | tr -d '\n'
        echo
    else
        echo -
    fi
done
