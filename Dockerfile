FROM python:3.11-slim@sha256:9c900dea9e8fb7e16277c179b555cc72d29a352dbc33cff48ad5a0412fd5bfc7
# cpu, or one of torch's builds for CUDA, such as cu130, which brings its own libraries; the driver is the machine's.
ARG TORCH_BACKEND=cpu
RUN apt-get update && apt-get install -y --no-install-recommends g++ git make && rm -rf /var/lib/apt/lists/*
# KubeRay starts Ray in a login shell, which sets PATH anew.
RUN useradd --create-home --uid 1000 evergreen \
    && echo 'PATH=/home/evergreen/project/.venv/bin:$PATH' > /etc/profile.d/evergreen.sh
USER evergreen
WORKDIR /home/evergreen/project
COPY --chown=evergreen . .
# What the builder's checkout or a package would let others write is closed.
RUN UV_TORCH_BACKEND=$TORCH_BACKEND make .venv/.stack \
    && mkdir -p /home/evergreen/state /home/evergreen/.mlflow /home/evergreen/.cache \
    && find /home/evergreen ! -type l -perm /go=w -exec chmod go-w {} +
ENV PATH=/home/evergreen/project/.venv/bin:$PATH
# What torch and DeepSpeed compile while they run is loaded from here, so that a mount of it must allow to execute files.
ENV TORCH_EXTENSIONS_DIR=/home/evergreen/.cache/torch_extensions \
    TORCHINDUCTOR_CACHE_DIR=/home/evergreen/.cache/inductor \
    TRITON_CACHE_DIR=/home/evergreen/.cache/triton
