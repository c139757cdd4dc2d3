#!/bin/sh
# Makes or completes the virtual environment: venv.sh FOLDER REQUIREMENTS. PYTHON chooses the interpreter.
set -eu

folder=$1
requirements=$2
python=${PYTHON:-python3}

fail() {
    echo "$*" >&2
    exit 1
}

new_enough() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

# A folder whose pip does not run was left by an interrupted set-up, or its Python is gone.
if ! "$folder/bin/python" -m pip --version >/dev/null 2>&1 || ! new_enough "$folder/bin/python"; then
    command -v "$python" >/dev/null || fail "There is no $python: install Python 3.11 or newer, or name one with PYTHON=python3.12 make up."
    new_enough "$python" || fail "Python 3.11 or newer is needed, $python is $("$python" --version 2>&1): name another with PYTHON=python3.12 make up."
    "$python" -c 'import ensurepip, venv' 2>/dev/null || fail "$python lacks the module venv: install it (Debian, Ubuntu: sudo apt-get install python3-venv)."
    "$python" -m venv --clear "$folder"
fi

echo "Setting up Python packages of $requirements (once, about 20 s) ..."
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore PIP_NO_INPUT=1
"$folder/bin/python" -m pip install --quiet --require-hashes -r "$requirements" ||
    fail "The Python packages could not be installed: see above, then run the same command again."
