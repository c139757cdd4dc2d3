#!/bin/sh
# Makes a kind cluster ready for `make test-kubernetes`: loads the images of `make images` into it, and installs a metrics-server,
# without which nothing scales. Needs kind, kubectl and Docker.
# usage: local/kind.sh CLUSTER
set -eu
cluster=$1
# Of metrics-server: the manifest of a release, and the image of its tag, on all platforms. Compare both with the release before the
# first run: they were taken from other projects.
version=v0.8.0
manifest=ff64d1a13b9ac3b0635f0dd985815fb44c23eed4706c04e5db1daadf6bc0a83b
image=registry.k8s.io/metrics-server/metrics-server@sha256:89258156d0e9af60403eafd44da9676fd66f600c7934d468ccc17e42b199aee2

images=$(docker images --format '{{.Repository}}:{{.Tag}}' 'shop/*:dev')
[ -n "$images" ] || { echo "There are no images: make images" >&2; exit 1; }
# shellcheck disable=SC2086  # one word for each image
kind load docker-image --name "$cluster" $images

folder=$(mktemp -d)
trap 'rm -r "$folder"' EXIT
curl --fail --silent --show-error --location --retry 3 --output "$folder/components.yaml" \
    "https://github.com/kubernetes-sigs/metrics-server/releases/download/$version/components.yaml"
echo "$manifest  $folder/components.yaml" | sha256sum --check --quiet
kubectl apply -f "$folder/components.yaml"
# The nodes of kind have certificates of their own making.
kubectl -n kube-system patch deployment metrics-server --type json -p '[
    {"op": "replace", "path": "/spec/template/spec/containers/0/image", "value": "'"$image"'"},
    {"op": "add", "path": "/spec/template/spec/containers/0/args/-", "value": "--kubelet-insecure-tls"}]'
kubectl -n kube-system rollout status deployment metrics-server --timeout 3m
