# Two images:
#   docker build --target service -t esans-service .     serves; without torch
#   docker build --target trainer -t esans-trainer .     trains and publishes bundles
# TORCH_INDEX: package index of the trainer's torch; CPU build by default, empty for the CUDA build.

FROM python:3.11-slim AS base
ENV PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 \
    OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 \
    PATH=/opt/venv/bin:$PATH
RUN groupadd --gid 10001 esans \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /tmp esans \
 && install -d -o 10001 -g 10001 /bundles /state
WORKDIR /app

FROM base AS service-build
RUN python -m venv /opt/venv
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY index index
COPY service service
RUN pip install --no-cache-dir --constraint constraints.txt '.[service]'

FROM base AS service
LABEL org.opencontainers.image.title="esans-service" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=service-build /opt/venv /opt/venv
ENV ESANS_BUNDLES=/bundles ESANS_HTTP_HOST=0.0.0.0 ESANS_HTTP_PORT=8000
USER 10001:10001
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s \
    CMD ["python", "-c", "import os, urllib.request as u; u.build_opener(u.ProxyHandler({})).open('http://127.0.0.1:' + os.environ['ESANS_HTTP_PORT'] + '/readyz', timeout=2)"]
ENTRYPOINT ["python", "-m", "service"]

FROM base AS trainer-build
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN python -m venv /opt/venv
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY index index
COPY trainer trainer
RUN pip install --no-cache-dir --constraint constraints.txt \
    ${TORCH_INDEX:+--extra-index-url $TORCH_INDEX} '.[trainer]'
COPY examples examples
RUN python -m examples.catalogue /demo

FROM base AS trainer
LABEL org.opencontainers.image.title="esans-trainer" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=trainer-build /opt/venv /opt/venv
COPY --from=trainer-build /demo /demo
USER 10001:10001
ENTRYPOINT ["python", "-m", "trainer"]
CMD ["--help"]
