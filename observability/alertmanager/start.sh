#!/bin/sh
# Starts Alertmanager, which takes no variables in its configuration: they are put in here.
#   ALERT_WEBHOOK_URL   where alerts are sent, as Alertmanager's webhook; empty: nowhere
# A receivers.yml beside this file (receivers.example.yml shows one) goes before that: each of its sections takes the
# place of the one in alertmanager.yml.
# Arguments are Alertmanager's.
set -eu
folder=$(dirname "$0")
made=${ALERTMANAGER_MADE:-/tmp/alertmanager.yml}
own=$folder/receivers.yml
if [ -s "$own" ]; then
    [ -z "${ALERT_WEBHOOK_URL:-}" ] || echo "start.sh: receivers.yml counts, and ALERT_WEBHOOK_URL does not" >&2
    # A section begins with its name at the start of a line, and ends before the next.
    awk '
        FILENAME == ARGV[1] { if (match($0, /^[a-z_]+:/)) own[substr($0, 1, RLENGTH)] = 1; next }
        match($0, /^[a-z_]+:/) { skip = substr($0, 1, RLENGTH) in own }
        !skip
    ' "$own" "$folder/alertmanager.yml" >"$made"
    sed '/^---/d' "$own" >>"$made" # two documents would be one too many
elif [ -n "${ALERT_WEBHOOK_URL:-}" ]; then
    url=$(printf '%s' "$ALERT_WEBHOOK_URL" | sed 's/[\\&|]/\\&/g')
    sed "s|http://webhook.invalid/|$url|" "$folder/alertmanager.yml" >"$made"
else
    sed '/^    webhook_configs:/,$d' "$folder/alertmanager.yml" >"$made"
fi
exec "${ALERTMANAGER:-alertmanager}" --config.file="$made" "$@"
