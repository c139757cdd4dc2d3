#!/bin/sh
# Starts Alertmanager, which takes no variables in its configuration: they are put in here.
#   ALERT_WEBHOOK_URL   where alerts are sent, as Alertmanager's webhook; empty: nowhere
# Arguments are Alertmanager's.
set -eu
folder=$(dirname "$0")
made=${ALERTMANAGER_MADE:-/tmp/alertmanager.yml}
if [ -n "${ALERT_WEBHOOK_URL:-}" ]; then
    url=$(printf '%s' "$ALERT_WEBHOOK_URL" | sed 's/[\\&|]/\\&/g')
    sed "s|http://webhook.invalid/|$url|" "$folder/alertmanager.yml" >"$made"
else
    sed '/^    webhook_configs:/,$d' "$folder/alertmanager.yml" >"$made"
fi
exec "${ALERTMANAGER:-alertmanager}" --config.file="$made" "$@"
