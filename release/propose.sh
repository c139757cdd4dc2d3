#!/bin/sh
# Makes a pull request of changed lock files; one that is open gets them. .github/workflows/updates.yml runs it.
# usage: GH_TOKEN=... release/propose.sh RESULT        RESULT is success, if lint and tests passed with them
set -eu
result=$1
branch=updates/python
title="Take newer Python packages"

if git diff --quiet -- requirements; then
    echo "Nothing is newer."
    exit 0
fi
git config user.name "github-actions[bot]"
git config user.email "41898282+github-actions[bot]@users.noreply.github.com"
git checkout --quiet -B "$branch"
git commit --quiet --message "$title" -- requirements
git push --quiet --force "https://x-access-token:$GH_TOKEN@github.com/$GITHUB_REPOSITORY.git" "$branch"
body="\`make lock\`; \`make lint test\` with these versions: $result
(https://github.com/$GITHUB_REPOSITORY/actions/runs/$GITHUB_RUN_ID).

No other check runs by itself on a pull request of a workflow: close it and open it again."
if [ -n "$(gh pr list --head "$branch" --state open --json number --jq '.[].number')" ]; then
    gh pr edit "$branch" --body "$body"
else
    gh pr create --head "$branch" --base "${GITHUB_REF_NAME:-main}" --title "$title" --body "$body"
fi
