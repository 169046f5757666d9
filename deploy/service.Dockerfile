# The HTTP service, with a portable model (xmodal train writes one into the model's folder): without
# torch. The process runs as user 10001 and writes to /tmp alone.
#
#     docker build -t xmodal-service -f deploy/service.Dockerfile .
#     docker run --rm --read-only --tmpfs /tmp -p 127.0.0.1:8080:8080 -v ./my.model:/model:ro \
#         -v ./my.index:/index:ro -v ./photos:/pictures:ro xmodal-service
#
# --build-arg EXTRAS=service,torch,opensearch for a model without a portable encoder (several
# gigabytes).

FROM python:3.11-slim-bookworm AS build
ARG EXTRAS=service,otel,onnx,opensearch
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY xmodal xmodal
COPY plugin plugin
# pyproject.toml has the version ranges of the packages.
RUN python -m venv /opt/xmodal && /opt/xmodal/bin/pip install --no-cache-dir ".[${EXTRAS}]"

FROM python:3.11-slim-bookworm
COPY --from=build /opt/xmodal /opt/xmodal
ENV PATH=/opt/xmodal/bin:$PATH \
    HOME=/tmp \
    HF_HUB_OFFLINE=1 \
    OMP_WAIT_POLICY=PASSIVE \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
USER 10001:10001
# The service returns pictures from this folder only.
WORKDIR /pictures
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s CMD ["python", "-c", \
    "import urllib.request as r; r.urlopen('http://127.0.0.1:8080/health/ready', timeout=4)"]
ENTRYPOINT ["xmodal", "serve", "--host", "0.0.0.0", "--port", "8080", "--model", "/model"]
CMD ["--index", "/index"]
