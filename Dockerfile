FROM python:3.11-slim@sha256:9c900dea9e8fb7e16277c179b555cc72d29a352dbc33cff48ad5a0412fd5bfc7
# cpu, or one of torch's builds for CUDA, such as cu130, which brings its own libraries; the driver is the machine's.
ARG TORCH_BACKEND=cpu
RUN apt-get update && apt-get install -y --no-install-recommends g++ git make && rm -rf /var/lib/apt/lists/*
RUN useradd --create-home --uid 1000 evergreen
USER evergreen
WORKDIR /home/evergreen/project
COPY --chown=evergreen . .
RUN UV_TORCH_BACKEND=$TORCH_BACKEND make .venv/.stack && mkdir -p /home/evergreen/state /home/evergreen/.mlflow
ENV PATH=/home/evergreen/project/.venv/bin:$PATH
