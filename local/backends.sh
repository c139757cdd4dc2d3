#!/bin/sh
# Takes Jaeger, the Collector, Loki and Prometheus out of the images that Compose names, and prints the folder that they
# are in: the tests' BACKEND_BINARIES. Needs Docker, which pulls what it has not.
# usage: local/backends.sh FOLDER
set -eu
folder=$1
mkdir -p "$folder"

image() { # of a repository's name: the one with the tag
    found=$(sed -n "s|^ *image: \($1:.*\)|\1|p" docker-compose.observability.yml | head -n 1)
    [ -n "$found" ] || { echo "docker-compose.observability.yml names no image $1." >&2; exit 1; }
    echo "$found"
}

take() { # out of an image, the program at a path, under a name
    container=$(docker create "$1")
    # To a name of its own first: what is cut off must not pass for a program.
    docker cp --quiet --follow-link "$container:$2" "$folder/.$3.new" || { docker rm "$container" >/dev/null; exit 1; }
    docker rm "$container" >/dev/null
    chmod 755 "$folder/.$3.new"
    mv "$folder/.$3.new" "$folder/$3"
}

started() { # what an image starts
    docker image inspect "$1" >/dev/null 2>&1 || docker pull --quiet "$1" >/dev/null
    docker image inspect --format '{{index .Config.Entrypoint 0}}' "$1"
}

for each in jaeger=jaegertracing/jaeger otelcol=otel/opentelemetry-collector-contrib loki=grafana/loki prometheus=prom/prometheus; do
    from=$(image "${each#*=}")
    program=$(started "$from")
    take "$from" "$program" "${each%%=*}"
    [ "${each%%=*}" != prometheus ] || take "$from" "$(dirname "$program")/promtool" promtool
done
echo "$folder"
