# Two images from one file; docs/packaging.md says how to build and run them.
#   docker build --target train -t dreamer-train .
#   docker build --target serve -t dreamer-serve .
#   docker build --target train --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu128 -t dreamer-cuda .
ARG PYTHON_IMAGE=python:3.11.14-slim-bookworm

# What both images install: PyTorch from an index of its own, all other versions from the lock.
FROM ${PYTHON_IMAGE} AS builder
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ENV PATH=/opt/venv/bin:$PATH \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1
SHELL ["/bin/bash", "-euo", "pipefail", "-c"]
WORKDIR /app
RUN python -m venv /opt/venv
COPY requirements.lock ./
RUN grep '^torch==' requirements.lock > torch.txt \
    && grep '^setuptools==' requirements.lock > setuptools.txt \
    && pip install ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} --requirement torch.txt \
    && pip install --requirement setuptools.txt
# Empty packages stand in for the code, so that a change of the code repeats no installation.
COPY pyproject.toml README.md LICENSE ./
RUN mkdir dreamer pipeline \
    && touch dreamer/__init__.py pipeline/__init__.py \
    && pip install --no-build-isolation --constraint requirements.lock --editable '.[store]'

FROM builder AS builder-of-train
ARG EXTRAS=atari,audio,crafter,dmc,minigrid,store,text
RUN pip install --no-build-isolation --constraint requirements.lock --editable ".[$EXTRAS]"

# What both images run in: nobody is root, the project is theirs.
FROM ${PYTHON_IMAGE} AS base
ARG GIT_COMMIT=unknown
LABEL org.opencontainers.image.title="dreamer-pipeline" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.revision="${GIT_COMMIT}"
ENV PATH=/opt/venv/bin:$PATH \
    VIRTUAL_ENV=/opt/venv \
    PYTHONUNBUFFERED=1 \
    MPLBACKEND=agg \
    MLFLOW_DISABLE_TELEMETRY=true \
    DO_NOT_TRACK=true \
    DVC_NO_ANALYTICS=1
# tini: signals reach who runs, though it is the first process of its container
RUN apt-get update \
    && apt-get install --yes --no-install-recommends tini=0.19.* \
    && rm -rf /var/lib/apt/lists/*
RUN groupadd --gid 1000 dreamer \
    && useradd --uid 1000 --gid 1000 --create-home --home-dir /var/lib/dreamer dreamer \
    && install --directory --owner 1000 --group 1000 /app /app/.dvc
WORKDIR /app
ENTRYPOINT ["tini", "-g", "--"]

# docker run -v "$PWD:/app" dreamer-train            the checkout that is mounted
# docker run dreamer-train dreamer train --preset pendulum
FROM base AS train
# git: DVC's experiments; the others: dm_control's camera
RUN apt-get update \
    && apt-get install --yes --no-install-recommends git=1:2.39.* libegl1=1.6.* libgl1=1.6.* \
    && rm -rf /var/lib/apt/lists/*
COPY --from=builder-of-train /opt/venv /opt/venv
COPY --chown=1000:1000 .dvcignore params.yaml dvc.yaml dvc.lock requirements.lock pyproject.toml run_dreamer.py MLproject README.md LICENSE ./
COPY --chown=1000:1000 .dvc/config .dvc/config
COPY --chown=1000:1000 presets presets
COPY --chown=1000:1000 examples examples
COPY --chown=1000:1000 dreamer dreamer
COPY --chown=1000:1000 pipeline pipeline
USER 1000:1000
# The files of the image are no git repository; a checkout that is mounted over them may be one.
RUN dvc config --local core.no_scm true
# As Ctrl-C: DVC waits for the stage at work, which writes a checkpoint.
STOPSIGNAL SIGINT
CMD ["dreamer", "repro"]

# docker run -v "$PWD/model:/model:ro" -p 8080:8080 dreamer-serve
FROM base AS serve
COPY --from=builder /opt/venv /opt/venv
COPY --chown=1000:1000 dreamer dreamer
COPY --chown=1000:1000 pipeline pipeline
USER 1000:1000
EXPOSE 8080
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8080/ping', timeout=4)"]
# /model: a folder that `dreamer package` wrote
CMD ["dreamer", "serve", "/model", "--host", "0.0.0.0", "--port", "8080"]
