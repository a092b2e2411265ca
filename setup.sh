#!/bin/sh
# Install what gentrain needs: the libraries that FFCV is built with, a virtual environment, the package. Idempotent.
# EXTRAS: the package's extras, default dev (cluster nodes want others); PYTHON: the interpreter.
set -eu
venv=$1
python=${PYTHON:-python3}

have() { pkg-config --exists "$1" 2>/dev/null; }
headers() { "$python" -c 'import os, sysconfig, ensurepip; os.stat(sysconfig.get_paths()["include"] + "/Python.h")' 2>/dev/null; }

if ! command -v pkg-config >/dev/null 2>&1 || ! have opencv4 || ! have libturbojpeg || ! command -v g++ >/dev/null 2>&1 ||
    ! headers; then
    if command -v apt-get >/dev/null 2>&1; then
        echo "setup: installing libopencv-dev libturbojpeg0-dev pkg-config g++ (FFCV is built with them)"
        sudo=""
        [ "$(id -u)" = 0 ] || sudo="sudo"
        $sudo apt-get update -qq
        DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq --no-install-recommends \
            libopencv-dev libturbojpeg0-dev pkg-config g++ python3-dev python3-venv >/dev/null
    else
        echo "setup: no apt-get here: install OpenCV 4 and libjpeg-turbo (with headers and .pc files), pkg-config, a C++ compiler and Python's headers, then run make again" >&2
        exit 1
    fi
fi

[ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
"$venv/bin/python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "setup: $python is older than 3.11: run make PYTHON=python3.11 (or newer) after removing $venv" >&2
    exit 1
}
echo "setup: installing gentrain and what it needs into $venv (torch alone takes minutes the first time)"
# FFCV's own requirements name torch without a bound: ours come first, so that they decide the versions.
"$venv/bin/pip" install -q --disable-pip-version-check -e ".[${EXTRAS:-dev}]"
