# One image for all processes. The command selects one: serve, worker, relay, console, migrate.
# To pin the base by its digest: --build-arg PYTHON_IMAGE=python:3.13-slim@sha256:...
ARG PYTHON_IMAGE=python:3.13-slim

FROM ${PYTHON_IMAGE} AS build
# The application's environment has no pip: another one installs into it.
RUN python -m venv /opt/pip && python -m venv --without-pip /opt/venv
COPY requirements-runtime.lock /opt/venv/
RUN --mount=type=cache,target=/root/.cache/pip \
    /opt/pip/bin/pip --python /opt/venv/bin/python install --disable-pip-version-check \
    --require-hashes --only-binary :all: -r /opt/venv/requirements-runtime.lock
COPY ingest /opt/app/ingest
COPY workers /opt/app/workers
COPY migrations /opt/app/migrations
# The root file system is read-only at run time, so Python compiles now.
RUN python -m compileall -q /opt/app

FROM ${PYTHON_IMAGE}
ENV PATH=/opt/venv/bin:$PATH PYTHONPATH=/opt/app PYTHONUNBUFFERED=1
COPY --from=build /opt/venv /opt/venv
COPY --from=build /opt/app /opt/app
RUN useradd --system --uid 10001 --no-create-home ingest
WORKDIR /opt/app
USER ingest
ENTRYPOINT ["python", "-m", "ingest"]
CMD ["serve", "--host", "0.0.0.0"]
