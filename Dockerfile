# One image for all processes. The command selects one: serve, worker, relay, console, migrate.
# To pin the base by its digest: --build-arg PYTHON_IMAGE=python:3.13-slim@sha256:...
ARG PYTHON_IMAGE=python:3.13-slim

FROM ${PYTHON_IMAGE} AS build
RUN command -v strip >/dev/null || (apt-get update && apt-get install -y --no-install-recommends binutils)
# The application's environment has no pip: another one installs into it.
RUN python -m venv /opt/pip && python -m venv --without-pip /opt/venv
COPY requirements-runtime.lock /opt/venv/
RUN --mount=type=cache,target=/root/.cache/pip \
    /opt/pip/bin/pip --python /opt/venv/bin/python install --disable-pip-version-check --no-compile \
    --require-hashes --only-binary :all: -r /opt/venv/requirements-runtime.lock
# What the packages bring and no process uses: symbols for debuggers, C sources, type stubs, SQLAlchemy's own tests.
RUN find /opt/venv -name '*.so' -exec strip --strip-unneeded {} + \
    && find /opt/venv/lib -regextype posix-extended -regex '.*\.(c|h|pyx|pxd|pyi)' -delete \
    && rm -r /opt/venv/lib/python*/site-packages/sqlalchemy/testing
COPY ingest /opt/app/ingest
COPY workers /opt/app/workers
COPY migrations /opt/app/migrations
# The root file system is read-only at run time, so Python compiles now: our code, and what of the packages it imports.
# Traces, Sentry and OIDC are extras; tests and `up --reload` need others. This image is without.
RUN python -m compileall -q /opt/app && cd /opt/app && /opt/venv/bin/python -c "\
import importlib, pkgutil, ingest, workers; \
[importlib.import_module(module.name) for package in (ingest, workers) \
 for module in pkgutil.walk_packages(package.__path__, package.__name__ + '.') \
 if not {'__main__', 'oidc', 'reload', 'sentry', 'testing', 'tracing'} & set(module.name.split('.'))]"

FROM ${PYTHON_IMAGE}
ENV PATH=/opt/venv/bin:$PATH PYTHONPATH=/opt/app PYTHONUNBUFFERED=1
COPY --from=build /opt/venv /opt/venv
COPY --from=build /opt/app /opt/app
RUN useradd --system --uid 10001 --no-create-home ingest
WORKDIR /opt/app
USER ingest
ENTRYPOINT ["python", "-m", "ingest"]
CMD ["serve", "--host", "0.0.0.0"]
