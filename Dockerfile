FROM python:3.11-slim
RUN apt-get update && apt-get install -y --no-install-recommends g++ git make && rm -rf /var/lib/apt/lists/*
RUN useradd --create-home evergreen
USER evergreen
WORKDIR /home/evergreen/project
COPY --chown=evergreen . .
RUN make .venv/.ready && mkdir /home/evergreen/state
ENV PATH=/home/evergreen/project/.venv/bin:$PATH
