#!/bin/bash
# Makes what a release's page offers, in .run/release/files: the project with all images fixed by digest, the images' SBOMs and
# digests, and checksums; beside it notes.md. The same commit and the same images give the same files, byte for byte.
# usage: release/files.sh REGISTRY VERSION DIGESTS      in the project, at the tag vVERSION
set -euo pipefail # what the first part of a pipe did not write would be missing in an archive with good checksums
registry=$1 version=$2 digests=$3
python=${PYTHON:-python3}
name=shop-$version
made=.run/release
files=$made/files
epoch=$(git log -1 --format=%ct)

rm -rf "${made:?}/$name" "$files"
mkdir -p "$files"
git archive --prefix="$name/" HEAD | tar -x -C "$made"
"$python" -m release.pin "$made/$name" "$registry" "$version" "$digests"
tar --sort=name --mtime="@$epoch" --owner=0 --group=0 --numeric-owner --mode=u+rwX,go=rX -C "$made" -c "$name" | gzip -n >"$files/$name.tar.gz"
rm -rf "${made:?}/$name"

cp "$digests" "$files/digests.json"
"$python" -m release.sboms "$registry" "$digests" "$files"
"$python" -m release.changes "v$version" >"$made/notes.md"
(cd "$files" && find . -type f | LC_ALL=C sort | xargs sha256sum) >"$made/sha256sums.txt"
mv "$made/sha256sums.txt" "$files"
ls -R "$files"
