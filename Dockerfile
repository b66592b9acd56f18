# Build in a clone, then train:  docker build -t sepablate .  &&  docker run -it sepablate
# For a GPU:  docker build --build-arg CPU= -t sepablate .  &&  docker run -it --gpus all sepablate
# `make ui` inside answers on 127.0.0.1 of the container: docker run --network host  shows it outside.
# Results stay in the container unless a folder is mounted.

# What the project needs of the system; .devcontainer/ uses only this stage.
FROM python:3.11-slim-bookworm AS system
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ git make \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 1000 --create-home --shell /bin/bash user \
    && install --directory --owner user --group user /home/user/sepablate
USER 1000
WORKDIR /home/user/sepablate

# The clone with its .git, without which DVC does not work, and the locked environment: 2.5 GB
# for the CPU, 6 GB for a GPU.
FROM system
ARG CPU=1
COPY --chown=user:user . .
RUN make env CPU=$CPU
CMD ["make", "repro"]
