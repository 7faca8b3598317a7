FROM python:3.11-slim@sha256:9c900dea9e8fb7e16277c179b555cc72d29a352dbc33cff48ad5a0412fd5bfc7
RUN apt-get update && apt-get install -y --no-install-recommends g++ git make && rm -rf /var/lib/apt/lists/*
RUN useradd --create-home evergreen
USER evergreen
WORKDIR /home/evergreen/project
COPY --chown=evergreen . .
RUN make .venv/.ready && mkdir /home/evergreen/state
ENV PATH=/home/evergreen/project/.venv/bin:$PATH
