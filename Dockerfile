# One image for all processes. The command selects one: serve, worker, relay, console, migrate.
FROM python:3.13-slim

ENV PYTHONUNBUFFERED=1 PYTHONPATH=/app
WORKDIR /app

COPY requirements-runtime.lock ./
RUN pip install --no-cache-dir --disable-pip-version-check --require-hashes \
    -r requirements-runtime.lock

COPY ingest ingest
COPY workers workers
COPY migrations migrations

RUN useradd --system --uid 10001 --no-create-home ingest
USER ingest
ENTRYPOINT ["python", "-m", "ingest"]
CMD ["serve", "--host", "0.0.0.0"]
