# gentrain in a container, for one machine, KubeRay or any cluster of containers:
#
#   docker build --target cuda -t gentrain .          NVIDIA GPUs; the default
#   docker build --target cpu -t gentrain:cpu .       CPUs alone, a fraction of the size
#   docker run --rm --gpus all --shm-size 8g -v "$PWD:/work" gentrain chain study.yaml
#
# deploy/image.sh has the steps; what was tried of it without Docker, and its size, stands in docs/deploy.md.

FROM debian:bookworm-slim AS cpu-build
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY deploy deploy
COPY gentrain gentrain
RUN sh deploy/image.sh build cpu

FROM debian:bookworm-slim AS cpu
COPY --from=cpu-build /opt/gentrain /opt/gentrain
COPY deploy/image.sh /opt/image.sh
RUN sh /opt/image.sh run cpu
ENV PATH=/opt/gentrain/bin:$PATH RAY_USAGE_STATS_ENABLED=0 PYTHONPYCACHEPREFIX=/home/ray/.cache/python
USER 1000
WORKDIR /work
ENTRYPOINT ["gentrain"]

FROM nvidia/cuda:13.0.2-base-ubuntu24.04 AS cuda-build
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY deploy deploy
COPY gentrain gentrain
RUN sh deploy/image.sh build cuda

FROM nvidia/cuda:13.0.2-base-ubuntu24.04 AS cuda
COPY --from=cuda-build /opt/gentrain /opt/gentrain
COPY deploy/image.sh /opt/image.sh
RUN sh /opt/image.sh run cuda
ENV PATH=/opt/gentrain/bin:$PATH RAY_USAGE_STATS_ENABLED=0 NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 1000
WORKDIR /work
ENTRYPOINT ["gentrain"]
