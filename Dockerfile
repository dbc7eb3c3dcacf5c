# docker build -t ecg-lightning . ; docker run --rm -v "$PWD:/home/ecg/data" ecg-lightning demo
# CPU only: --build-arg TORCH_INDEX=<an index with CPU wheels of torch>.
FROM python:3.11.13-slim-bookworm AS build
ARG TORCH_INDEX=""
WORKDIR /source
RUN python -m venv /opt/venv
COPY constraints.txt ./
RUN /opt/venv/bin/pip install --no-cache-dir ${TORCH_INDEX:+--index-url $TORCH_INDEX} -c constraints.txt torch
COPY pyproject.toml README.md LICENSE ./
COPY configs configs
COPY ecg_lightning ecg_lightning
RUN /opt/venv/bin/pip install --no-cache-dir -c constraints.txt .

FROM python:3.11.13-slim-bookworm
COPY --from=build /opt/venv /opt/venv
RUN useradd --create-home --uid 1000 ecg && mkdir /home/ecg/data && chown ecg /home/ecg/data
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1
USER ecg
WORKDIR /home/ecg/data
ENTRYPOINT ["ecg-lightning"]
CMD ["--help"]
