# docker build -t ecg-lightning .
# docker run --rm --init -v "$PWD/data:/data" -v "$PWD/runs:/runs" ecg-lightning demo
# CPU only, gigabytes smaller: --build-arg TORCH_INDEX=<an index with CPU wheels of torch>.
FROM python:3.11.13-slim-bookworm AS build
ARG TORCH_INDEX=""
WORKDIR /source
RUN python -m venv /opt/venv
COPY constraints.txt ./
# The constraints hold for the build backend as well.
ENV PIP_CONSTRAINT=/source/constraints.txt PIP_NO_CACHE_DIR=1
RUN /opt/venv/bin/pip install ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} -c constraints.txt torch
COPY pyproject.toml README.md LICENSE ./
COPY configs configs
COPY ecg_lightning ecg_lightning
# What builds and installs stays behind; setuptools is asked for by torch.
RUN /opt/venv/bin/pip install -c constraints.txt '.[formats,export,hub]' \
    && /opt/venv/bin/pip check \
    && /opt/venv/bin/pip uninstall --yes pip

FROM python:3.11.13-slim-bookworm
COPY --from=build /opt/venv /opt/venv
# Open to every uid, so that `docker run --user "$(id -u)"` can write what the host's user owns.
RUN useradd --create-home --uid 1000 ecg \
    && install --directory --owner=ecg --group=ecg --mode=1777 /home/ecg /data /runs
# HOME holds the caches of matplotlib, wandb and torch; USER names whoever a foreign uid is to torch.
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    HOME=/home/ecg \
    USER=ecg \
    HF_HOME=/data/huggingface
VOLUME ["/data", "/runs"]
WORKDIR /runs
USER 1000
HEALTHCHECK --interval=5m --timeout=2m --start-period=1m CMD ["ecg-lightning", "--version"]
ENTRYPOINT ["ecg-lightning"]
CMD ["--help"]
