# OpenSearch with the server plugin of this source tree, which works in this version only.
#
#     docker build -t xmodal-opensearch -f deploy/opensearch.Dockerfile .

ARG OPENSEARCH=3.6.0

FROM python:3.11-slim-bookworm AS plugin
ARG OPENSEARCH
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY xmodal xmodal
COPY plugin plugin
# The compiler is part of the extra; the server's classes come from Maven Central.
RUN python -m venv /opt/xmodal \
    && /opt/xmodal/bin/pip install --no-cache-dir ".[node]" \
    && /opt/xmodal/bin/xmodal-opensearch plugin build --server "${OPENSEARCH}" --out /hamming.zip

FROM opensearchproject/opensearch:${OPENSEARCH}
COPY --from=plugin /hamming.zip /usr/share/opensearch/hamming.zip
# A new volume at certificates/ has the owner of this folder.
RUN bin/opensearch-plugin install --batch file:///usr/share/opensearch/hamming.zip \
    && mkdir certificates
