# The image of filestored: `docker build -t filestored .`, then `docker run -p 9000:9000 -v files:/data filestored`.
# Bucket and PostgreSQL too: deploy/cluster runs it with FILESTORED_STORE=s3://…, and its spool in /data/spool.
# tests/test_image.py carries out these very steps, and runs what comes of them as the image would.
FROM python:3.13.15-slim-trixie@sha256:7c61056e61ac89e852de05f3dc6fa51a6dd2181797bceed46aa725dd7cb2cd3b AS base

FROM base AS build
WORKDIR /build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
# the libraries first: they change less often than the program
COPY requirements/run.txt requirements/
RUN python -m venv --without-pip /opt/filestored \
    && python -m pip --python /opt/filestored/bin/python install --require-hashes -r requirements/run.txt
COPY pyproject.toml README.md LICENSE ./
COPY src src
# what only builds the wheel does not go into the image
RUN python -m pip --python /opt/filestored/bin/python wheel --no-deps --no-build-isolation --wheel-dir wheel . \
    && python -m pip --python /opt/filestored/bin/python install --no-index --no-deps wheel/*.whl \
    && python -m pip --python /opt/filestored/bin/python uninstall --yes editables hatchling pathspec pluggy trove-classifiers \
    && python -m pip --python /opt/filestored/bin/python check

FROM base
LABEL org.opencontainers.image.title="filestored" \
      org.opencontainers.image.description="A file storage daemon: POST a file, get its hash; GET it by the hash; DELETE it by the hash." \
      org.opencontainers.image.licenses="MIT"
# a named volume takes over owner and mode of these folders, /backup that of copies; what the base has of Python is compiled once, not at each health check
RUN groupadd --gid 10001 filestored \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /data --shell /usr/sbin/nologin filestored \
    && install -d -o 10001 -g 10001 -m 0700 /data /backup \
    && python -m compileall -q -x '/(site-packages|tests?|idlelib|turtledemo)/' "$(python -c 'import os; print(os.path.dirname(os.__file__))')"
COPY --from=build /opt/filestored /opt/filestored
ENV PATH=/opt/filestored/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    FILESTORED_STORE=/data/store
WORKDIR /data
USER 10001:10001
VOLUME /data
EXPOSE 9000
# running requests are finished first, for up to 30 seconds: an engine has to wait a minute, and --stop-delay on top of it
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=10s --start-period=5m --retries=3 CMD ["filestored", "status", "--ready"]
ENTRYPOINT ["filestored"]
CMD ["run"]
