#!/bin/sh
# The steps of the Dockerfile: `build` makes /opt/gentrain, `run` adds what that needs at run time; for a cpu or a cuda image.
# TORCH_INDEX: where torch's wheels for CPUs come from; PyPI's are for CUDA and bring its libraries.
set -eu
stage=$1 kind=$2
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq

if [ "$stage" = build ]; then
    apt-get install -y -qq --no-install-recommends ca-certificates g++ libopencv-dev libturbojpeg0-dev pkg-config \
        python3-dev python3-venv >/dev/null
    python3 -m venv /opt/gentrain
    pip="/opt/gentrain/bin/pip install -q --disable-pip-version-check --no-cache-dir -c deploy/constraints.txt"
    if [ "$kind" = cpu ]; then
        $pip --index-url "${TORCH_INDEX:-https://download.pytorch.org/whl/cpu}" torch torchvision
    fi
    $pip .
    # FFCV imports OpenCV for Python, 150 MB, for its own encoding and resizing of images, which gentrain never uses.
    /opt/gentrain/bin/pip uninstall -q -y opencv-python
    cd /opt/gentrain/lib/python3*/site-packages
    cat >cv2.py <<'EOF'
"""Stand in for OpenCV, which this image leaves out."""


def __getattr__(name):
    raise AttributeError(f"cv2.{name}: this image has no OpenCV for Python; pip install opencv-python-headless")
EOF
    # The libraries that FFCV was linked with, and theirs: OpenCV's packages bring 170 MB of drivers for displays.
    mkdir /opt/gentrain/native
    ldd ffcv/_libffcv*.so | awk '$3 ~ /^\// && $1 !~ /^lib(c|m|stdc\+\+|gcc_s)\.so/ { print $3 }' |
        xargs cp -L -t /opt/gentrain/native
    # What nothing here imports: the libraries' own tests, Ray's Java and RLlib, Arrow's Flight, pip itself.
    find numpy numba pandas pyarrow scipy sklearn sympy networkx matplotlib mpl_toolkits -name tests -type d -prune \
        -exec rm -rf {} +
    rm -rf ray/jars ray/rllib pip pip-*.dist-info pyarrow/*flight*
    # Not all: strip breaks what auditwheel has patched, such as NumPy's OpenBLAS.
    find ray pyarrow llvmlite torch/lib/libtorch_cpu.so torch/lib/libtorch_python.so \
        \( -name '*.so*' -o -name raylet -o -name gcs_server \) -type f -exec strip --strip-unneeded {} +
    if [ "$kind" = cpu ]; then
        rm -rf torch/include pyarrow/include # for compilers, of which this image has none: `compile: auto` stays eager
        find . -name __pycache__ -type d -prune -exec rm -rf {} + # 230 MB; made again when a container starts
    fi
    exit
fi

apt-get install -y -qq --no-install-recommends ca-certificates python3 wget >/dev/null # wget: KubeRay's probes
if [ "$kind" = cuda ]; then
    apt-get install -y -qq --no-install-recommends g++ python3-dev >/dev/null # torch.compile's
fi
rm -rf /var/lib/apt/lists/* /var/cache/apt/*
echo /opt/gentrain/native >/etc/ld.so.conf.d/gentrain.conf
ldconfig
useradd --create-home --uid 1000 ray 2>/dev/null || usermod --login ray --home /home/ray --move-home ubuntu
install -d -o 1000 /work
