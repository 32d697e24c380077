FROM python:3.11-slim

ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /app

# Before the code, so that a change of the code does not install everything again.
COPY requirements.txt ./
RUN pip install --require-hashes -r requirements.txt

COPY pyproject.toml README.md LICENSE ./
COPY schemas schemas
COPY runtime runtime
COPY actors actors
COPY edge edge
COPY config config
COPY nats nats
# Editable: nothing is copied to site-packages, where names such as `runtime` could meet others.
RUN pip install --no-build-isolation --no-deps -e . \
    && useradd --system --uid 10001 --home-dir /app --shell /usr/sbin/nologin callboard

USER callboard
EXPOSE 8000
ENTRYPOINT ["callboard"]
CMD ["--help"]
